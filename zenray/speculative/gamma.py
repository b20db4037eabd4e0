"""How many tokens to draft and to verify: pure functions of acceptance and cost.

A round over B sequences that verifies g_s draft tokens of sequence s commits on average B + sum of P_si tokens
(i <= g_s), where the survival P_si is the chance that the first i tokens are all accepted; it costs
`step_ms(B + sum of g_s)` and the time spent drafting. Everything here maximises tokens per millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

StepMs = Callable[[int], float]
"""Milliseconds of a verifying step by its rows: one per sequence and one per draft token. Non-decreasing."""

NEGLIGIBLE_SURVIVAL = 0.01


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


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a costly drafter may hope for in one sequence of the batch.

    `acceptance` is the chance of each of its tokens. It may draft `max_tokens`; 0 says it cannot. `start_ms` comes
    before the first token and is earned back over `remaining_tokens` of the sequence. `other_survivals` are those
    of the draft that the sequence has anyway, empty for none.
    """

    acceptance: float
    max_tokens: int
    start_ms: float
    remaining_tokens: float
    other_survivals: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """`max_tokens` to ask for per sequence, 0 for not asking, and where drafting further stops to be worth it.

    `tokens_per_ms` is the expected rate of the round.
    """

    max_tokens: tuple[int, ...]
    min_survival: float
    tokens_per_ms: float


def plan_drafts(
    prospects: Sequence[Prospect], token_ms: float, step_ms: StepMs, room: int, affordable_ms: float = math.inf
) -> DraftPlan | None:
    """Whom a costly drafter should draft for and how far; None when the round is faster without it.

    `token_ms` is each further token of the whole batch: the drafter works for all asking sequences at once, so
    they are taken in order of acceptance, as many as raise the rate. No plan may lose more than `affordable_ms`
    against a plain step if everything is rejected.

    Drafting stops early by the rule of optimal stopping: a further token is worth it while its survival is above
    the rate times what it costs, to draft and to verify. A drafter that is sure of its tokens goes beyond the
    average best length, one that is not stops before.
    """
    num_sequences = len(prospects)
    plain_ms = step_ms(num_sequences)
    others = choose_lengths([prospect.other_survivals for prospect in prospects], step_ms, room)
    other_tokens = [
        1 + sum(prospect.other_survivals[:length]) for prospect, length in zip(prospects, others, strict=True)
    ]
    tokens_outside, rows_outside = sum(other_tokens), num_sequences + sum(others)
    best_rate, best_length, best_count = tokens_outside / step_ms(rows_outside), 0, 0

    order = [index for index, prospect in enumerate(prospects) if prospect.max_tokens > 0]
    order.sort(key=lambda index: (-prospects[index].acceptance, prospects[index].start_ms))
    longest = max((prospects[index].max_tokens for index in order), default=0)
    tokens_inside, start_inside = [0.0] * (longest + 1), [0.0] * (longest + 1)
    rows_inside = [0] * (longest + 1)
    start_at_risk = 0.0
    for count, index in enumerate(order, start=1):
        prospect = prospects[index]
        tokens_outside -= other_tokens[index]
        rows_outside -= 1 + others[index]
        start_at_risk += prospect.start_ms
        tokens, survival = 1.0, 1.0
        for length in range(1, longest + 1):
            if length <= prospect.max_tokens:
                survival *= prospect.acceptance
                tokens += survival
            tokens_inside[length] += tokens
            rows_inside[length] += 1 + min(length, prospect.max_tokens)
            start_inside[length] += _start_charge(prospect, token_ms, tokens)
            rows = rows_outside + rows_inside[length]
            verify_ms = step_ms(rows)
            if rows - num_sequences > room or (
                start_at_risk + length * token_ms + verify_ms - plain_ms > affordable_ms
            ):
                continue
            rate = (tokens_outside + tokens_inside[length]) / (start_inside[length] + length * token_ms + verify_ms)
            if rate > best_rate:
                best_rate, best_length, best_count = rate, length, count
    if best_count == 0:
        return None

    asking = order[:best_count]
    rows = num_sequences + sum(others[index] for index in order[best_count:])
    rows += sum(min(best_length, prospects[index].max_tokens) for index in asking)
    further_ms = token_ms + step_ms(rows + best_count) - step_ms(rows)
    acceptance = sum(prospects[index].acceptance for index in asking) / best_count
    min_survival = min(1.0, best_rate * further_ms / (best_count * acceptance))
    spare_ms = affordable_ms - sum(prospects[index].start_ms for index in asking) - best_length * token_ms
    spare_ms -= step_ms(rows) - plain_ms
    length = best_length
    sure = 1 - (1 - acceptance) / 4  # tokens of the drafter's best classes
    while (
        length < longest
        and sure**length > max(min_survival, NEGLIGIBLE_SURVIVAL)
        and rows + best_count - num_sequences <= room
        and spare_ms >= further_ms
    ):
        length += 1
        rows += best_count
        spare_ms -= further_ms
    asked = [0] * num_sequences
    for index in asking:
        asked[index] = min(length, prospects[index].max_tokens)
    return DraftPlan(tuple(asked), min_survival, best_rate)


def _start_charge(prospect: Prospect, token_ms: float, tokens: float) -> float:
    """What of `start_ms` a round that commits `tokens` has to bear.

    Catching up with a token or so comes back every round and counts in full; reading a prompt is an investment,
    borne by the rest of the sequence alike.
    """
    recurring = min(prospect.start_ms, token_ms)
    invested = prospect.start_ms - recurring
    return recurring + invested * min(1.0, tokens / max(1.0, prospect.remaining_tokens))


def mean_accepted(gamma: int, acceptance: float) -> float:
    """Accepted tokens of a draft of `gamma`, each accepted with this chance if those before it are."""
    return sum(acceptance**length for length in range(1, gamma + 1))


def accepted_share_speedup(gamma: float, beta: float) -> float:
    """S = (gamma + 1) / (1 + gamma (1 - beta)): the speed-up if drafting and verifying cost nothing beyond one
    step and every rejected token costs a step of its own. `beta` is the accepted share of the drafted tokens."""
    return (gamma + 1) / (1 + gamma * (1 - beta))


def leviathan_speedup(gamma: int, alpha: float, cost_ratio: float, verify_ratio: float = 1.0) -> float:
    """Expected speed-up after Leviathan et al. (arXiv 2211.17192, theorem 3.8):
    (1 - alpha^(gamma+1)) / ((1 - alpha) (gamma c + v)).

    `alpha` is the chance of each token given those before it, `cost_ratio` c the draft model's step over the
    verifier's. `verify_ratio` v is the step that verifies gamma + 1 tokens over the plain one; the paper takes 1.
    """
    return (1 + mean_accepted(gamma, alpha)) / (gamma * cost_ratio + verify_ratio)
