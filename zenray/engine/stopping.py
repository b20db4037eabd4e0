"""When a text ends: pure rules over the text so far."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from zenray.engine.request import FinishReason, TextStops

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TextEnd:
    """The text ends before character `at`, because of `reason`."""

    at: int
    reason: FinishReason


class TextRule(Protocol):
    """Where one text ends because of what it says. Called on the engine's thread for every token: it answers in
    microseconds where no line ends. Its answers depend on the text alone, never on how it was cut into tokens."""

    def find_end(self, text: str, searched: int) -> TextEnd | None:
        """The end of the text so far, the first `searched` characters of which held none before."""
        ...

    def held_back(self, text: str) -> int:
        """How many trailing characters may yet prove to lie behind an end, and must not be shown."""
        ...


MakeTextRule = Callable[[TextStops], TextRule]


class UnfailingRule:
    """A `TextRule` that says nothing any more once what it asks has raised: no text may end the engine, nor those of
    the replicas it would be sent to next."""

    def __init__(self, make: MakeTextRule, stops: TextStops) -> None:
        self._rule: TextRule | None = None
        try:
            self._rule = make(stops)
        except Exception as error:
            self._give_up(error)

    def find_end(self, text: str, searched: int) -> TextEnd | None:
        try:
            return None if self._rule is None else self._rule.find_end(text, searched)
        except Exception as error:
            self._give_up(error)
            return None

    def held_back(self, text: str) -> int:
        try:
            return 0 if self._rule is None else self._rule.held_back(text)
        except Exception as error:
            self._give_up(error)
            return 0

    def _give_up(self, error: Exception) -> None:
        """Logs where it was: what an error says may hold somebody's source."""
        self._rule = None
        place = traceback.extract_tb(error.__traceback__)[-1]
        _logger.error("a text rule raised %s at %s:%d", type(error).__name__, place.filename, place.lineno)


def find_stop(text: str, stops: Sequence[str], searched: int) -> int | None:
    """Where the earliest stop string begins, or None.

    The first `searched` characters were already known to contain none, so only matches that end after
    them are looked for.
    """
    found = [at for stop in stops if (at := text.find(stop, max(0, searched - len(stop) + 1))) >= 0]
    return min(found, default=None)


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many trailing characters may be the beginning of a stop string and must wait."""
    return max((_overlap(text, stop) for stop in stops), default=0)


def _overlap(text: str, stop: str) -> int:
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def find_line_limit(text: str, max_lines: int) -> int | None:
    """Where the newline after the last allowed line stands, or None while the text is within its limit.

    A newline at the very start opens the first line instead of closing an empty one: a completion at
    the end of a line begins with one. `max_lines` 0 is no limit.
    """
    if max_lines == 0:
        return None
    at = 0
    for _ in range(max_lines):
        at = text.find("\n", at + 1)
        if at < 0:
            return None
    return at
