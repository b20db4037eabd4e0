"""Whom a drafter that costs time should draft for, and how far: decided before there is a draft to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from zenray.speculative.gamma import StepMs, choose_lengths


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a costly drafter may hope for in one sequence of the batch.

    `acceptance` is the chance of each of its tokens. It may draft `max_tokens`; 0 says it cannot. `start_ms` comes
    before the first token and lasts for `lasting_tokens` of the sequence, each of which bears its part.
    `other_survivals` are those of the draft that the sequence has anyway, empty for none.
    """

    acceptance: float
    max_tokens: int
    start_ms: float
    lasting_tokens: float
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
    """The plan of most tokens per millisecond; None when the round is faster without the drafter.

    `token_ms` is each further token of the whole batch: the drafter works for all asking sequences at once, so
    they are taken in order of acceptance, as many as raise the rate. No plan may lose more than `affordable_ms`
    against a plain step if everything is rejected.

    The drafter sees how sure it is of a token, the plan does not. So it is asked for as many tokens as were best if
    it were surer than usual, and stops by the rule of optimal stopping: a further token is worth it while its
    survival is above the rate times what it costs, to draft and to verify.
    """
    num_sequences = len(prospects)
    others = choose_lengths([prospect.other_survivals for prospect in prospects], step_ms, room)
    other_tokens = [
        1 + sum(prospect.other_survivals[:length]) for prospect, length in zip(prospects, others, strict=True)
    ]
    order = [index for index, prospect in enumerate(prospects) if prospect.max_tokens > 0]
    order.sort(key=lambda index: (-prospects[index].acceptance, prospects[index].start_ms))
    least_rate = sum(other_tokens) / step_ms(num_sequences + sum(others))
    best = _Best(least_rate, 0)
    asking: list[int] = []
    longest = _longest([prospects[index] for index in order], least_rate * token_ms)
    limits = _Limits(num_sequences, room, step_ms(num_sequences) + affordable_ms)
    expected = _Expected(sum(other_tokens), num_sequences + sum(others), longest)
    for count, index in enumerate(order, start=1):
        expected.move_in(prospects[index], other_tokens[index], others[index])
        found = expected.best_length(token_ms, step_ms, limits)
        if found.rate > best.rate:
            best, asking = found, order[:count]
    if not asking:
        return None

    acceptance = sum(prospects[index].acceptance for index in asking) / len(asking)
    surer = [replace(prospects[index], acceptance=_surer(prospects[index].acceptance)) for index in asking]
    outside = [index for index in range(num_sequences) if index not in asking]
    hoped = _Expected(
        sum(other_tokens[index] for index in outside),
        sum(1 + others[index] for index in outside),
        _longest(surer, best.rate * token_ms),
    )
    for prospect in surer:
        hoped.move_in(prospect, 0.0, -1)
    longest = max(best.length, hoped.best_length(token_ms, step_ms, limits).length)
    rows = num_sequences + sum(others[index] for index in outside)
    verify_ms = (step_ms(rows + longest * len(asking)) - step_ms(rows)) / longest
    worthwhile = best.rate * (token_ms + verify_ms) / (len(asking) * acceptance)
    asked = [0] * num_sequences
    for index in asking:
        asked[index] = min(longest, prospects[index].max_tokens)
    return DraftPlan(tuple(asked), min(worthwhile, acceptance ** (best.length - 1)), best.rate)


@dataclass(frozen=True, slots=True)
class _Best:
    rate: float
    length: int


@dataclass(frozen=True, slots=True)
class _Limits:
    """`most_ms`: the longest a round may take."""

    num_sequences: int
    room: int
    most_ms: float


class _Expected:
    """A round by the length of its costly drafts: expected tokens, rows, and the share of starting to be borne."""

    def __init__(self, tokens: float, rows: int, longest: int) -> None:
        self._tokens = [tokens] * (longest + 1)
        self._rows = [rows] * (longest + 1)
        self._start_ms = [0.0] * (longest + 1)
        self._whole_start_ms = 0.0

    def move_in(self, prospect: Prospect, other_tokens: float, num_other: int) -> None:
        """The drafter works for this sequence, too, in place of its other draft."""
        self._whole_start_ms += prospect.start_ms
        tokens, survival = 1.0, 1.0
        for length in range(1, len(self._tokens)):
            if length <= prospect.max_tokens:
                survival *= prospect.acceptance
                tokens += survival
            self._tokens[length] += tokens - other_tokens
            self._rows[length] += min(length, prospect.max_tokens) - num_other
            self._start_ms[length] += prospect.start_ms * min(1.0, tokens / max(1.0, prospect.lasting_tokens))

    def best_length(self, token_ms: float, step_ms: StepMs, limits: _Limits) -> _Best:
        """The draft length of the highest rate within the limits, 0 when even one token is too much."""
        best = _Best(0.0, 0)
        for length in range(1, len(self._tokens)):
            verify_ms = step_ms(self._rows[length])
            if self._rows[length] - limits.num_sequences > limits.room:
                break
            if self._whole_start_ms + length * token_ms + verify_ms > limits.most_ms:
                break
            rate = self._tokens[length] / (self._start_ms[length] + length * token_ms + verify_ms)
            if rate > best.rate:
                best = _Best(rate, length)
        return best


def _surer(acceptance: float) -> float:
    """Of a drafter's better tokens: a quarter of the errors."""
    return 1 - (1 - acceptance) / 4


def _longest(prospects: Sequence[Prospect], least_tokens: float) -> int:
    """No draft is worth more tokens than this: those beyond gain less than `least_tokens`, which plain decoding
    makes in the time of drafting one more."""
    most = max((prospect.max_tokens for prospect in prospects), default=0)
    acceptance = max((prospect.acceptance for prospect in prospects), default=0.0)
    if least_tokens <= 0 or not 0 < acceptance < 1 or least_tokens >= len(prospects) * acceptance:
        return most if least_tokens <= 0 or acceptance >= 1 else min(most, 1)
    return min(most, max(1, math.floor(math.log(least_tokens / len(prospects)) / math.log(acceptance))))
