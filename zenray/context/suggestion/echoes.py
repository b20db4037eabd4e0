"""Completions that say again what the document says."""

from __future__ import annotations

import re
from itertools import takewhile

from zenray.context.suggestion.seams import column, indentation

_WORD_CHARACTER = re.compile(r"\w")
_LEAVES = re.compile(r"(?:return|raise|throw)\b")
_MIN_WORD_CHARACTERS = 4
_MAX_LINES = 20


def repeats_lines_before(text: str, before: str) -> bool:
    """Whether `text` is nothing but the last lines before the cursor, unless those are a repetition themselves."""
    lines = _shown(text.splitlines())
    above = _shown(before.splitlines()[-_MAX_LINES:])
    if not before.endswith("\n") and before.rpartition("\n")[2].strip():
        return False
    return _says_something(lines) and lines == above[-len(lines) :] and lines != above[-2 * len(lines) : -len(lines)]


def repeats_lines_behind(text: str, after: str) -> bool:
    """Whether `text` is nothing but the first lines behind the cursor."""
    lines = _shown(text.splitlines())
    return _says_something(lines) and lines == _shown(after.splitlines()[:_MAX_LINES])[: len(lines)]


def leaves_before_the_same(text: str, before: str, after: str) -> bool:
    """Whether `text` leaves the block with a line that stands further down in it: what is between would never run."""
    lines = _shown(text.splitlines())
    cursor_line = before.rpartition("\n")[2]
    if len(lines) != 1 or cursor_line.strip() or not _LEAVES.match(lines[0]):
        return False
    here = column(indentation(cursor_line + text.lstrip("\r\n")))
    behind = [line for line in after.splitlines()[:_MAX_LINES] if line.strip()]
    block = takewhile(lambda line: column(indentation(line)) >= here, behind)
    return any(column(indentation(line)) == here and line.strip() == lines[0] for line in block)


def without_cursor_line(text: str, before: str) -> str:
    """`text` without the beginning of the cursor's line, if it says that again: `return ` and `return x`. What may
    well stand twice (`table[table[0]]`) is left."""
    said = before.rpartition("\n")[2].strip()
    if not _says_something([said]) or not text.lstrip().startswith(said) or said[-1] in "[({,=":
        return text
    rest = text.lstrip()[len(said) :]
    ends_with_space = before[-1:].isspace()
    return rest.lstrip(" \t") if ends_with_space else rest


def _shown(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip()]


def _says_something(lines: list[str]) -> bool:
    return sum(len(_WORD_CHARACTER.findall(line)) for line in lines) >= _MIN_WORD_CHARACTERS
