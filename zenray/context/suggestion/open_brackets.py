"""The brackets around the cursor: which are open there, and which of them the text behind it closes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, takewhile

from zenray.context.suggestion.lexing import CLOSER_OF, Bracket, Brackets, brackets, unmatched
from zenray.context.suggestion.seams import column, indentation

_MOST_OPEN = 128
"""Brackets looked at, the innermost; what is nested deeper is no code, and each is compared with each."""


@dataclass(frozen=True, slots=True)
class OpenBracket:
    """A bracket that is open at the cursor."""

    closer: str
    is_on_cursor_line: bool
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
    block just opened does not take the closer of the one around it. Of other closers in a row, each belongs to one of
    the innermost openers in a row, the outer ones first, or to none: what is to be written opens it.
    """
    openers = unmatched(read.found)[1][-_MOST_OPEN:]
    in_string = read.resume < len(before)
    cursor_line = before[before.rfind("\n") + 1 :]
    closers = _closers(language, after, after.find("\n") + 1 if in_string else 0, cursor_line)
    closed: set[int] = set()
    if [CLOSER_OF[opener.character] for opener in reversed(openers)] == [closer.character for closer in closers]:
        closed = set(range(len(openers)))
    else:
        closed = _closed(before, openers, closers)
    last_line = before.rfind("\n") + 1
    return tuple(
        OpenBracket(
            closer=CLOSER_OF[opener.character],
            is_on_cursor_line=opener.position >= last_line,
            is_closed=at in closed,
        )
        for at, opener in enumerate(openers)
    )


def _closed(before: str, openers: list[Bracket], closers: list[_Closer]) -> set[int]:
    """Which openers have a closer, where some have none."""
    closed: set[int] = set()
    inner = len(openers)
    for closer, row in groupby(closers):
        alike = [at for at in range(inner) if CLOSER_OF[openers[at].character] == closer.character]
        if closer.column is None:
            innermost = list(takewhile(lambda at: at in alike, range(inner - 1, -1, -1)))  # noqa: B023  # used at once
            closed.update(innermost[::-1][: len(list(row))])
            inner -= len(innermost)
            continue
        for _ in row:
            alike = [at for at in alike if at < inner]
            aligned = [at for at in alike if column_of_line(before, openers[at].position) == closer.column]
            if alike:
                inner = (aligned or alike)[-1]
                closed.add(inner)
    return closed


def _closers(language: str, after: str, start: int, cursor_line: str) -> list[_Closer]:
    """The closers in `after` of brackets opened before it, in order; it goes on with `cursor_line`."""
    found = []
    for bracket in unmatched(brackets(language, after, start).found)[0][:_MOST_OPEN]:
        line_start = after.rfind("\n", 0, bracket.position) + 1
        space = (cursor_line if line_start == 0 else "") + after[line_start : bracket.position]
        found.append(_Closer(bracket.character, None if space.strip() else column(space)))
    return found


def column_of_line(text: str, position: int) -> int:
    """The indentation of the line of `position`."""
    line_start = text.rfind("\n", 0, position) + 1
    return column(indentation(text[line_start : position + 1]))
