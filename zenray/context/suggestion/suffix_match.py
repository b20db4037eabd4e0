"""The text has reached what stands behind the cursor.

A model that fills a gap often goes on with the suffix it was given. What must match, besides white space at line
ends and blank lines:

- the rest of the cursor's line, when there is one, as the end of a generated line whose brackets then close what they
  should: in `foo(|)` the line `bar(b)` does not end in the suffix's bracket, the line `bar(b))` does;
- else as many whole lines as it takes to be sure: those lines, in a row, stand nowhere else near the cursor, and
  have at least `_MIN_WORD_CHARACTERS` letters and digits; or they end the block as the suffix does. `}` or `return x`
  alone prove nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from zenray.context.suggestion.lexing import CLOSER_OF, Bracket, brackets, unmatched
from zenray.context.suggestion.line_rules import Decision, Line
from zenray.context.suggestion.seams import column, cut_before, end_of_content, indentation
from zenray.engine.request import FinishReason
from zenray.engine.stopping import TextEnd

_MAX_LINES = 6
_MIN_WORD_CHARACTERS = 8
_MAX_REMAINDER = 256
_SEARCHED_CHARACTERS = 8192
"""How far around the cursor a line is looked for."""

_WORD_CHARACTER = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class _Run:
    """Generated lines equal to the first `length` expected ones; the first begins, behind its indentation, at
    `content`."""

    content: int
    length: int


class SuffixMatch:
    """The `LineRule`; `before` and `after` are the text around the cursor.

    With `ends_by_indentation`, a line indented less than the cursor's block ends the text in any case, so that the
    first character of such a line is all that can be compared.
    """

    def __init__(self, language: str, before: str, after: str, *, ends_by_indentation: bool = False) -> None:
        self._language, self._after = language, after[:_SEARCHED_CHARACTERS]
        cursor_line = before[before.rfind("\n") + 1 :]
        remainder, *following = self._after.splitlines() or [""]
        self._remainder = remainder.strip() if cursor_line.strip() and len(remainder) <= _MAX_REMAINDER else ""
        """What must end a line; empty where only whole lines count."""
        if not cursor_line.strip():
            following = [cursor_line + remainder, *following]
        self._closed = _brackets_closed_by(self._remainder, language, before[-_SEARCHED_CHARACTERS:])
        """Closers that the rest of the cursor's line has for what is open before the cursor."""
        self._expected = _sure_lines(before[-_SEARCHED_CHARACTERS:], following)
        self._ends_by_indentation = ends_by_indentation and len(self._expected) > 1 and _is_left(self._expected)
        self._runs: tuple[_Run, ...] = ()
        self._cursor_line = cursor_line

    def judge(self, text: str, line: Line) -> Decision | None:
        content = self._content(text, line.start, line.stop)
        if content is not None and (run := self._left_block(text, line, content)):
            return Decision(content + 1, TextEnd(self._cut(text, run), FinishReason.SUFFIX_MATCH))
        if line.next_start is None:
            return None
        if self._remainder and (at := self._remainder_at(text, line)) is not None:
            return Decision(line.next_start, TextEnd(at, FinishReason.SUFFIX_MATCH))
        if content is None:
            return None
        self._runs = self._longer_runs(content, self._shown(text, line.start, line.stop))
        if self._runs and self._runs[0].length == len(self._expected):
            return Decision(line.next_start, TextEnd(self._cut(text, self._runs[0]), FinishReason.SUFFIX_MATCH))
        return None

    def _left_block(self, text: str, line: Line, content: int) -> _Run | None:
        """The run of all expected lines of the cursor's block, if `line` begins as the one behind it does."""
        if not self._ends_by_indentation:
            return None
        last = self._expected[-1]
        begun = self._shown(text, line.start, content + 1)
        complete = (run for run in self._runs if run.length == len(self._expected) - 1)
        return next(complete, None) if begun == last[: len(indentation(last)) + 1] else None

    def hold_from(self, text: str, start: int) -> int:
        content = self._content(text, start, len(text))
        if content is None:
            first = min((self._cut(text, run) for run in self._runs), default=len(text))
            return min(first, end_of_content(text))
        shown = self._shown(text, start, len(text))
        going_on = [run for run in self._runs if self._expected[run.length].startswith(shown)]
        if self._expected and self._expected[0].startswith(shown):
            going_on.append(_Run(content, 0))
        held = [self._cut(text, run) for run in going_on]
        held.append(end_of_content(text))
        if self._remainder:
            held.append(self._remainder_begins(text, start))
        return min(held)

    def _longer_runs(self, content: int, shown: str) -> tuple[_Run, ...]:
        """The runs that `shown` continues, oldest first, and the one it begins."""
        runs = [_Run(run.content, run.length + 1) for run in self._runs if self._expected[run.length] == shown]
        if self._expected and self._expected[0] == shown:
            runs.append(_Run(content, 1))
        return tuple(runs)

    def _shown(self, text: str, start: int, stop: int) -> str:
        """The line as it stands in the document."""
        line = text[start:stop].rstrip()
        return self._cursor_line + line if start == 0 else line

    def _content(self, text: str, start: int, stop: int) -> int | None:
        """Where a line begins behind its indentation; None for a blank one."""
        line = text[start:stop]
        return start + len(line) - len(line.lstrip()) if line.strip() else None

    def _cut(self, text: str, run: _Run) -> int:
        return cut_before(text, run.content, self._after)

    def _remainder_at(self, text: str, line: Line) -> int | None:
        """Where the rest of the cursor's line stands at the end of `line`, if its brackets belong to the suffix."""
        stop = end_of_content(text, line.stop)
        at = stop - len(self._remainder)
        if at < line.start or not text.startswith(self._remainder, at):
            return None
        closers, openers = unmatched(brackets(self._language, text[:stop]).found)
        if text[at - 1 : at] == self._remainder[0] and self._remainder[0] in "\"'`":
            return None  # Part of a longer quote, such as three.
        left_open = unmatched(brackets(self._language, self._remainder).found)[1]
        if _characters(openers) != _characters(left_open) or not _characters(closers).endswith(self._closed):
            return None
        return cut_before(text, at, self._after)

    def _remainder_begins(self, text: str, start: int) -> int:
        """Where a beginning of the rest of the cursor's line stands at the end of the text."""
        stop = end_of_content(text)
        first = max(start, stop - len(self._remainder))
        at = next((at for at in range(first, stop) if self._remainder.startswith(text[at:stop])), stop)
        return cut_before(text, at, self._after) if at < stop else stop


def _sure_lines(before: str, following: list[str]) -> tuple[str, ...]:
    """As many of the first lines behind the cursor as stand nowhere else near it."""
    lines = [line.rstrip() for line in following if line.strip()]
    others = [line.rstrip() for line in before.splitlines()[:-1] if line.strip()] + lines[1:]
    for count in range(1, min(_MAX_LINES, len(lines)) + 1):
        run = lines[:count]
        if _is_left(run):
            return tuple(run)
        if sum(len(_WORD_CHARACTER.findall(line)) for line in run) < _MIN_WORD_CHARACTERS:
            continue
        if not any(others[at : at + count] == run for at in range(len(others))):
            return tuple(run)
    return tuple(lines[:_MAX_LINES])


def _is_left(lines: Sequence[str]) -> bool:
    """Whether the last of `lines` is indented less than the first."""
    return column(indentation(lines[-1])) < column(indentation(lines[0]))


def _brackets_closed_by(remainder: str, language: str, before: str) -> str:
    if not remainder:
        return ""
    open_here = [CLOSER_OF[opener.character] for opener in unmatched(brackets(language, before).found)[1]]
    closers = unmatched(brackets(language, remainder).found)[0]
    pairs = zip(closers, reversed(open_here), strict=False)
    return _characters([closer for closer, _ in takewhile(lambda pair: pair[0].character == pair[1], pairs)])


def _characters(found: list[Bracket]) -> str:
    return "".join(bracket.character for bracket in found)
