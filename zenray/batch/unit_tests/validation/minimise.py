"""The smallest suite, found greedily, that notices as much as all tests together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set


def minimise(achievements: Mapping[str, Set[Hashable]], costs: Mapping[str, int]) -> tuple[str, ...]:
    """Tests, best first, that together achieve all that `achievements` (test -> killed mutants and branches) hold.

    Greedy set cover (Chvatal 1979: at most ln n + 1 times the least): each step takes the test that adds most; of
    equals the cheaper, then the one first by name. Afterwards no chosen test can be left out: those that later ones
    have made superfluous are removed, the least valuable first.
    """
    missing = set().union(*achievements.values())
    chosen: list[str] = []
    while missing:
        best = min(achievements, key=lambda test: (-len(achievements[test] & missing), costs[test], test))
        chosen.append(best)
        missing -= achievements[best]
    for test in reversed(chosen.copy()):
        others = set().union(*(achievements[other] for other in chosen if other != test))
        if achievements[test] <= others:
            chosen.remove(test)
    return tuple(chosen)
