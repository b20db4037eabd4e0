"""The brackets around the cursor: which are open there, and which of them the text behind it closes."""

from __future__ import annotations

from dataclasses import dataclass

from zenray.context.suggestion.lexing import CLOSER_OF, Brackets, brackets, unmatched
from zenray.context.suggestion.seams import column, end_of_content, indentation


@dataclass(frozen=True, slots=True)
class OpenBracket:
    """A bracket that is open at the cursor."""

    closer: str
    is_block: bool
    """It stands on an earlier line or right before the cursor: what is between it and its closer is the scope."""
    is_closed: bool
    """The text behind the cursor has its closer."""


@dataclass(frozen=True, slots=True)
class _Closer:
    character: str
    column: int | None
    """Where it stands, if it is the first character of its line."""


def open_at_cursor(language: str, before: str, after: str, read: Brackets) -> tuple[OpenBracket, ...]:
    """The brackets open at the cursor, and which of them `after` closes.

    A closer at the start of a line belongs to the nearest opener of its kind whose line is indented alike, so that a
    block just opened does not take the closer of the one around it. Another closer belongs to the innermost opener,
    or to none: what is to be written opens it.
    """
    openers = unmatched(read.found)[1]
    in_string = read.resume < len(before)
    closers = _closers(language, after, after.find("\n") + 1 if in_string else 0)
    closed: set[int] = set()
    if [CLOSER_OF[opener.character] for opener in reversed(openers)] == [closer.character for closer in closers]:
        closed = set(range(len(openers)))
    else:
        inner = len(openers)
        for closer in closers:
            alike = [at for at in range(inner) if CLOSER_OF[openers[at].character] == closer.character]
            if closer.column is None:
                alike = [at for at in alike if at == inner - 1]
            aligned = [at for at in alike if closer.column in (None, _column_of_line(before, openers[at].position))]
            if alike:
                inner = (aligned or alike)[-1]
                closed.add(inner)
    last_line = before.rfind("\n") + 1
    cursor = end_of_content(before)
    return tuple(
        OpenBracket(
            closer=CLOSER_OF[opener.character],
            is_block=opener.position < last_line or opener.position == cursor - 1,
            is_closed=at in closed,
        )
        for at, opener in enumerate(openers)
    )


def _closers(language: str, after: str, start: int) -> list[_Closer]:
    """The closers in `after` of brackets opened before it, in order."""
    found = []
    for bracket in unmatched(brackets(language, after, start).found)[0]:
        line_start = after.rfind("\n", 0, bracket.position) + 1
        space = after[line_start : bracket.position]
        is_first = line_start > 0 and not space.strip()
        found.append(_Closer(bracket.character, column(space) if is_first else None))
    return found


def _column_of_line(text: str, position: int) -> int:
    """The indentation of the line of `position`."""
    line_start = text.rfind("\n", 0, position) + 1
    return column(indentation(text[line_start : position + 1]))
