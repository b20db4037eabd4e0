"""How many tokens to draft and to verify: pure functions of acceptance and cost.

A round over B sequences that verifies g_s draft tokens of sequence s commits on average B + sum of P_si tokens
(i <= g_s), where the survival P_si is the chance that the first i tokens are all accepted; it costs
`step_ms(B + sum of g_s)` and the time spent drafting. Everything here maximises tokens per millisecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

StepMs = Callable[[int], float]
"""Milliseconds of a verifying step by its rows: one per sequence and one per draft token. Non-decreasing."""

NEGLIGIBLE_SURVIVAL = 0.004
"""Never worth a row; below the least acceptance of one token, so that a first token is always drafted."""


def choose_lengths(
    survivals: Sequence[Sequence[float]], step_ms: StepMs, room: int, spent_ms: float = 0.0
) -> list[int]:
    """How many tokens of each sequence's draft to verify, at most `room` in all.

    Each sequence's survivals are non-increasing, so the best k tokens are the k most likely ones and are always
    prefixes: the exact maximum is found by trying every k. Of equals the fewest tokens win. `spent_ms` went into
    drafting.
    """
    ranked = sorted(chain.from_iterable(survivals), reverse=True)[: max(0, room)]
    num_sequences = len(survivals)
    tokens = float(num_sequences)
    best_rate, best = tokens / (spent_ms + step_ms(num_sequences)) if survivals else 0.0, 0
    for num_drafted, survival in enumerate(ranked, start=1):
        tokens += survival
        rate = tokens / (spent_ms + step_ms(num_sequences + num_drafted))
        if rate > best_rate:
            best_rate, best = rate, num_drafted
    if best == 0:
        return [0] * num_sequences
    least = ranked[best - 1]
    lengths = [sum(survival > least for survival in own) for own in survivals]
    missing = best - sum(lengths)
    for index, own in enumerate(survivals):  # equals of the last one admitted, until the number is right
        equals = min(missing, own.count(least))
        lengths[index] += equals
        missing -= equals
    return lengths


def draft_gain(survivals: Sequence[float], step_ms: StepMs, num_sequences: int) -> float:
    """Tokens a draft gains over plain decoding at its best length, less those that plain decoding would have made
    in the time it costs. For comparing drafts of one sequence: all but the best are dropped."""
    plain_ms = step_ms(num_sequences)
    gain, best = 0.0, 0.0
    for length, survival in enumerate(survivals, start=1):
        gain += survival
        best = max(best, gain - num_sequences * (step_ms(num_sequences + length) / plain_ms - 1))
    return best


def mean_accepted(gamma: int, acceptance: float) -> float:
    """Accepted tokens of a draft of `gamma`, each accepted with this chance if those before it are."""
    return sum(acceptance**length for length in range(1, gamma + 1))


def accepted_share_speedup(gamma: float, beta: float) -> float:
    """S = (gamma + 1) / (1 + gamma (1 - beta)): the speed-up if drafting and verifying cost nothing beyond one
    step and every rejected token costs a step of its own. `beta` is the accepted share of the drafted tokens."""
    return (gamma + 1) / (1 + gamma * (1 - beta))
