"""Tests that disturb each other, and who of them has to go."""

from __future__ import annotations

from collections.abc import Iterable


def settle_conflicts(disturbs: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Who is left out, each with another of the conflict, so that no pair is left.

    `disturbs` holds (a, b) where b passes alone and not after a. Whoever is part of most conflicts goes first, so that
    one bad test cannot take many good ones along; of equals the one that disturbs most, then the later one.
    """
    left = set(disturbs)
    gone: list[tuple[int, int]] = []
    while left:
        members = sorted({test for pair in left for test in pair})
        worst = max(
            members,
            key=lambda test: (
                len({other for pair in left if test in pair for other in pair} - {test}),
                sum(first == test for first, _ in left),
                test,
            ),
        )
        disturbed = [second for first, second in left if first == worst]
        disturbing = [first for first, second in left if second == worst]
        gone.append((worst, min(disturbed or disturbing)))
        left = {pair for pair in left if worst not in pair}
    return tuple(gone)
