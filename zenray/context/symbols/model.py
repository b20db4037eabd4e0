"""What a file defines and imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SymbolKind = Literal["function", "method", "class", "type", "constant", "field", "module"]


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition. Lines count from zero and end with LF; `end_line` is behind its last."""

    name: str
    kind: SymbolKind
    start_line: int
    end_line: int
    signature: str
    """What stands before its body, decorators included, the indentation of its first line taken off; cut when long."""
    documentation: str
    """Its docstring, or the comment above, without the marks of comments; cut when long."""
    container: str
    """The name of the class, type or module around it; empty at the top."""


@dataclass(frozen=True, slots=True)
class Import:
    """An import as written: `from .shapes import Circle as C` is module `.shapes`, names `Circle`."""

    module: str
    names: tuple[str, ...] = ()
    """What is taken from the module; empty for the module itself, `*` for everything."""


@dataclass(frozen=True, slots=True)
class FileSymbols:
    """Both in the order of the file."""

    symbols: tuple[Symbol, ...] = ()
    imports: tuple[Import, ...] = ()


NO_SYMBOLS = FileSymbols()
