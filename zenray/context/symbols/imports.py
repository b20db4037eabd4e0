"""Imports as written, read from the text of one import."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from zenray.context.symbols.model import Import

_QUOTED = re.compile(r"""(["'`])(.*?)\1""", re.S)
_PATH = re.compile(r"[\w.:\\/-]+")


def read_imports(grammar_name: str, statement: str) -> list[Import]:
    """The imports of one statement, in the syntax of a grammar; none when it only looks like one."""
    return list(_READERS.get(grammar_name, _any_language)(statement))


def _python(statement: str) -> Iterator[Import]:
    statement = re.sub(r"#[^\n]*|[\\()]", " ", statement)
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
    quoted = list(_QUOTED.finditer(statement))
    if not quoted:
        return
    is_import = statement.startswith(("import", "export"))
    if not is_import and not re.search(r"\brequire\s*\($", statement[: quoted[-1].start()].rstrip()):
        return
    bindings = statement[: quoted[-1].start()]
    if is_import:
        bindings = re.sub(r"^(import|export)\s+(type\s+)?|\bfrom\s*$", "", bindings.strip())
    else:
        bindings = bindings.partition("=")[0]
    default, _, rest = bindings.partition("{")
    names = [name for name in _first_words(default) if name != "import"] if is_import else []
    names += _first_words(re.sub(r"\btype\s", "", rest.partition("}")[0]).replace(":", " "))
    yield Import(quoted[-1][2], tuple(name for name in names if name != "*"))


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
    text = re.sub(r"^\s*use\s+(function\s+|const\s+)?|;", "", statement)
    module, brace, names = text.partition("{")
    if brace:
        yield Import(module.strip().strip("\\"), _first_words(names.rstrip("} \n")))
        return
    for path in text.split(","):
        module, _, name = (path.split() or [""])[0].lstrip("\\").rpartition("\\")
        if name:
            yield Import(module or name, (name,) if module else ())


def _call(*words: str) -> Callable[[str], Iterator[Import]]:
    """`require "x"` and the like: calls of these functions with one string."""
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, words))})\b[\s(]*(?:([\"'])(.*?)\1|([^\s\"']+))")

    def read(statement: str) -> Iterator[Import]:
        match = pattern.match(statement)
        if match:
            yield Import(match[2] or match[3])

    return read


def _bash(statement: str) -> Iterator[Import]:
    words = statement.split(None, 1)
    if len(words) == 2 and words[0] in (".", "source"):
        yield Import(words[1].strip().strip("\"'"))


def _any_language(statement: str) -> Iterator[Import]:
    """The first string, else the first path behind the keyword."""
    quoted = _QUOTED.search(statement)
    path = quoted[2] if quoted else next(iter(_PATH.findall(statement)[1:2]), "")
    if path:
        yield Import(path)


def _first_words(names: str) -> tuple[str, ...]:
    """`a, c` of `a as b, c`."""
    return tuple(words[0] for words in map(str.split, names.split(",")) if words)


_READERS: dict[str, Callable[[str], Iterator[Import]]] = {
    "bash": _bash,
    "c": _c,
    "cpp": _c,
    "cuda": _c,
    "csharp": _csharp,
    "go": _go,
    "java": _dotted,
    "javascript": _javascript,
    "kotlin": _dotted,
    "lua": _call("require"),
    "objc": _c,
    "php": _php,
    "python": _python,
    "ruby": _call("require_relative", "require", "load"),
    "rust": _rust,
    "scala": _scala,
    "swift": _dotted,
    "tsx": _javascript,
    "typescript": _javascript,
}
