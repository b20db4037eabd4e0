"""The text goes round in circles: greedy decoding of a small model falls into loops it never leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from zenray.context.suggestion.line_rules import Decision, Line
from zenray.engine.request import FinishReason
from zenray.engine.stopping import TextEnd

_MAX_PERIOD_LINES = 8
_ROUNDS = 3
_SHORT_ROUNDS = 5
_SHORT_WORD_CHARACTERS = 12
"""Files repeat `#endif` or `0, 0,` four times now and then."""
_CHECKED_EVERY = 64
_RUNAWAY_CHARACTERS = 256
_MAX_PERIOD_CHARACTERS = 64
_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class _Read:
    """A line that is not blank, and where it ends."""

    shown: str
    stop: int


@dataclass(frozen=True, slots=True)
class _Threat:
    """If the next line is `expected`, one repetition too many goes on, of what was said before `stop`."""

    expected: str
    stop: int
    completes: bool


class Repetition:
    """The `LineRule`: the same lines, up to eight, three times in a row (five if they are short), or one line that
    repeats a short piece over `_RUNAWAY_CHARACTERS`. All rounds but the last are kept, so that they need not wait.

    Lines that repeat around the cursor too are a table, and may go on.
    """

    def __init__(self, before: str, after: str) -> None:
        around = [line.rstrip() for line in (*before.splitlines()[-3:], *after.splitlines()[:3]) if line.strip()]
        self._table = {line for line in around if around.count(line) > 1}
        self._read: list[_Read] = []
        self._threats: tuple[_Threat, ...] = ()
        self._next_check = _RUNAWAY_CHARACTERS

    def judge(self, text: str, line: Line) -> Decision | None:
        runaway = self._runaway(text, line)
        if runaway is not None or line.next_start is None:
            return runaway
        self._next_check = _RUNAWAY_CHARACTERS
        shown = text[line.start : line.stop].rstrip()
        if not shown:
            return None
        ends = [threat.stop for threat in self._threats if threat.completes and threat.expected == shown]
        if ends:
            return Decision(line.next_start, TextEnd(min(ends), FinishReason.REPETITION))
        self._read = [*self._read[1 - _SHORT_ROUNDS * _MAX_PERIOD_LINES :], _Read(shown, line.stop)]
        self._threats = tuple(self._find_threats())
        return None

    def hold_from(self, text: str, start: int) -> int:
        if not self._threats:
            return len(text)
        shown = text[start:].rstrip()
        return min((threat.stop for threat in self._threats if threat.expected.startswith(shown)), default=len(text))

    def _find_threats(self) -> Iterator[_Threat]:
        lines = [read.shown for read in self._read]
        for period in range(1, _MAX_PERIOD_LINES + 1):
            if len(lines) < 2 * period or lines[-1] != lines[-1 - period]:
                continue
            for begun in range(period):
                block = lines[len(lines) - period - begun : len(lines) - begun]
                num_kept = _rounds(block) - 1
                first = len(lines) - begun - num_kept * period
                if first >= 0 and lines[first:] == block * num_kept + block[:begun] and self._is_loop(block):
                    stop = self._read[len(lines) - begun - 1].stop
                    yield _Threat(block[begun], stop, begun == period - 1)

    def _is_loop(self, block: list[str]) -> bool:
        return any(_WORD.search(line) for line in block) and not self._table.intersection(block)

    def _runaway(self, text: str, line: Line) -> Decision | None:
        while line.start + self._next_check <= line.stop:
            stop = line.start + self._next_check
            self._next_check += _CHECKED_EVERY
            if _repeats(text[stop - _RUNAWAY_CHARACTERS : stop]):
                return Decision(stop, TextEnd(stop, FinishReason.REPETITION))
        return None


def _rounds(block: list[str]) -> int:
    """How often in a row is too often."""
    words = sum(len(_WORD.findall(line)) for line in block)
    return _ROUNDS if words >= _SHORT_WORD_CHARACTERS else _SHORT_ROUNDS


def _repeats(tail: str) -> bool:
    """Whether all of `tail` is one short piece with a letter or digit in it, over and over."""
    mark = tail[-_MAX_PERIOD_CHARACTERS // 2 :]
    earlier = tail.rfind(mark, 0, -1)
    period = len(tail) - len(mark) - earlier
    if earlier < 0 or period > _MAX_PERIOD_CHARACTERS:
        return False
    return tail[period:] == tail[:-period] and bool(_WORD.search(tail[:period]))


def first_occurrence(text: str) -> str:
    """`text`, which ends in a loop, without all but the first round of it."""
    tail = text[-_RUNAWAY_CHARACTERS:]
    if len(tail) == _RUNAWAY_CHARACTERS and _repeats(tail):
        period = next(size for size in range(1, len(tail)) if tail[size:] == tail[:-size])
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        return text[: start + period]
    lines = text.rstrip().splitlines(keepends=True)
    shown = [line.strip() for line in lines]
    for period in range(1, min(_MAX_PERIOD_LINES, len(lines) // 2) + 1):
        if shown[-period:] == shown[-2 * period : -period]:
            while shown[-period:] == shown[-2 * period : -period]:
                del shown[-period:]
            return "".join(lines[: len(shown)]).rstrip()
    return text
