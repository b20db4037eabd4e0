"""The end of a scope in languages whose blocks are told by indentation, by rule (Python) or by habit (Ruby, shell).

The first line less indented than the scope ends the text. Where blocks end with a word or a bracket of their own,
that line is kept, unless the text behind the cursor has it. A definition behind a finished one of the same level
ends the text too.
"""

from __future__ import annotations

import re

from zenray.context.languages.registry import language as language_named
from zenray.context.suggestion.lexing import brackets, unmatched
from zenray.context.suggestion.line_rules import Decision, Line
from zenray.context.suggestion.seams import column, cut_before, end_of_content, indentation
from zenray.context.suggestion.syntax import in_code
from zenray.context.suggestion.windows import sure_start
from zenray.engine.request import FinishReason
from zenray.engine.stopping import TextEnd

_OFFSIDE_LANGUAGES = """
    agda bitbake coffeescript cython elm fsharp gdscript haml haskell idris just lean4 mojo nim pug purescript python
    sass starlark stylus yaml
"""
_SEARCHED_CHARACTERS = 8192
_MAX_VETOES = 8
_CLOSING_LINE = re.compile(r"(?:end\w*|fi|done|esac|until|loop|next|wend)\b.*|[)\]}]+[;,.]*|</.*")
_DEFINITION = re.compile(
    r"@|(?:(?:async|export|local|pub|public|private|protected|static|override)\s+)*"
    r"(?:def|defp|class|function|module|proc|func|sub|macro)\s"
)
_MAYBE_DEFINITION = re.compile(r"[\w\s]*\Z")


def is_offside(language: str) -> bool:
    """Indentation is the rule there, and no line closes a block."""
    return language in _OFFSIDE_LANGUAGES.split()


class IndentationScope:
    """The `LineRule`; `before` and `after` are the text around the cursor."""

    def __init__(self, language: str, before: str, after: str) -> None:
        self._language, self._after = language, after[:_SEARCHED_CHARACTERS]
        self._before = before[sure_start(before, _SEARCHED_CHARACTERS) :]
        known = language_named(language)
        self._comment = known.line_comment if known else ""
        self._is_offside = is_offside(language)
        read = brackets(language, self._before)
        self._openers = unmatched(read.found)[1]
        """Open where the next line begins."""
        self._lexed = read.resume
        last_line = self._before.rfind("\n") + 1
        self._cursor_line = self._before[last_line:]
        statement = min(last_line, self._openers[0].position) if self._openers else last_line
        self._statement = self._before[self._before.rfind("\n", 0, statement) + 1 :]
        """What the cursor stands in: its line, from where its brackets open."""
        self._base: int | None = None
        """The column of the scope's statements, known with the first of them."""
        self._level = 0
        """Lines indented less are outside."""
        if self._statement.strip():
            self._base = column(indentation(self._statement))
            self._level = self._base + self._opens_block(self._statement)
        self._definition_begun = self._definition_seen = False
        """At the scope's own level; seen is one whose body is, so that declarations of a line each may go on."""
        self._counts_definitions = True
        self._pending: int | None = None
        """Where comments begin that may belong to what is outside: they go with the line behind them."""
        self._continued = False
        self._num_vetoes = 0
        self._vetoed_start = -1

    def judge(self, text: str, line: Line) -> Decision | None:
        decision = self._judge_begin(text, line)
        if decision is None and line.next_start is not None:
            self._read_line(text, line)
        return decision

    def hold_from(self, text: str, start: int) -> int:
        held = end_of_content(text)
        if self._pending is not None:
            held = min(held, cut_before(text, self._pending, self._after))
        shown = text[start:].rstrip()
        if not shown or not self._begins_statement(start):
            return held
        content, base = start + len(indentation(shown)), self._column(start, shown)
        may_end = (
            self._is_outside(base)
            or (self._definition_seen and self._may_be_comment(text[content:]))
            or (self._definition_seen and base == self._base and _MAYBE_DEFINITION.match(text, content))
        )
        return min(held, cut_before(text, content, self._after)) if may_end else held

    def _judge_begin(self, text: str, line: Line) -> Decision | None:
        """Judges a line by what it begins with."""
        shown = text[line.start : line.stop].rstrip()
        if not shown or not self._begins_statement(line.start) or self._vetoed_start == line.start:
            return None
        content, here = line.start + len(indentation(shown)), self._column(line.start, shown)
        is_whole = line.next_start is not None
        if self._may_be_comment(text[content : line.stop]) if not is_whole else self._is_comment(text, content):
            return None
        first = content if self._pending is None else self._pending
        if self._is_outside(here):
            if self._is_offside:
                known_at = content + self._told_after(text[content : line.stop])
                return self._ended(text, content, known_at, cut_before(text, first, self._after))
            if line.next_start is None:
                return None
            at = cut_before(text, first, self._after)
            if _CLOSING_LINE.fullmatch(text[content : line.stop].rstrip()) and not self._after_closes(here):
                at = end_of_content(text, line.stop)
            return self._ended(text, content, line.next_start, at)
        definition = _DEFINITION.match(text, content, line.stop)
        if definition and here == self._base and self._definition_seen and self._counts_definitions:
            return self._ended(text, content, definition.end(), cut_before(text, first, self._after))
        return None

    def _ended(self, text: str, content: int, known_at: int, at: int) -> Decision | None:
        if self._num_vetoes > _MAX_VETOES:
            return None
        if in_code(self._language, self._before + text[: content + 1], len(self._before) + content):
            return Decision(known_at, TextEnd(at, FinishReason.SCOPE_END))
        self._num_vetoes += 1
        self._vetoed_start = text.rfind("\n", 0, content) + 1
        return None

    def _read_line(self, text: str, line: Line) -> None:
        """Follows a whole line that did not end the text."""
        assert line.next_start is not None
        shown = text[line.start : line.stop].rstrip()
        if shown and self._begins_statement(line.start):
            self._read_statement(
                text[: line.stop], line.start + len(indentation(shown)), self._column(line.start, shown)
            )
        read = brackets(self._language, self._before + text[: line.next_start], self._lexed)
        self._openers = unmatched([*self._openers, *read.found])[1]
        self._lexed = read.resume
        self._continued = shown.endswith("\\")

    def _read_statement(self, text: str, content: int, here: int) -> None:
        if self._base is None:
            self._settle(here)
        if self._is_comment(text, content):
            if self._pending is None and (here < self._level or self._definition_seen):
                self._pending = content
            return
        self._pending = None
        if self._base is not None and here > self._base:
            self._definition_seen = self._definition_begun
        elif here == self._base:
            definition = _DEFINITION.match(text, content)
            self._definition_begun = bool(definition and definition.group() != "@")

    def _settle(self, here: int) -> None:
        """The first statement on a line of its own tells the scope: the block of the line before the cursor, if it is
        indented deeper than that, else the one with its own indentation."""
        lines = [line for line in self._before.splitlines() if line.strip()]
        previous = column(indentation(lines[-1])) if lines else here
        self._base = here
        self._level = previous + 1 if here > previous else here
        outer = next((line for line in reversed(lines) if column(indentation(line)) < here), "")
        self._counts_definitions = not re.match(r"\s*(?:async\s+)?(?:def|function)\b", outer)

    def _begins_statement(self, start: int) -> bool:
        if start == 0 and self._cursor_line.strip():
            return False
        return not self._openers and not self._continued and self._lexed == len(self._before) + start

    def _column(self, start: int, shown: str) -> int:
        return column(indentation(self._cursor_line + shown if start == 0 else shown))

    def _is_outside(self, here: int) -> bool:
        return self._base is not None and here < self._level

    def _is_comment(self, text: str, content: int) -> bool:
        return bool(self._comment) and text.startswith(self._comment, content)

    def _told_after(self, begun: str) -> int:
        """How many characters it takes to see that `begun` is no comment."""
        pairs = zip(begun, self._comment, strict=False)
        return next((at for at, (one, other) in enumerate(pairs) if one != other), len(begun) - 1) + 1

    def _may_be_comment(self, begun: str) -> bool:
        return bool(self._comment) and (begun.startswith(self._comment) or self._comment.startswith(begun))

    def _opens_block(self, statement: str) -> bool:
        """A definition, or a line that ends with what a block begins with: only its block is asked for."""
        definition = _DEFINITION.match(statement.lstrip() + " ")
        return bool(definition and definition.group() != "@") or (self._is_offside and statement.rstrip().endswith(":"))

    def _after_closes(self, here: int) -> bool:
        """Whether the first line behind the cursor's that is indented no deeper than `here` closes a block there."""
        for line in self._after.splitlines()[1:]:
            if line.strip() and column(indentation(line)) <= here:
                return column(indentation(line)) == here and bool(_CLOSING_LINE.fullmatch(line.strip()))
        return False
