"""Which snippets a prompt shows, and for how long it keeps showing them.

A snippet stands before the text at the cursor, so a prompt with another snippet computes everything behind it anew.
What was chosen therefore stays until something clearly better is found, and then as much as possible stays in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from zenray.context.pieces import ContextSource
from zenray.context.prompt.candidates import Candidate
from zenray.context.prompt.ranking import Ranked

_MOST_SNIPPETS = 32
_MOST_MISSES = 8
"""Snippets too large for what is left before the search for smaller ones ends."""

# Where a new snippet goes among new ones: what lives longest first, and what says most about the next line last.
_LIFETIMES = (
    ContextSource.SAME_FILE,
    ContextSource.IMPORT,
    ContextSource.OPEN_FILE,
    ContextSource.VIEWED,
    ContextSource.SNIPPET,
    ContextSource.CLIPBOARD,
    ContextSource.DEFINITION,
    ContextSource.RECENT_EDIT,
)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is shown, in prompt order, and what was found beside it, best first."""

    shown: tuple[Ranked, ...] = ()
    over_budget: tuple[Ranked, ...] = ()

    def cost(self, cost_of: Callable[[Candidate], int]) -> int:
        """Its tokens."""
        return sum(cost_of(each.candidate) for each in self.shown)


@dataclass(frozen=True, slots=True)
class Stickiness:
    """When a selection is kept: while it holds the `must_have` best snippets and this share of the best value."""

    must_have: int = 1
    kept_value: float = 0.6


def choose(
    previous: Selection | None,
    ranked: Sequence[Ranked],
    allowance: int,
    cost_of: Callable[[Candidate], int],
    stickiness: Stickiness = Stickiness(),  # frozen
) -> Selection:
    """The snippets to show of `ranked` (best first), within `allowance` tokens.

    Without a previous selection: greedily, the best first, a smaller one where the next does not fit. With one: it is
    kept as it is while it is good enough (`Stickiness`), judged by today's scores. Else the best newcomers are
    appended, and the worst of the previous ones leave until all fit; those that stay keep their order.
    """
    best = _fill(ranked, allowance, cost_of)
    if previous is None or not previous.shown:
        return Selection(tuple(sorted(best, key=_by_lifetime)), _rest(ranked, best))
    scores = {each.candidate.key: each for each in ranked}
    kept = [scores.get(each.candidate.key) or replace(each, score=0.0) for each in previous.shown]
    held = {each.candidate.key for each in kept}
    while kept and sum(cost_of(each.candidate) for each in kept) > allowance:
        kept.remove(min(kept, key=_score))
    leaders = {each.candidate.key for each in best[: stickiness.must_have]}
    enough = sum(map(_score, kept)) >= stickiness.kept_value * sum(map(_score, best))
    if enough and leaders <= held and len(kept) == len(previous.shown):
        return Selection(tuple(kept), _rest(ranked, kept))
    newcomers = [each for each in best if each.candidate.key not in held]
    if enough:  # only what could not wait
        newcomers = [each for each in newcomers if each.candidate.key in leaders]
    room = allowance - sum(cost_of(each.candidate) for each in newcomers)
    while kept and sum(cost_of(each.candidate) for each in kept) > room:
        kept.remove(min(kept, key=_score))
    shown = (*kept, *sorted(newcomers, key=_by_lifetime))
    return Selection(shown, _rest(ranked, shown))


def _fill(ranked: Sequence[Ranked], allowance: int, cost_of: Callable[[Candidate], int]) -> list[Ranked]:
    chosen: list[Ranked] = []
    misses = 0
    for each in ranked:
        cost = cost_of(each.candidate)
        if cost <= allowance:
            chosen.append(each)
            allowance -= cost
        else:
            misses += 1
        if misses > _MOST_MISSES or len(chosen) == _MOST_SNIPPETS:
            break
    return chosen


def _rest(ranked: Sequence[Ranked], shown: Sequence[Ranked]) -> tuple[Ranked, ...]:
    keys = {each.candidate.key for each in shown}
    return tuple(each for each in ranked if each.candidate.key not in keys)


def _score(ranked: Ranked) -> float:
    return ranked.score


def _by_lifetime(ranked: Ranked) -> tuple[int, float]:
    return _LIFETIMES.index(ranked.candidate.snippet.source), ranked.score
