"""Texts cut into chunks of whole lines: symbols where they are short, their parts where they are long.

The cut goes by indentation, which holds for nearly every language as people write it, costs one look at each line
and cannot fail. A chunk ends where another thing of the same depth begins behind a blank line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_LINES = 40
"""Longer things are cut into their parts."""
TARGET_LINES = 20
"""Neighbours shorter than this together are one chunk, and lines without structure are cut every so many."""
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_CLOSERS = (")", "]", "}", "end", "else", "elif", "except", "finally", "catch", "case", "#endif", "*/")
MOST_CHARS = 4_000
"""Of one chunk. A longer line is minified code or data, and no context."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Lines [start_line, end_line) of a text."""

    start_line: int
    end_line: int
    text: str


def cut_into_chunks(text: str) -> list[Chunk]:
    """Chunks in order. Blank lines around them and over-long lines are left out."""
    lines = _LINE.findall(text)
    depths = [_depth(line) for line in lines]
    made = []
    for part_start, part_end in _merge(_split(lines, depths, 0, len(lines))):
        for start, end in _within(lines, part_start, part_end):
            while start < end and depths[start] is None:
                start += 1
            while start < end and depths[end - 1] is None:
                end -= 1
            if start < end:
                made.append(Chunk(start, end, "".join(lines[start:end])))
    return made


def _within(lines: list[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Runs of the lines [start, end) of at most `MOST_CHARS` each, without lines that are longer by themselves."""
    length = 0
    for at in range(start, end):
        if length + len(lines[at]) > MOST_CHARS:
            yield start, at
            start, length = at, 0
        if len(lines[at]) > MOST_CHARS:
            start = at + 1
        else:
            length += len(lines[at])
    yield start, end


def block_at(text: str, line: int) -> Chunk:
    """The thing that begins at `line` of `text`: all lines behind it that are deeper, and what closes it."""
    lines = _LINE.findall(text)
    depth = _depth(lines[line])
    end = line + 1
    for at in range(line + 1, len(lines)):
        found = _depth(lines[at])
        if found is None or depth is None:
            continue
        if found < depth or (found == depth and not lines[at].lstrip().startswith(_CLOSERS)):
            break
        end = at + 1
    return Chunk(line, end, "".join(lines[line:end]))


def _depth(line: str) -> int | None:
    """Columns of indentation; None for a blank line."""
    stripped = line.lstrip()
    return len(line) - len(stripped) if stripped else None


def _split(lines: list[str], depths: list[int | None], start: int, end: int) -> Iterator[tuple[int, int]]:
    if end - start <= MOST_LINES:
        yield start, end
        return
    first = start if start == 0 else start + 1  # what is split here already begins at its own, lesser depth
    least = min((depth for depth in depths[first:end] if depth is not None), default=0)
    starts = [
        line
        for line in range(start + 1, end)
        if depths[line] == least and depths[line - 1] is None and not lines[line].lstrip().startswith(_CLOSERS)
    ]
    if not starts:
        for window in range(start, end, TARGET_LINES):
            yield window, min(window + TARGET_LINES, end)
        return
    for part_start, part_end in zip([start, *starts], [*starts, end], strict=True):
        if part_start == start and start == 0 and part_end == end:
            yield part_start, part_end
        else:
            yield from _split(lines, depths, part_start, part_end)


def _merge(parts: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbours together where they stay within the target."""
    held: tuple[int, int] | None = None
    for start, end in parts:
        if held is not None and end - held[0] <= TARGET_LINES:
            held = (held[0], end)
            continue
        if held is not None:
            yield held
        held = (start, end)
    if held is not None:
        yield held
