"""The end of a scope in languages whose blocks stand in brackets.

The closer of a block that began before the cursor ends the text: before the closer when the text behind the cursor
still has it, else behind it. Besides, a definition begun on the cursor's line ends the text with its block, and at
the top level, where no bracket is open, a blank line behind a whole block does. Where brackets make no blocks, only
those count that the text behind the cursor closes.
"""

from __future__ import annotations

import re

from zenray.context.suggestion.lexing import CLOSER_OF, OPENER_OF, Bracket, brackets, unmatched
from zenray.context.suggestion.line_rules import Decision, Line
from zenray.context.suggestion.open_brackets import OpenBracket, open_at_cursor
from zenray.context.suggestion.seams import cut_before, end_of_content, indentation
from zenray.context.suggestion.syntax import in_code
from zenray.context.suggestion.windows import sure_start
from zenray.engine.request import FinishReason
from zenray.engine.stopping import TextEnd

_SEARCHED_CHARACTERS = 8192
_MAX_VETOES = 8
_MAX_LINE_CHARACTERS = 2000
"""A longer line is not read again for every token; all of it from its first closer on waits for its end."""
_CONTROL = re.compile(
    r"[\s}]*(?:if|else|elif|for|foreach|while|switch|case|default|try|catch|finally|do|with|match|loop|unless|until|"
    r"when|using|lock|select|synchronized|defer|go|guard|repeat|unsafe|return)\b"
)
"""Statements within a block; what else opens a block is a definition."""
_CONTINUED = re.compile(r"\s*(?:[{.:,)\]&|?+*/=-]|(?:where|throws|extends|implements|with)\b)")
"""How a line goes on that began on the one before."""


class BracketScope:
    """The `LineRule`; `before` and `after` are the text around the cursor."""

    def __init__(self, language: str, before: str, after: str, *, has_blocks: bool) -> None:
        self._has_blocks = has_blocks
        self._language, self._after = language, after[:_SEARCHED_CHARACTERS]
        self._before = before[sure_start(before, _SEARCHED_CHARACTERS) :]
        read = brackets(language, self._before)
        self._lexed = read.resume
        self._surrounding = open_at_cursor(language, self._before, self._after, read)
        """What is open at the cursor and not yet closed by the text, innermost last."""
        self._own: list[Bracket] = []
        """Openers of the text itself that it has not closed."""
        self._cursor_line = self._before[self._before.rfind("\n") + 1 :]
        self._in_statement = has_blocks and self._cursor_line.strip()[-1:] not in ("", "{")
        """What began on the cursor's line goes on, and may prove to be a definition."""
        self._block_done = self._blank_line = False
        self._num_vetoes = 0

    def judge(self, text: str, line: Line) -> Decision | None:
        shown = text[line.start : line.stop].rstrip()
        if self._block_done and self._blank_line and shown:
            content = line.start + len(indentation(shown))
            return Decision(content + 1, TextEnd(cut_before(text, content, self._after), FinishReason.SCOPE_END))
        if line.next_start is None or self._num_vetoes > _MAX_VETOES:
            return None
        if not shown:
            self._blank_line = self._block_done
            return None
        if line.start > 0 and not self._own and not self._in_inline_bracket() and not _CONTINUED.match(shown):
            self._in_statement = False
        had_own = bool(self._own)
        end = self._read_line(text, line)
        at_top_level = self._has_blocks and not self._surrounding and not self._own
        self._block_done = at_top_level and (had_own or self._block_done)
        self._blank_line = False
        if not self._own and shown.endswith(";"):
            self._in_statement = False
        return Decision(line.next_start, TextEnd(end, FinishReason.SCOPE_END)) if end is not None else None

    def hold_from(self, text: str, start: int) -> int:
        held_from = end_of_content(text)
        if self._num_vetoes > _MAX_VETOES or not any(closer in text[start:] for closer in OPENER_OF):
            return held_from
        if len(text) - start > _MAX_LINE_CHARACTERS:
            first = min(at for closer in OPENER_OF if (at := text.find(closer, start)) >= 0)
            return min(held_from, cut_before(text, first, self._after))
        offset = len(self._before)
        found = brackets(self._language, self._before + text, self._lexed).found
        closing = [bracket.position - offset for bracket in found if bracket.character in OPENER_OF]
        closing = [position for position in closing if position >= start]
        if not closing:
            return held_from
        if self._in_statement or not self._own:
            held_from = min(held_from, cut_before(text, closing[0], self._after))
        new = [bracket for bracket in found if bracket.position >= offset + start]
        closers = unmatched([*self._own, *new])[0]
        return min((held_from, *(cut_before(text, at.position - offset, self._after) for at in closers[:1])))

    def _in_inline_bracket(self) -> bool:
        return bool(self._surrounding) and self._surrounding[-1].is_on_cursor_line

    def _read_line(self, text: str, line: Line) -> int | None:
        """Follows the brackets of a whole line; where the text ends in it, if it does."""
        offset = len(self._before)
        source = self._before + text[: line.stop]
        read = brackets(self._language, source, self._lexed)
        for bracket in read.found:
            at = bracket.position - offset
            if at < line.start:
                continue
            if bracket.character in CLOSER_OF:
                self._own.append(bracket)
            elif any(opener.character == OPENER_OF[bracket.character] for opener in self._own):
                opener = self._pop_own(OPENER_OF[bracket.character])
                spans_lines = opener.position - offset < line.start
                if not self._own and bracket.character == "}" and spans_lines and self._is_definition(text):
                    return self._end_behind(text[: line.stop], at, self._surrounding)
            elif self._surrounding and self._surrounding[-1].closer == bracket.character:
                scope = self._surrounding[-1]
                if not (scope.is_closed or self._is_block(scope, line)):
                    self._surrounding = self._surrounding[:-1]
                elif not in_code(self._language, source, bracket.position):
                    self._num_vetoes += 1
                elif scope.is_closed:
                    return cut_before(text, at, self._after)
                else:
                    return self._end_behind(text[: line.stop], at, self._surrounding[:-1])
        self._lexed = read.resume
        return None

    def _pop_own(self, character: str) -> Bracket:
        """Takes the innermost own opener of this kind, and all within it."""
        while (opener := self._own.pop()).character != character:
            pass
        return opener

    def _is_block(self, bracket: OpenBracket, line: Line) -> bool:
        """What is between `bracket` and its closer, in `line`, is a scope: it spans lines."""
        return self._has_blocks and bracket.closer == "}" and (line.start > 0 or not bracket.is_on_cursor_line)

    def _is_definition(self, text: str) -> bool:
        return self._in_statement and not _CONTROL.match(self._cursor_line + text.split("\n", 1)[0])

    def _end_behind(self, text: str, closer: int, surrounding: tuple[OpenBracket, ...]) -> int:
        """The end of the text behind `closer` and the punctuation that closes what is around it, as far as the text
        behind the cursor does not have that."""
        end = closer + 1
        for at in range(end, len(text)):
            character = text[at]
            if character in OPENER_OF:
                if not surrounding or surrounding[-1].closer != character or surrounding[-1].is_closed:
                    break
                surrounding = surrounding[:-1]
            elif character not in ";, \t":
                break
            end = at + 1
        return end_of_content(text, end)
