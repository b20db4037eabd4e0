"""The part of a document that tells how a completion at the cursor parses: small, and whole where it counts.

A stretch of lines around the cursor, the headers of the blocks it is in, found by their indentation, and the lines that
close them. So a method is parsed within its class, and not the 5,000 lines of that.
"""

from __future__ import annotations

import re

from zenray.context.suggestion.seams import column, indentation, line_start_behind

_BEFORE_CHARACTERS = 3000
_AFTER_CHARACTERS = 1500
_MAX_SCANNED_CHARACTERS = 1 << 18
_SURE_START = re.compile(
    r"\s*(?:@\w|#include\b|(?:(?:export|default|pub(?:\(\w+\))?|public|private|protected|static|final|abstract|async|"
    r"unsafe|const|extern|inline|override)\s+)*"
    r"(?:def|class|fn|func|function|struct|enum|interface|impl|trait|mod|namespace|template|typedef|import|package|void|"
    r"int|bool|char|float|double|long|let|var|module)\b)"
)
"""A line that is hardly ever part of a string or comment."""
_CLOSING = re.compile(r"\s*(?:[)\]}][)\]};,]*|end\b)")


def before_window(before: str) -> str:
    """What to parse of the text before the cursor."""
    before = before[-_MAX_SCANNED_CHARACTERS:]
    if len(before) <= _BEFORE_CHARACTERS:
        return before
    start = _start(before)
    return "".join(_headers(before[:start].splitlines(keepends=True), before[start:])) + before[start:]


def after_window(after: str) -> str:
    """What to parse of the text behind the cursor."""
    after = after[:_MAX_SCANNED_CHARACTERS]
    if len(after) <= _AFTER_CHARACTERS:
        return after
    stop = after.find("\n", _AFTER_CHARACTERS) + 1 or len(after)
    return after[:stop] + "".join(_closers(after[:stop], after[stop:]))


def sure_start(before: str, num_characters: int) -> int:
    """Where to begin to read the last `num_characters` of `before`: at a line that hardly stands in a string or
    comment, if there is one in their first half."""
    first = line_start_behind(before, len(before) - num_characters)
    if first == 0:
        return 0
    at = first
    while 0 <= at < len(before) - num_characters // 2:
        if _SURE_START.match(before, at):
            return at
        at = before.find("\n", at) + 1 or -1
    return first


def _start(before: str) -> int:
    """The start of the least indented line near the cursor, of those that hardly stand in a string if there are any."""
    first = before.find("\n", len(before) - _BEFORE_CHARACTERS) + 1
    best, best_rank, at = first, (2, True, 0), first
    for line in before[first:].splitlines(keepends=True)[:-1]:
        rank = (0 if _SURE_START.match(line) else 1, line.lstrip()[:1] in ")]}", _column(line))
        if line.strip() and rank < best_rank:
            best, best_rank = at, rank
        at += len(line)
    return best


def _headers(above: list[str], window: str) -> list[str]:
    """The lines above the window that its first line is nested in, outermost first. One that only goes on (`{`, or
    `} else {`) brings the one it goes on from."""
    least = _column(window)
    headers = []
    for line in reversed(above):
        if least == 0:
            break
        if line.strip() and _column(line) < least:
            least = _column(line) + (line.lstrip()[0] in ")]}{")
            headers.append(line)
    return headers[::-1]


def _closers(near: str, far: str) -> list[str]:
    """What lines behind the window close of what its last line is nested in, innermost first."""
    lines = [line for line in near.splitlines() if line.strip()]
    least = _column(lines[-1]) + (lines[-1].rstrip()[-1] in "([{") if lines else 0
    closers = []
    for line in far.splitlines(keepends=True):
        if least == 0:
            break
        if line.strip() and _column(line) < least and (closing := _CLOSING.match(line)):
            least = _column(line)
            closers.append(closing.group().rstrip() + "\n")
        elif line.strip() and _column(line) == 0:
            break
    return closers


def _column(line: str) -> int:
    return column(indentation(line))
