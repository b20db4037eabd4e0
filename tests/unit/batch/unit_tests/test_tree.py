"""The tree of kept tests passes under plain pytest, wherever it is started and whatever things are called."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.derived import replaced_folder
from zenray.batch.rows import row_id
from zenray.batch.unit_tests.model import CandidateTest
from zenray.batch.unit_tests.results.tree import function_files, write_tree
from zenray.batch.unit_tests.validation.suite_source import join_tests


def record(repository: str, path: str, name: str, module_source: str, *tests: str) -> dict[str, Any]:
    """A row of the record as far as the tree looks at it; every test is kept."""
    return {
        "row_id": row_id(repository, path, name),
        "qualified_name": name,
        "import_name": name,
        "module_source": module_source,
        "provenance": {
            "repository": repository,
            "revision": "1.0\nimport sys; sys.exit(3)",  # Nothing that a repository says of itself becomes code.
            "path": path,
            "start_line": 1,
            "end_line": 2,
            "licence_file": "",
        },
        "model": None,
        "mutation_score": 0.5,
        "line_coverage": 1.0,
        "branch_coverage": None,
        "agreement": None,
        "tests": [
            {"test_id": str(place), "name": _name(source), "source": source, "kept": True}
            for place, source in enumerate(tests)
        ],
    }


def _name(source: str) -> str:
    return next(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))


RECORDS = [
    # Named as a module of the standard library, in a repository named as a folder that pytest does not enter.
    record("build", "random.py", "choice", "def choice(items):\n    return items[0]\n",
           "import random\n\ndef test_choice():\n    assert choice([3]) == random.choice([3])"),
    # Two tests of one name; two meanings of sqrt.
    record("build", "roots.py", "root", "def root(x):\n    return abs(x) ** 0.5\n",
           "from math import sqrt\n\ndef test_root():\n    assert root(4) == sqrt(4)",
           "from cmath import sqrt\n\ndef test_root():\n    assert sqrt(-4) == 2j and root(4) == 2",
           "import math\n\ndef test_root():\n    assert root(9) == math.sqrt(9)"),
    # What pytest would collect by itself: a function and a class that are tested, not tests.
    record("tools", "tests/test_tools.py", "testsource", "def testsource(module):\n    return module.upper()\n",
           "def test_it():\n    assert testsource('a') == 'A'"),
    record("tools", "shapes.py", "TestShape",
           "class TestShape:\n    def test_area(self, side):\n        return side**2\n",
           "import pytest\n\n@pytest.mark.parametrize('side', [2])\ndef test_area(side):\n"
           "    assert TestShape().test_area(side) == 4"),
    # The same function in two repositories, and one without a kept test.
    record("tools", "roots.py", "root", "def root(x):\n    return x\n", "def test_root():\n    assert root(4) == 4"),
    record("tools", "none.py", "none", "raise SystemExit\n"),
]  # fmt: skip


@pytest.mark.parametrize("import_mode", ["prepend", "append", "importlib"])
def test_every_test_passes_under_plain_pytest_from_anywhere(tmp_path: Path, import_mode: str) -> None:
    tree = tmp_path / "out" / "tests"
    tree.mkdir(parents=True)
    assert write_tree(tree, RECORDS) == 7
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode", import_mode, str(tree)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0 and "7 passed" in run.stdout, run.stdout + run.stderr


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    trees = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_tree(folder, RECORDS)
        trees.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert trees[0] == trees[1]


def test_a_test_says_where_its_function_comes_from() -> None:
    for name, text in function_files(RECORDS[1]).items():
        assert "build: roots.py, lines 1 to 2.\n# Revision: 1.0?import sys; sys.exit(3)." in text, name
        ast.parse(text)


_IMPORTS = st.sampled_from(
    ["import os", "import os.path", "import json as os", "from os import path", "from json import *",
     "from math import sqrt", "from cmath import sqrt", "from m import f", "from __future__ import annotations"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_IMPORTS, max_size=3, unique=True), min_size=1, max_size=6))
def test_a_shared_module_gives_no_name_two_meanings(imports: list[list[str]]) -> None:
    tests = []
    for place, lines in enumerate(imports):
        ordered = sorted(lines, key=lambda line: "__future__" not in line)
        source = "\n".join([*ordered, f"def test_f():\n    assert f({place}) == {place}"])
        tests.append(CandidateTest(str(place), "test_f", source))
    modules = [ast.parse(text) for text in join_tests(tests, "focal", "f")]
    found = []
    for module in modules:
        functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
        assert len({node.name for node in functions}) == len(functions)
        found += [ast.unparse(node.body[0]) for node in functions]
        if len(functions) > 1:
            meanings: dict[str, str] = {}
            for node in module.body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    source = getattr(node, "module", "")
                    for alias in node.names:
                        assert alias.name != "*"
                        name = alias.asname or (alias.name.split(".")[0] if not source else alias.name)
                        meaning = f"{source}:{alias.name if source or alias.asname else name}"
                        assert meanings.setdefault(name, meaning) == meaning
    assert sorted(found) == sorted(f"assert f({place}) == {place}" for place in range(len(tests)))


def test_a_derived_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    with replaced_folder(tmp_path, "tests") as folder:
        (folder / "old.py").write_text("1")

    def be_killed() -> None:
        with replaced_folder(tmp_path, "tests") as folder:
            (folder / "half.py").write_text("2")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        be_killed()
    assert [path.name for path in (tmp_path / "tests").iterdir()] == ["old.py"]
    with replaced_folder(tmp_path, "tests") as folder:
        (folder / "new.py").write_text("3")
    assert [path.name for path in (tmp_path / "tests").iterdir()] == ["new.py"]
    assert not list((tmp_path / "runs").iterdir())
