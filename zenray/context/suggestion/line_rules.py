"""Text rules that judge a growing text line by line, and the one that applies several of them in the order in which
they can know."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from zenray.engine.stopping import TextEnd

_LINE_END = re.compile(r"\r\n|\n|\r(?=[^\n])")
"""A carriage return at the end of the text may be half of a line end, so it waits for what follows."""


@dataclass(frozen=True, slots=True)
class Line:
    """The line `text[start:stop]`; `next_start` lies behind its line end, and is None while it has none."""

    start: int
    stop: int
    next_start: int | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The text ends; its first `known_at` characters say so."""

    known_at: int
    end: TextEnd


class LineRule(Protocol):
    """One object follows one text. It sees every line once with its end, in order, and before that, as often as the
    text grows, the line as far as it is known; a line it sees whole must be judged as if it had seen all of its
    beginnings."""

    def judge(self, text: str, line: Line) -> Decision | None:
        """Whether the text ends in or behind `line`, the last or the next one of `text`."""
        ...

    def hold_from(self, text: str, start: int) -> int:
        """Where in `text`, whose last and incomplete line begins at `start`, what may yet be cut begins."""
        ...


class LineByLine:
    """A `TextRule`: of several line rules the one that knows first decides, of those the first in order.

    It remembers how far it has read, which changes no answer: what it knows about the lines read follows from
    them alone, and another text is read from its beginning.
    """

    def __init__(self, make_rules: Callable[[], Sequence[LineRule]]) -> None:
        self._make_rules = make_rules
        self._start_over()

    def find_end(self, text: str, searched: int) -> TextEnd | None:
        if not text.startswith(self._seen):
            self._start_over()
        decision = self._read_on(text)
        if decision is None:
            return None
        self._start_over()
        return decision.end

    def held_back(self, text: str) -> int:
        if text != self._seen and self.find_end(text, 0) is not None:
            return 0
        held_from = min((rule.hold_from(text, self._line_start) for rule in self._rules), default=len(text))
        return len(text) - min(held_from, len(text) - text.endswith("\r"))

    def _start_over(self) -> None:
        self._rules = self._make_rules()
        self._seen = ""
        self._line_start = 0
        """Of the last line of what was seen, the one without an end."""

    def _read_on(self, text: str) -> Decision | None:
        while found := _LINE_END.search(text, self._line_start):
            if decision := self._first(text, Line(self._line_start, found.start(), found.end())):
                return decision
            self._line_start = found.end()
        self._seen = text
        return self._first(text, Line(self._line_start, len(text), None))

    def _first(self, text: str, line: Line) -> Decision | None:
        found = [decision for rule in self._rules if (decision := rule.judge(text, line))]
        return min(found, key=lambda decision: decision.known_at, default=None)
