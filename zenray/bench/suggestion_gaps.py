"""Gaps cut into real source, whose true middle is known: what completions are asked for and judged by.

Kinds: the rest of a line; a part of a line; a few whole lines; the rest of a block; a whole block behind its header.
The same files and seed give the same gaps.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zenray.context.languages.registry import language_of

GapKind = Literal["rest of line", "part of line", "lines", "rest of block", "block"]
GAP_KINDS: tuple[GapKind, ...] = ("rest of line", "part of line", "lines", "rest of block", "block")

_FILE_CHARACTERS = range(1_000, 200_000)
_MAX_FILES_PER_LANGUAGE = 400
_MAX_BLOCK_LINES = 30
_WORD = re.compile(r"\w+")
_LEFT_OUT = re.compile(
    r"(?:^|/)(?:test|tests|testdata|vendor|node_modules/\.\w+|dist|bundle|idlelib)/|\.min\.|_pb2|\.pyi$"
)
"""Tests, and files that nobody writes by hand."""


@dataclass(frozen=True, slots=True)
class Gap:
    """`before + middle + after` is the file at `path`."""

    language: str
    path: str
    kind: GapKind
    before: str
    middle: str
    after: str


def make_gaps(roots: Iterable[Path], languages: Iterable[str], count: int, seed: int = 0) -> list[Gap]:
    """`count` gaps for each language of which the folders `roots` hold files, all kinds alike."""
    files = _files(roots, set(languages))
    gaps = []
    for language in sorted(files):
        rng = random.Random(f"{language}-{seed}")
        paths = rng.sample(sorted(files[language]), min(len(files[language]), _MAX_FILES_PER_LANGUAGE))
        texts = [(path, text) for path in paths if (text := _read(path))]
        if texts:
            gaps += _gaps_of(language, texts, rng, count)
    return gaps


def _files(roots: Iterable[Path], languages: set[str]) -> dict[str, set[Path]]:
    files: dict[str, set[Path]] = defaultdict(set)
    for root in roots:
        for path in root.rglob("*.*"):
            language = language_of(path.name)
            if language in languages and not _LEFT_OUT.search(path.relative_to(root).as_posix()):
                files[language].add(path)
    return files


def _read(path: Path) -> str:
    """The text of a file that is worth cutting; else an empty one."""
    try:
        if not path.is_file() or path.stat().st_size not in _FILE_CHARACTERS:
            return ""
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return text if max(map(len, text.splitlines())) < 400 and "\r" not in text else ""


def _gaps_of(language: str, texts: list[tuple[Path, str]], rng: random.Random, count: int) -> list[Gap]:
    gaps: list[Gap] = []
    for number in range(40 * count):
        kind = GAP_KINDS[len(gaps) % len(GAP_KINDS)]
        path, text = texts[number % len(texts)]
        span = _span(text, kind, rng)
        if span and text[span[0] : span[1]].strip():
            start, stop = span
            gaps.append(Gap(language, path.name, kind, text[:start], text[start:stop], text[stop:]))
        if len(gaps) == count:
            break
    return gaps


def _span(text: str, kind: GapKind, rng: random.Random) -> tuple[int, int] | None:
    """Where a gap of this kind begins and ends, around a random line; None when it has none."""
    lines = text.splitlines(keepends=True)
    number = rng.randrange(len(lines))
    line = lines[number]
    start = sum(map(len, lines[:number]))
    stop = start + len(line.rstrip())
    if not line.strip() or line.lstrip()[0] in "#*/)]}":
        return None
    if kind in ("rest of line", "part of line"):
        words = [match.start() for match in _WORD.finditer(line)][1:]
        if not words:
            return None
        first = rng.choice(words)
        if kind == "rest of line":
            return start + first, stop
        ends = [match.end() for match in _WORD.finditer(line, first) if match.end() < len(line.rstrip())]
        return (start + first, start + rng.choice(ends)) if ends else None
    if kind == "lines":
        last = min(number + rng.randrange(1, 5), _block_end(lines, number, _column(line)) or len(lines))
        return start, start + sum(map(len, lines[number:last]))
    if kind == "rest of block":
        end = _block_end(lines, number, _column(line))
        return (start + _column(line), _content_end(lines, start, number, end)) if end else None
    body = next((at for at in range(number + 1, len(lines)) if lines[at].strip()), number)
    if body != number + 1 or _column(lines[body]) <= _column(line) or line.rstrip()[-1] not in ":{":
        return None
    end = _block_end(lines, body, _column(lines[body]))
    return (stop, _content_end(lines, start, number, end)) if end else None


def _block_end(lines: list[str], first: int, column: int) -> int | None:
    """Behind the last line of the block that `first` is in; None for the top level and for long blocks."""
    if column == 0:
        return None
    for at in range(first, min(len(lines), first + _MAX_BLOCK_LINES)):
        if lines[at].strip() and _column(lines[at]) < column:
            return at
    return None


def _content_end(lines: list[str], start: int, first: int, end: int) -> int:
    """The offset behind the last character of `lines[first:end]` that is not blank; line `first` begins at `start`."""
    return start + len("".join(lines[first:end]).rstrip())


def _column(line: str) -> int:
    return len(line) - len(line.lstrip())


def by_language(gaps: Iterable[Gap]) -> Iterator[tuple[str, list[Gap]]]:
    grouped: dict[str, list[Gap]] = defaultdict(list)
    for gap in gaps:
        grouped[gap.language].append(gap)
    yield from sorted(grouped.items())
