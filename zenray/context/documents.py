"""Documents and cursors: exact conversion of an editor's cursor to code points, and languages from paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import PurePosixPath

from zenray.errors import InvalidRequest

_LINE_END = re.compile(r"\r\n|\n|\r")


class PositionUnit(Enum):
    """What a cursor counts. The names are those of `zenray.v1.PositionUnit`."""

    UTF8_BYTE = "UTF-8 bytes"
    UTF16_CODE_UNIT = "UTF-16 code units"
    CODE_POINT = "code points"


@dataclass(frozen=True, slots=True)
class OffsetPosition:
    """A place counted from the start of the document."""

    offset: int


@dataclass(frozen=True, slots=True)
class LinePosition:
    """A line and a column, both from zero. A line ends with LF, CR LF or CR; its end is a legal column."""

    line: int
    column: int


Position = OffsetPosition | LinePosition


def cursor_offset(text: str, position: Position, unit: PositionUnit, field: str = "cursor") -> int:
    """The code point offset of `position` in `text`, which must hold no lone surrogate.

    Raises InvalidRequest, naming the part of `field`, for a cursor outside the document or its line, inside
    a UTF-8 character, or between the halves of a surrogate pair. A cursor is never moved to a nearby place.
    """
    if isinstance(position, OffsetPosition):
        return _code_points(text, position.offset, unit, f"{field}.offset", "the document")
    start, end = _line_span(text, position.line, f"{field}.line_column.line")
    where = f"line {position.line}"
    return start + _code_points(text[start:end], position.column, unit, f"{field}.line_column.column", where)


def _line_span(text: str, line: int, field: str) -> tuple[int, int]:
    """Start and end of `line` in code points, without its line end."""
    start = 0
    if line > 0:
        before = next(islice(_LINE_END.finditer(text), min(line - 1, len(text)), None), None)
        if before is None:
            last = sum(1 for _ in _LINE_END.finditer(text))
            raise InvalidRequest.of(field, line, f"0 to {last}, the lines of the document")
        start = before.end()
    if line < 0:
        raise InvalidRequest.of(field, line, "0 or more")
    end = _LINE_END.search(text, start)
    return start, end.start() if end else len(text)


def _code_points(text: str, count: int, unit: PositionUnit, field: str, where: str) -> int:
    """How many code points of `text` its first `count` units are."""
    if unit is PositionUnit.CODE_POINT or text.isascii():
        _check_range(count, len(text), unit, field, where)
        return count
    if unit is PositionUnit.UTF8_BYTE:
        encoded = text.encode("utf-8")
        _check_range(count, len(encoded), unit, field, where)
        if count < len(encoded) and encoded[count] & 0xC0 == 0x80:
            raise InvalidRequest.of(field, count, "a boundary between characters; this is inside one")
        return len(encoded[:count].decode("utf-8"))
    wide = text.encode("utf-16-le")
    _check_range(count, len(wide) // 2, unit, field, where)
    if 2 * count < len(wide) and 0xDC <= wide[2 * count + 1] <= 0xDF:
        raise InvalidRequest.of(field, count, "a boundary between characters; this splits a surrogate pair")
    return len(wide[: 2 * count].decode("utf-16-le"))


def _check_range(count: int, most: int, unit: PositionUnit, field: str, where: str) -> None:
    if not 0 <= count <= most:
        raise InvalidRequest.of(field, count, f"0 to {most}, the {unit.value} of {where}")


def language_of(path: str) -> str:
    """The LSP language id a path suggests; empty when nothing is known about it."""
    name = PurePosixPath(path.replace("\\", "/")).name.lower()
    if name in _LANGUAGE_OF_NAME:
        return _LANGUAGE_OF_NAME[name]
    return _LANGUAGE_OF_SUFFIX.get(name.rpartition(".")[2], "") if "." in name else ""


_LANGUAGE_OF_NAME = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "go.mod": "go.mod",
    "jenkinsfile": "groovy",
    "rakefile": "ruby",
    "gemfile": "ruby",
    ".bashrc": "shellscript",
    ".profile": "shellscript",
}

_SUFFIXES_OF_LANGUAGE = {
    "bat": "bat cmd",
    "c": "c h",
    "clojure": "clj cljs cljc edn",
    "cmake": "cmake",
    "cpp": "cc cpp cxx c++ hh hpp hxx ipp",
    "csharp": "cs csx",
    "css": "css",
    "cuda-cpp": "cu cuh",
    "dart": "dart",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "fsharp": "fs fsi fsx",
    "go": "go",
    "groovy": "groovy gradle",
    "haskell": "hs lhs",
    "html": "html htm xhtml",
    "ini": "ini cfg properties",
    "java": "java",
    "javascript": "js cjs mjs",
    "javascriptreact": "jsx",
    "json": "json",
    "jsonc": "jsonc",
    "julia": "jl",
    "kotlin": "kt kts",
    "latex": "tex sty cls",
    "less": "less",
    "lua": "lua",
    "makefile": "mk mak",
    "markdown": "md markdown",
    "nix": "nix",
    "objective-c": "m",
    "objective-cpp": "mm",
    "ocaml": "ml mli",
    "pascal": "pas pp",
    "perl": "pl pm t",
    "php": "php phtml",
    "powershell": "ps1 psm1 psd1",
    "proto": "proto",
    "python": "py pyi pyw pyx",
    "r": "r",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "scala": "scala sc sbt",
    "scss": "scss",
    "shellscript": "sh bash zsh ksh",
    "sql": "sql",
    "starlark": "bzl star",
    "svelte": "svelte",
    "swift": "swift",
    "systemverilog": "sv svh",
    "terraform": "tf tfvars",
    "toml": "toml",
    "typescript": "ts cts mts",
    "typescriptreact": "tsx",
    "verilog": "v vh",
    "vhdl": "vhd vhdl",
    "vue": "vue",
    "xml": "xml xsd xsl xslt svg",
    "yaml": "yaml yml",
    "zig": "zig",
}

_LANGUAGE_OF_SUFFIX = {suffix: name for name, suffixes in _SUFFIXES_OF_LANGUAGE.items() for suffix in suffixes.split()}
