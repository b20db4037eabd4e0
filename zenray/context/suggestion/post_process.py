"""From raw text to the suggestion an editor shows."""

from __future__ import annotations

from collections.abc import Iterator

from zenray.context.languages.registry import language as language_named
from zenray.context.privacy.secrets import secrets_in
from zenray.context.suggestion.balance import leaves_open, with_own_closers, without_surplus_closers
from zenray.context.suggestion.block_left import without_lines_outside
from zenray.context.suggestion.echoes import (
    leaves_before_the_same,
    repeats_lines_before,
    repeats_lines_behind,
    without_cursor_line,
)
from zenray.context.suggestion.indenting import ended_like, indented_like, not_indented_twice
from zenray.context.suggestion.line_rules import LineByLine
from zenray.context.suggestion.model import Suggestion, SuggestionFilter
from zenray.context.suggestion.repetition import first_occurrence
from zenray.context.suggestion.suffix_match import SuffixMatch
from zenray.context.suggestion.syntax import SyntaxCheck
from zenray.engine.request import FinishReason

_LOOKED_AT = 16384
_MAX_DROPPED_BRACKETS = _MAX_DROPPED_LINES = 6
_MAX_OVERLAP = 16
_MAX_ROUNDS = 8
_CUT_OFF = (FinishReason.LENGTH, FinishReason.DEADLINE)
_FINISHED = (FinishReason.EOS, FinishReason.SCOPE_END)


def post_process(
    text: str, *, before: str, after: str, language: str, finish_reason: FinishReason, max_lines: int = 0
) -> Suggestion:
    """What to show of `text`, which the model wrote at the cursor between `before` and `after`.

    `language` is an LSP language id or empty; `max_lines` the limit of lines the request had, so that a text that ended
    with a whole line is known from one that was cut off. A text with nothing wrong is left as it is, and so is what
    this function returns.
    """
    known = language_named(language)
    making = _Making(before, after, known.id if known else language)
    shown = making.once(text, finish_reason, max_lines)
    reason = FinishReason.EOS if finish_reason in _FINISHED else FinishReason.STOP
    for _ in range(_MAX_ROUNDS):
        again = making.once(shown.text, reason, 0)
        if shown.filter or again == Suggestion(shown.text):
            break
        shown = Suggestion(again.text, again.filter, tuple(dict.fromkeys((*shown.changes, *again.changes))))
    return shown if shown.filter or shown.text != text else Suggestion(text)


class _Making:
    """Suggestions for one place; `_changes` says in words what was done to the one in hand."""

    def __init__(self, before: str, after: str, language: str) -> None:
        self._check = SyntaxCheck(language, before, after)
        self._before, self._after, self._language = before[-_LOOKED_AT:], after[:_LOOKED_AT], language
        self._changes: list[str] = []

    def once(self, raw: str, finish_reason: FinishReason, max_lines: int) -> Suggestion:
        """The suggestion of `raw`; one change may make room for another."""
        self._changes = []
        if reason := self._refused(raw):
            return Suggestion("", reason)
        text = self._shaped(raw, finish_reason, max_lines)
        if not text.strip() and self._changes[-1:] == [_OVERLAP]:
            return Suggestion("", SuggestionFilter.SUFFIX_ECHO, tuple(self._changes))
        if text.strip():
            text = self._parsing_best(text, raw, finish_reason)
        reason = self._refused(text)
        return Suggestion("" if reason else text, reason, tuple(self._changes))

    def _refused(self, text: str) -> SuggestionFilter | None:
        """Why `text` is not worth showing."""
        if not text.strip():
            return SuggestionFilter.EMPTY
        if self._holds_secret(text):
            return SuggestionFilter.SECRET
        if repeats_lines_before(text, self._before):
            return SuggestionFilter.PREFIX_ECHO
        if repeats_lines_behind(text, self._after) or leaves_before_the_same(text, self._before, self._after):
            return SuggestionFilter.SUFFIX_ECHO
        return None

    def _shaped(self, text: str, finish_reason: FinishReason, max_lines: int) -> str:
        if finish_reason is FinishReason.REPETITION:
            text = self._changed(text, first_occurrence(text), "repetition removed")
        if finish_reason in _CUT_OFF and "\n" in text.strip() and text.count("\n", 1) + 1 != max_lines:
            text = self._changed(text, text[: text.rstrip().rfind("\n")].rstrip(), "incomplete last line dropped")
        text = self._changed(text, without_cursor_line(text, self._before), "beginning of the line removed")
        text = self._changed(text, not_indented_twice(text, self._before, self._after), "doubled indentation removed")
        text = self._changed(text, indented_like(text, self._before, self._after), "indentation as in the document")
        text = self._changed(text, ended_like(text, self._before, self._after), "line ends as in the document")
        inside = without_lines_outside(text, self._before, self._after, self._language)
        text = self._changed(text, inside if inside.strip() else text, "lines outside the block dropped")
        text = self._changed(text, self._without_overlap(text), _OVERLAP)
        return self._changed(text, self._without_trailing_space(text), "trailing space removed")

    def _changed(self, old: str, new: str, change: str) -> str:
        if new != old:
            self._changes.append(change)
        return new

    def _without_overlap(self, text: str) -> str:
        if not self._after.strip():
            return text
        rule = LineByLine(lambda: [SuffixMatch(self._language, self._before, self._after)])
        end = rule.find_end(text + "\n", 0)
        return text[: end.at] if end and end.at < len(text) else text

    def _without_trailing_space(self, text: str) -> str:
        behind = self._after.split("\n", 1)[0]
        return text if behind.strip() else text.rstrip()

    def _parsing_best(self, text: str, raw: str, finish_reason: FinishReason) -> str:
        """`text`, or what parses better, if it leaves more syntax errors than there were."""
        base = self._check.base
        if base is None:
            balanced = without_surplus_closers(text, self._before, self._after, self._language)
            return self._changed(text, balanced, _DROPPED_BRACKETS) if balanced.strip() else text
        fewest = self._check.num_errors(text)
        if fewest <= base:
            return text
        best, done = text, ""
        for candidate, change in self._candidates(text, raw, finish_reason):
            num_errors = self._check.num_errors(candidate) if candidate.strip() and candidate != best else fewest
            if num_errors < fewest:
                best, done, fewest = candidate, change, num_errors
            if fewest <= base:
                break
        else:
            best, done = next(self._parsing_beginnings(text, base), (best, done))
        if done == _UNDONE:
            self._changes.clear()
            return raw
        return self._changed(text, best, done)

    def _candidates(self, text: str, raw: str, finish_reason: FinishReason) -> Iterator[tuple[str, str]]:
        remainder = self._after.split("\n", 1)[0].rstrip()
        for length in range(min(len(remainder), len(text) - 1, _MAX_OVERLAP), 0, -1):
            if text.endswith(remainder[:length]):
                yield text[:-length], _OVERLAP
        yield without_surplus_closers(text, self._before, self._after, self._language), _DROPPED_BRACKETS
        if finish_reason in _FINISHED:
            yield with_own_closers(text, self._before, self._after, self._language), "open brackets closed"
        yield raw, _UNDONE
        shorter = text.rstrip()
        for _ in range(_MAX_DROPPED_BRACKETS):
            if shorter[-1:] not in tuple(")]};,"):
                break
            shorter = shorter[:-1].rstrip()
            yield shorter, _DROPPED_BRACKETS

    def _parsing_beginnings(self, text: str, base: int) -> Iterator[tuple[str, str]]:
        """The first lines of `text` that leave no more errors than there were. Only where nothing else does is a line
        dropped. Where there were errors before, their number says little of what is added, so that there `text` must
        have left a bracket open besides, and what is left of it none."""
        if base > 0 and not leaves_open(text, self._before, self._language):
            return
        lines = text.rstrip().split("\n")
        for count in range(len(lines) - 1, max(0, len(lines) - 1 - _MAX_DROPPED_LINES), -1):
            beginning = "\n".join(lines[:count]).rstrip()
            if not beginning.strip() or (base > 0 and leaves_open(beginning, self._before, self._language)):
                continue
            if self._check.num_errors(beginning) <= base:
                yield beginning, "lines that do not parse dropped"

    def _holds_secret(self, text: str) -> bool:
        """Whether a secret begins or goes on in `text`."""
        line = self._before.rpartition("\n")[2]
        return any(span.end > len(line) for span in secrets_in(line + text))


_DROPPED_BRACKETS = "surplus brackets dropped"
_UNDONE = "all changes undone"
_OVERLAP = "overlap with the suffix removed"
