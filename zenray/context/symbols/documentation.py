"""Documentation of a definition: the comment above it, or what a docstring says."""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_DOCUMENTATION_CHARS = 600
_MAX_LINES = 40
_ATTRIBUTE = ("#[", "@", "[")
_MAX_LINE_CHARS = 300
_OPENING = re.compile(r"(/\*+!?|\*+/|/{2,}!?|\*+|--\[\[|-{2,}(\s*\|)?|;+|%+|#+!?|\{-\|?|\(\*+)\s?")
_CLOSING = re.compile(r"(\*+/|-\}|\*+\))$")
_QUOTES = re.compile(r"^[A-Za-z]{0,2}(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$")


def comment_above(lines: Sequence[str], row: int, line_comment: str, block_comment: tuple[str, str] | None) -> str:
    """The text of the comment that ends on the line above `row`, or above the attributes there; empty when none."""
    last = row - 1
    while last >= 0 and row - last < _MAX_LINES and lines[last].lstrip().startswith(_ATTRIBUTE):
        last -= 1
    if last < 0:
        return ""
    text = lines[last].strip()
    first = last
    if block_comment and text.endswith(block_comment[1]):
        while block_comment[0] not in lines[first]:
            first -= 1
            if first < 0 or last - first > _MAX_LINES:
                return ""
        if not lines[first].lstrip().startswith(block_comment[0]):
            return ""
    elif line_comment and text.startswith(line_comment) and not text.startswith("#!"):
        while first > 0 and last - first < _MAX_LINES and lines[first - 1].lstrip().startswith(line_comment):
            first -= 1
    else:
        return ""
    return _cut("\n".join(map(_unmarked, lines[first : last + 1])))


def docstring(literal: str) -> str:
    """What a string literal says, its indentation taken off."""
    text = _QUOTES.sub("", literal[: 2 * MAX_DOCUMENTATION_CHARS])
    return _cut("\n".join(line.strip() for line in text.split("\n")))


def _unmarked(line: str) -> str:
    """A line of a comment without what makes it one."""
    line = _CLOSING.sub("", line.strip()[:_MAX_LINE_CHARS])
    opening = _OPENING.match(line)
    return line[opening.end() :].rstrip() if opening else line.rstrip()


def _cut(text: str) -> str:
    text = text.strip()
    if len(text) <= MAX_DOCUMENTATION_CHARS:
        return text
    return text[:MAX_DOCUMENTATION_CHARS].rpartition("\n")[0] or text[:MAX_DOCUMENTATION_CHARS]
