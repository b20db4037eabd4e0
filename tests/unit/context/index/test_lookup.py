"""Definitions and modules are found as code of each language means them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from zenray.context.index import BuildReport, UploadedIndex, WorkspaceIndex
from zenray.context.pieces import ContextSource
from zenray.context.surroundings import SymbolIndex

Write = Callable[[Mapping[str, str | bytes]], None]

SHAPES = '''\
"""Shapes."""

LIMIT = 3


class Shape:
    """Something with an area."""

    def area(self) -> float:
        """In square metres."""
        return 0.0


def largest(shapes: list[Shape]) -> Shape:
    return max(shapes, key=Shape.area)
'''


def uploaded(files: Mapping[str, str]) -> UploadedIndex:
    index = UploadedIndex()
    for path, text in files.items():
        index.put(path, text)
    return index


def defined(index: SymbolIndex, *names: str, language: str = "python", limit: int = 10) -> list[tuple[str, int, str]]:
    found = index.definitions(names, language, limit)
    assert all(each.source is ContextSource.DEFINITION for each in found)
    return [(each.path, each.start_line, each.text) for each in found]


def exporting(index: SymbolIndex, module: str, importer: str, language: str) -> list[str]:
    found = index.exports([module], importer, language, 10)
    assert all(each.source is ContextSource.IMPORT for each in found)
    return [each.path for each in found]


def test_short_definitions_are_whole_lines_of_their_file() -> None:
    found = defined(uploaded({"shapes.py": SHAPES}), "largest", "area")
    lines = SHAPES.splitlines(keepends=True)
    assert found == [("shapes.py", 13, "".join(lines[13:15])), ("shapes.py", 8, "".join(lines[8:11]))]


def test_long_definitions_are_told_by_signature_documentation_and_members() -> None:
    body = "".join(
        f"    def step_{number}(self, x: int) -> int:\n        return x + {number}\n\n" for number in range(50)
    )
    ((_, _, text),) = defined(uploaded({"m.py": f'class Machine(Base):\n    """Steps."""\n\n{body}'}), "Machine")
    assert text.splitlines()[:3] == ["# Steps.", "class Machine(Base):", "    def step_0(self, x: int) -> int:"]
    assert "return" not in text
    assert len(text.splitlines()) < 40


def test_the_earliest_names_come_first_and_the_limit_holds() -> None:
    index = uploaded({"a.py": "def one(): ...\ndef two(): ...\n", "b.py": "def one(): ...\n"})
    assert [(path, text[4:7]) for path, _, text in defined(index, "two", "one")] == [
        ("a.py", "two"),
        ("a.py", "one"),
        ("b.py", "one"),
    ]
    assert len(defined(index, "two", "one", limit=2)) == 2
    assert defined(index, "two", limit=0) == []
    assert defined(index, "two' OR 1=1 --", "", "\0", "\ud800") == []


def test_what_stands_at_the_top_comes_before_members_and_tests_and_no_name_fills_the_list() -> None:
    many = {f"m{number}.py": "class A:\n    def run(self): ...\n" for number in range(50)}
    tests = dict.fromkeys(("tests/a.py", "test_b.py", "c_test.py", "src/test/d.py"), "def run(): ...\n")
    found = defined(uploaded({**tests, **many, "z.py": "def run(): ...\n"}), "run")
    assert [path for path, _, _ in found] == ["z.py", "m0.py", "m1.py"]


def test_languages_see_those_they_can_refer_to() -> None:
    index = uploaded(
        {"a.py": "def f(): ...\n", "a.ts": "export function f() { return 1 }\n", "a.h": "int f(void) { return 1; }\n"}
    )
    assert [path for path, _, _ in defined(index, "f")] == ["a.py"]
    assert [path for path, _, _ in defined(index, "f", language="javascript")] == ["a.ts"]
    assert [path for path, _, _ in defined(index, "f", language="cpp")] == ["a.h"]
    assert defined(index, "f", language="go") == []
    assert defined(index, "f", language="") == []


def test_exports_are_the_signatures_at_the_top_of_a_module() -> None:
    index = uploaded({"pkg/shapes.py": f"{SHAPES}\n\ndef _hidden(): ...\n\n\nTABLE = [\n    {'9, ' * 50}\n]\n"})
    (found,) = index.exports(["pkg.shapes", "pkg.shapes"], "main.py", "python", 10)
    assert "class Shape" in found.text
    assert "    def area(self) -> float" in found.text
    assert "def largest(shapes: list[Shape]) -> Shape" in found.text
    assert "LIMIT = 3" in found.text
    assert "return" not in found.text
    assert "_hidden" not in found.text
    assert "9, 9" not in found.text
    assert index.exports(["pkg.shapes"], "pkg/shapes.py", "python", 10) == []  # nobody needs their own


PYTHON = {
    "app/__init__.py": "def a(): ...\n",
    "app/models.py": "def m(): ...\n",
    "app/views/page.py": "def p(): ...\n",
    "app/utils.py": "def u(): ...\n",
    "src/lib/deep/core.py": "def c(): ...\n",
    "other/json.py": "def j(): ...\n",
    "tools/helper.py": "def h(): ...\n",
}
WEB = {
    "src/a.ts": "export function a() {}\n",
    "src/ui/index.tsx": "export function ui() {}\n",
    "src/ui/button.jsx": "export function button() {}\n",
    "packages/kit/src/index.ts": "export function kit() {}\n",
}
GO = {"pkg/util/a.go": "package util\nfunc A() {}\n", "pkg/util/b.go": "package util\nfunc B() {}\n",
      "internal/errors/e.go": "package errors\nfunc E() {}\n", "util2/x.go": "package x\nfunc X() {}\n"}  # fmt: skip
JVM = {
    "src/main/java/com/acme/Shape.java": "package com.acme;\npublic class Shape { int area() { return 1; } }\n",
    "src/main/kotlin/com/acme/Box.kt": "package com.acme\nclass Box { fun open() = 1 }\n",
}
RUST = {
    "src/lib.rs": "pub fn top() {}\n",
    "src/shapes/mod.rs": "pub fn shapes() {}\n",
    "src/shapes/circle.rs": "pub fn circle() {}\n",
    "crates/my-kit/src/lib.rs": "pub fn kit() {}\n",
    "crates/my-kit/src/part.rs": "pub fn part() {}\n",
}
C = {"include/acme/shape.h": "int area(void) { return 1; }\n", "src/local.h": "int local(void) { return 1; }\n"}
MORE = {
    "lib/models.dart": "class Model {}\n",
    "lib/tool.rb": "def tool\nend\n",
    "app/Models/User.php": "<?php\nclass User {}\n",
    "game/player.lua": "function jump()\nend\n",
}


@pytest.mark.parametrize(
    ("files", "module", "importer", "language", "expected"),
    [
        (PYTHON, "app", "main.py", "python", ["app/__init__.py"]),
        (PYTHON, "app.models", "main.py", "python", ["app/models.py"]),
        (PYTHON, "app.models.Model", "main.py", "python", ["app/models.py"]),
        (PYTHON, ".models", "app/other.py", "python", ["app/models.py"]),
        (PYTHON, "..utils", "app/views/page.py", "python", ["app/utils.py"]),
        (PYTHON, ".", "app/other.py", "python", ["app/__init__.py"]),
        (PYTHON, "....x", "app/other.py", "python", []),
        (PYTHON, "lib.deep.core", "main.py", "python", ["src/lib/deep/core.py"]),
        (PYTHON, "deep.core", "main.py", "python", ["src/lib/deep/core.py"]),
        (PYTHON, "json", "main.py", "python", []),  # that of the standard library
        (PYTHON, "helper", "tools/run.py", "python", ["tools/helper.py"]),
        (WEB, "./a", "src/b.ts", "typescript", ["src/a.ts"]),
        (WEB, "./a.js", "src/b.ts", "typescript", ["src/a.ts"]),
        (WEB, "../a", "src/ui/x.tsx", "typescriptreact", ["src/a.ts"]),
        (WEB, "./ui", "src/b.js", "javascript", ["src/ui/index.tsx"]),
        (WEB, "@/ui/button", "src/b.vue", "vue", ["src/ui/button.jsx"]),
        (WEB, "@acme/kit", "src/b.ts", "typescript", ["packages/kit/src/index.ts"]),
        (WEB, "../../../a", "src/b.ts", "typescript", []),
        (WEB, "react", "src/b.ts", "typescript", []),
        (GO, "example.com/app/pkg/util", "main.go", "go", ["pkg/util/a.go", "pkg/util/b.go"]),
        (GO, "example.com/app/util2", "main.go", "go", ["util2/x.go"]),
        (GO, "errors", "main.go", "go", []),  # that of the standard library
        (JVM, "com.acme.Shape", "src/main/java/com/acme/Other.java", "java", ["src/main/java/com/acme/Shape.java"]),
        (JVM, "com.acme.Shape.area", "X.java", "java", ["src/main/java/com/acme/Shape.java"]),
        (JVM, "com.acme.Shape", "X.kt", "kotlin", ["src/main/java/com/acme/Shape.java"]),
        (JVM, "com.acme.Box", "X.java", "java", ["src/main/kotlin/com/acme/Box.kt"]),
        (RUST, "crate::shapes::circle", "src/main.rs", "rust", ["src/shapes/circle.rs"]),
        (RUST, "crate::shapes::Circle", "src/deep/x.rs", "rust", ["src/shapes/mod.rs"]),
        (RUST, "super::shapes", "src/deep/x.rs", "rust", ["src/shapes/mod.rs"]),
        (RUST, "shapes", "src/lib.rs", "rust", ["src/shapes/mod.rs"]),
        (RUST, "my_kit::part::Part", "src/main.rs", "rust", ["crates/my-kit/src/part.rs"]),
        (RUST, "my_kit::Thing", "src/main.rs", "rust", ["crates/my-kit/src/lib.rs"]),
        (C, "local.h", "src/main.c", "c", ["src/local.h"]),
        (C, "acme/shape.h", "src/main.cpp", "cpp", ["include/acme/shape.h"]),
        (C, "../include/acme/shape.h", "src/main.c", "c", ["include/acme/shape.h"]),
        (MORE, "package:app/models.dart", "lib/main.dart", "dart", ["lib/models.dart"]),
        (MORE, "tool", "bin/x.rb", "ruby", ["lib/tool.rb"]),
        (MORE, "App\\Models\\User", "public/index.php", "php", ["app/Models/User.php"]),
        (MORE, "game.player", "main.lua", "lua", ["game/player.lua"]),
    ],
)
def test_modules_are_found_as_their_languages_look_for_them(
    files: Mapping[str, str], module: str, importer: str, language: str, expected: list[str]
) -> None:
    assert exporting(uploaded(files), module, importer, language) == expected


@pytest.mark.parametrize(
    "language", ["python", "typescript", "go", "java", "rust", "c", "php", "dart", "ruby", "", "x"]
)
@pytest.mark.parametrize(
    "module",
    ["", ".", "..", "/", "//", "../../..", "a" * 10_000, "a\0b", "*", "::", "\\", "é.ü", "%", "_", "'", "a/./b"],
)
@pytest.mark.parametrize("importer", ["", "a.py", "a/b/c.py", "/abs.py", "../x.py"])
def test_odd_module_names_find_nothing_and_break_nothing(module: str, importer: str, language: str) -> None:
    assert uploaded({"z/y.py": "def y(): ...\n"}).exports([module], importer, language, 10) == []


def test_the_index_on_disk_answers_as_the_one_in_memory(
    write: Write, build: Callable[[], BuildReport], index: Callable[[], WorkspaceIndex]
) -> None:
    files = {**PYTHON, **WEB, **GO, **JVM, **RUST, **C, **MORE}
    write(files)
    build()
    in_memory, on_disk = uploaded(dict(sorted(files.items(), key=lambda each: each[0].split("/")))), index()
    names = ["m", "a", "ui", "A", "Shape", "circle", "area", "Model", "User"]
    for language in ("python", "typescript", "go", "java", "rust", "c", "dart", "php"):
        assert on_disk.definitions(names, language, 20) == in_memory.definitions(names, language, 20)
    modules = ["app.models", "deep.core", "./a", "com.acme.Box", "crate::shapes", "acme/shape.h"]
    for language in ("python", "typescript", "java", "rust", "c"):
        assert on_disk.exports(modules, "src/x", language, 20) == in_memory.exports(modules, "src/x", language, 20)


def test_uploads_replace_vanish_and_stay_within_their_bytes() -> None:
    index = UploadedIndex(max_bytes=1000)
    index.put("a.py", "def old(): ...\n")
    index.put("a.py", "def new(): ...\n")
    assert defined(index, "old", "new") == [("a.py", 0, "def new(): ...\n")]
    index.remove("a.py")
    index.remove("a.py")
    assert defined(index, "new") == []
    for number in range(100):
        index.put(f"m{number}.py", f"def f{number}(): ...\n".ljust(99) + "\n")
    assert [path for path, _, _ in defined(index, *(f"f{number}" for number in range(50, 100)), limit=99)] == [
        f"m{number}.py" for number in range(90, 100)
    ]
    index.put("big.py", "def big(): ...\n" + "#" * 2000)
    index.put(".env.py", "def secret(): ...\n")
    index.put("data.json", "{}")
    index.put("bad.py", "def bad(): ...  # \ud800\n")
    assert [path for path, _, _ in defined(index, "big", "secret", "bad")] == ["bad.py"]
