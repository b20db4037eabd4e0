"""From raw text to the suggestion an editor shows."""

from __future__ import annotations

from collections.abc import Iterator

from zenray.context.languages.registry import language as language_named
from zenray.context.privacy.secrets import secrets_in
from zenray.context.suggestion.balance import with_own_closers, without_surplus_closers
from zenray.context.suggestion.echoes import repeats_lines_before, repeats_lines_behind, without_cursor_line
from zenray.context.suggestion.indenting import indented_like, not_indented_twice
from zenray.context.suggestion.line_rules import LineByLine
from zenray.context.suggestion.model import Suggestion, SuggestionFilter
from zenray.context.suggestion.repetition import first_occurrence
from zenray.context.suggestion.suffix_match import SuffixMatch
from zenray.context.suggestion.syntax import SyntaxCheck
from zenray.engine.request import FinishReason

_LOOKED_AT = 16384
_MAX_DROPPED_LINES = 6
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
    return _PostProcess(before[-_LOOKED_AT:], after[:_LOOKED_AT], known.id if known else language).run(
        text, finish_reason, max_lines
    )


class _PostProcess:
    """One suggestion in the making; `changes` says in words what was done."""

    def __init__(self, before: str, after: str, language: str) -> None:
        self._before, self._after, self._language = before, after, language
        self._changes: list[str] = []

    def run(self, raw: str, finish_reason: FinishReason, max_lines: int) -> Suggestion:
        if not raw.strip():
            return self._filtered(SuggestionFilter.EMPTY)
        if self._holds_secret(raw):
            return self._filtered(SuggestionFilter.SECRET)
        if repeats_lines_before(raw, self._before):
            return self._filtered(SuggestionFilter.PREFIX_ECHO)
        if repeats_lines_behind(raw, self._after):
            return self._filtered(SuggestionFilter.SUFFIX_ECHO)
        text = self._shaped(raw, finish_reason, max_lines)
        if not text.strip():
            overlap_alone = self._changes[-1:] == [_OVERLAP]
            return self._filtered(SuggestionFilter.SUFFIX_ECHO if overlap_alone else SuggestionFilter.EMPTY)
        text = self._parsing_best(text, raw, finish_reason)
        return Suggestion(text, None, tuple(self._changes))

    def _shaped(self, text: str, finish_reason: FinishReason, max_lines: int) -> str:
        if finish_reason is FinishReason.REPETITION:
            text = self._changed(text, first_occurrence(text), "repetition removed")
        if finish_reason in _CUT_OFF and "\n" in text.strip() and text.count("\n") + 1 != max_lines:
            text = self._changed(text, text[: text.rstrip().rfind("\n")].rstrip(), "incomplete last line dropped")
        text = self._changed(text, without_cursor_line(text, self._before), "beginning of the line removed")
        text = self._changed(text, not_indented_twice(text, self._before), "doubled indentation removed")
        text = self._changed(text, indented_like(text, self._before, self._after), "indentation as in the document")
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
        balanced = without_surplus_closers(text, self._before, self._after, self._language)
        check = SyntaxCheck(self._language, self._before, self._after)
        if check.base is None:
            return self._changed(text, balanced, "surplus brackets dropped") if balanced.strip() else text
        fewest = check.num_errors(text)
        if fewest <= check.base:
            return text
        best, done = text, ""
        for candidate, change in self._candidates(text, balanced, raw, finish_reason):
            if not candidate.strip() or candidate == best:
                continue
            num_errors = check.num_errors(candidate)
            if num_errors < fewest:
                best, done, fewest = candidate, change, num_errors
            if fewest <= check.base:
                break
        return self._changed(text, best, done)

    def _candidates(self, text: str, balanced: str, raw: str, finish_reason: FinishReason) -> Iterator[tuple[str, str]]:
        yield balanced, "surplus brackets dropped"
        if finish_reason in _FINISHED:
            yield with_own_closers(text, self._before, self._language), "open brackets closed"
        yield raw, "left as it was"
        shorter = text.rstrip()
        while shorter and shorter[-1] in ")]};,":
            shorter = shorter[:-1].rstrip()
            yield shorter, "surplus brackets dropped"
        lines = text.rstrip().split("\n")
        for count in range(len(lines) - 1, max(0, len(lines) - 1 - _MAX_DROPPED_LINES), -1):
            yield "\n".join(lines[:count]).rstrip(), "lines that do not parse dropped"

    def _holds_secret(self, text: str) -> bool:
        """Whether a secret begins or goes on in `text`."""
        line = self._before.rpartition("\n")[2]
        return any(span.end > len(line) for span in secrets_in(line + text))

    def _filtered(self, reason: SuggestionFilter) -> Suggestion:
        return Suggestion("", reason, tuple(self._changes))


_OVERLAP = "overlap with the suffix removed"
