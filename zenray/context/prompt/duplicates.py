"""Snippets that say what the prompt says already."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from zenray.context.prompt.ranking import Ranked

_SAME = 0.8
"""Jaccard similarity of two snippets' lines, or share of a snippet's lines that the window holds, from which it is
a duplicate."""
_MEANS_NOTHING = re.compile(r"[\W_]*(else|end|try|finally|pass|break|continue|return)?[\W_]*")


def telling_lines(text: str) -> frozenset[str]:
    """The lines of `text` without their spacing, those left out that stand in any code, such as brackets."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return frozenset(line for line in lines if not _MEANS_NOTHING.fullmatch(line))


def is_duplicate(lines: frozenset[str], window: frozenset[str], kept: Iterable[frozenset[str]]) -> bool:
    """Lines that are mostly in `window`, or much the same as those of one of `kept`. Nothing telling is a duplicate."""
    if not lines or len(lines & window) >= _SAME * len(lines):
        return True
    return any(len(lines & other) >= _SAME * len(lines | other) for other in kept)


def without_duplicates(
    ranked: Sequence[Ranked], window: frozenset[str], lines_of: Callable[[str], frozenset[str]] = telling_lines
) -> tuple[list[Ranked], list[Ranked]]:
    """Those worth their tokens and the duplicates, each best first. Of two much alike the better one stays.

    Only pairs that share a line can be alike, so others are not compared.
    """
    kept: list[Ranked] = []
    duplicates: list[Ranked] = []
    kept_lines: list[frozenset[str]] = []
    with_line: dict[str, list[int]] = {}
    for each in ranked:
        lines = lines_of(each.candidate.snippet.text)
        neighbours = {at for line in lines for at in with_line.get(line, ())}
        if is_duplicate(lines, window, (kept_lines[at] for at in neighbours)):
            duplicates.append(each)
            continue
        for line in lines:
            with_line.setdefault(line, []).append(len(kept))
        kept.append(each)
        kept_lines.append(lines)
    return kept, duplicates
