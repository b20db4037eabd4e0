"""What the index keeps of one file: its definitions as they will stand in prompts, and what it offers to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zenray.context.languages.registry import comment
from zenray.context.privacy.secrets import redact
from zenray.context.symbols import Symbol, extract

EXTRACTION_VERSION = 3
"""Counts up when the same text would give another entry: indexes made before are made again."""

_MAX_WHOLE_LINES, _MAX_WHOLE_CHARACTERS = 40, 2400
"""A longer definition is told by its signature, its documentation and the signatures of its members."""
_MAX_DOCUMENTATION_LINES = 6
_MAX_MEMBERS = 30
_MAX_CONSTANT_CHARACTERS = 120
_MAX_OUTLINE_LINES, _MAX_OUTLINE_CHARACTERS = 80, 4000
_MAX_SYMBOLS = 4000
"""Of one file; generated tables have more."""

_MEMBER_KINDS = frozenset(("method", "function", "field", "constant"))
_INDENT = "    "


@dataclass(frozen=True, slots=True)
class Definition:
    """One definition. `text` is what a prompt shows of it; `is_member` says that it stands in a class or the like."""

    name: str
    is_member: bool
    start_line: int
    text: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """`outline` holds the signatures of what stands at the top of the file."""

    language: str
    definitions: tuple[Definition, ...]
    outline: str


def make_entry(text: str, language: str) -> FileEntry:
    """The entry of a file, secrets redacted."""
    text = redact(text.encode("utf-8", "replace").decode())  # lone surrogates have no place in a database
    symbols = extract(text, language).symbols[:_MAX_SYMBOLS]
    members = _members(symbols)
    lines = text.split("\n")
    definitions = tuple(
        Definition(
            each.name, bool(each.container), each.start_line, _shown(each, members.get(place, ()), lines, language)
        )
        for place, each in enumerate(symbols)
    )
    return FileEntry(language, definitions, _outline(symbols, members))


def _members(symbols: Sequence[Symbol]) -> dict[int, list[Symbol]]:
    """The members of each symbol, by its place: those inside its lines that name it as their container."""
    found: dict[int, list[Symbol]] = {}
    open_places: list[int] = []
    for place, symbol in sorted(enumerate(symbols), key=lambda each: (each[1].start_line, -each[1].end_line)):
        while open_places and symbols[open_places[-1]].end_line <= symbol.start_line:
            open_places.pop()
        holder = next((at for at in reversed(open_places) if symbols[at].name == symbol.container), None)
        if holder is not None and symbol.kind in _MEMBER_KINDS:
            found.setdefault(holder, []).append(symbol)
        open_places.append(place)
    return found


def _shown(symbol: Symbol, members: Sequence[Symbol], lines: Sequence[str], language: str) -> str:
    if symbol.end_line - symbol.start_line <= _MAX_WHOLE_LINES:
        whole = "\n".join(lines[symbol.start_line : symbol.end_line])
        if len(whole) <= _MAX_WHOLE_CHARACTERS:
            return f"{whole}\n"
    told = [comment(language, line) for line in symbol.documentation.splitlines()[:_MAX_DOCUMENTATION_LINES]]
    told.append(_head(symbol))
    told += [_indented(_head(member)) for member in members[:_MAX_MEMBERS]]
    return "\n".join(told)[:_MAX_OUTLINE_CHARACTERS] + "\n"


def _outline(symbols: Sequence[Symbol], members: dict[int, list[Symbol]]) -> str:
    told: list[str] = []
    num_lines = num_characters = 0
    for place, symbol in enumerate(symbols):
        if symbol.container or symbol.name.startswith("_"):
            continue
        inner = [_indented(_head(member)) for member in members.get(place, ())[:_MAX_MEMBERS]]
        for line in (_head(symbol), *inner):
            num_lines += line.count("\n") + 1
            num_characters += len(line) + 1
            if num_lines > _MAX_OUTLINE_LINES or num_characters > _MAX_OUTLINE_CHARACTERS:
                return "\n".join(told) + "\n" * bool(told)
            told.append(line)
    return "\n".join(told) + "\n" * bool(told)


def _head(symbol: Symbol) -> str:
    """Its signature; of a constant the first line, because its value may be a table."""
    if symbol.kind in ("constant", "field"):
        return symbol.signature.partition("\n")[0][:_MAX_CONSTANT_CHARACTERS]
    return symbol.signature


def _indented(signature: str) -> str:
    return "\n".join(_INDENT + line for line in signature.split("\n"))
