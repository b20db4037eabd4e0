"""Imports as written, read from the text of one import."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from zenray.context.symbols.model import Import

_QUOTED = re.compile(r"""(["'`])(.*?)\1""", re.S)
_KEYWORDS = re.compile(r"^\W*(\w+[\s(]+)((qualified|static|type|module|safe)\s+)*")
_PATH = re.compile(r"[\w.:\\/-]+")


def read_imports(grammar_name: str, statement: str) -> list[Import]:
    """The imports of one statement, in the syntax of a grammar; none when it only looks like one."""
    if grammar_name == "python":
        statement = re.sub(r"#[^\n]*", "", statement)
    found = _READERS.get(grammar_name, _any_language)(" ".join(statement.split()))
    return [each for each in found if each.module]


def _python(statement: str) -> Iterator[Import]:
    statement = re.sub(r"[\\()]", " ", statement)
    words = statement.split(None, 1)
    if len(words) < 2:
        return
    if words[0] == "import":
        for module in words[1].split(","):
            if module.strip():
                yield Import(module.split()[0])
        return
    module, _, names = words[1].partition(" import ")
    yield Import("".join(module.split()), _first_words(names))


def _javascript(statement: str) -> Iterator[Import]:
    """`import`, `export ... from`, and a variable that is a `require`."""
    quoted = list(_QUOTED.finditer(statement))
    if not quoted:
        return
    bindings = statement[: quoted[-1].start()]
    if statement.startswith(("import", "export")):
        bindings = re.sub(r"^(import|export)\s+(type\s+)?|\bfrom\s*$", "", bindings.strip())
        default, _, named = bindings.partition("{")
        names = _first_words(default) + _first_words(re.sub(r"\btype\s", "", named.partition("}")[0]))
    else:
        names = _first_words(bindings.partition("=")[0].partition("{")[2].partition("}")[0].replace(":", " "))
    yield Import(quoted[-1][2], tuple(name for name in names if name not in ("*", "import")))


def _go(statement: str) -> Iterator[Import]:
    for quoted in _QUOTED.finditer(statement):
        yield Import(quoted[2])


def _rust(statement: str) -> Iterator[Import]:
    """Flattens `a::{b::{c, d}, e}`; a name in front of its alias."""
    prefixes, path = [""], ""
    names: dict[str, list[str]] = {}

    def put(path: str) -> None:
        module, _, name = (prefixes[-1] + path).rpartition("::")
        if name == "self":
            module, _, name = module.rpartition("::")
        names.setdefault(module or name, []).extend([name] if module else [])

    for part in re.findall(r"[\w:*]+|[{},]", re.sub(r"^.*?\buse\s|\bas\s+\w+", " ", statement)):
        if part == "{":
            prefixes.append(prefixes[-1] + path)
            path = ""
            continue
        if part not in ("}", ","):
            path = part
            continue
        if path:
            put(path)
        path = ""
        if part == "}" and len(prefixes) > 1:
            prefixes.pop()
    if path:
        put(path)
    for module, found in names.items():
        yield Import(module, tuple(found))


def _dotted(statement: str) -> Iterator[Import]:
    """Java, Kotlin, Swift: the last part of the path is what is taken."""
    path = re.sub(
        r"^\W*(import|using)\s+(static\s+|(class|struct|enum|protocol|func|let|var)\s+)?|\s+as\s+\w+|;", "", statement
    )
    module, _, name = "".join(path.split()).rpartition(".")
    if module or name:
        yield Import(module or name, (name,) if module else ())


def _scala(statement: str) -> Iterator[Import]:
    for path in re.findall(r"[\w.]+(?:\{[^}]*\}|\*)?", statement.partition("import")[2]):
        module, brace, names = path.partition("{")
        if brace:
            yield Import(module.rstrip("."), _first_words(names.rstrip("}").replace("_", "*")))
        else:
            module, _, name = path.rpartition(".")
            yield Import(module or name, (name.replace("_", "*") if name == "_" else name,) if module else ())


def _csharp(statement: str) -> Iterator[Import]:
    path = re.sub(r"^\s*(global\s+)?using\s+(static\s+|unsafe\s+)?|;", "", statement).rpartition("=")[2].strip()
    if path:
        yield Import(path)


def _c(statement: str) -> Iterator[Import]:
    path = re.search(r"[<\"]([^>\"\n]+)[>\"]", statement)
    if path:
        yield Import(path[1])


def _php(statement: str) -> Iterator[Import]:
    if not statement.startswith("use"):
        yield from _any_language(statement)
        return
    text = re.sub(r"^\s*use\s+(function\s+|const\s+)?|;", "", statement)
    module, brace, names = text.partition("{")
    if brace:
        yield Import(module.strip().strip("\\"), _first_words(names.rstrip("} \n")))
        return
    for path in text.split(","):
        module, _, name = (path.split() or [""])[0].lstrip("\\").rpartition("\\")
        if name:
            yield Import(module or name, (name,) if module else ())


def _bash(statement: str) -> Iterator[Import]:
    yield Import(statement.split(None, 1)[1].strip().strip("\"'"))


def _clojure(statement: str) -> Iterator[Import]:
    yield Import(statement.strip("[").split()[0])


def _any_language(statement: str) -> Iterator[Import]:
    """The first string, else the first path behind the keywords."""
    quoted = _QUOTED.search(statement)
    path = quoted[2] if quoted else next(iter(_PATH.findall(_KEYWORDS.sub("", statement))), "").rstrip(".:")
    if path:
        yield Import(path)


def _first_words(names: str) -> tuple[str, ...]:
    """`a, c` of `a as b, c`."""
    return tuple(words[0] for words in map(str.split, names.split(",")) if words)


_READERS: dict[str, Callable[[str], Iterator[Import]]] = {
    "bash": _bash,
    "c": _c,
    "clojure": _clojure,
    "cpp": _c,
    "cuda": _c,
    "csharp": _csharp,
    "go": _go,
    "java": _dotted,
    "javascript": _javascript,
    "kotlin": _dotted,
    "objc": _c,
    "php": _php,
    "python": _python,
    "rust": _rust,
    "scala": _scala,
    "swift": _dotted,
    "tsx": _javascript,
    "typescript": _javascript,
}
