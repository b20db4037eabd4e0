"""The policy of speculation: whom to ask for drafts, how far, and how much of them to verify.

Knows neither engine nor drafters, only names, keys and numbers. A round goes: `ask_free`, `ask_costly`, `choose`,
then, when the step is over, `record`. Estimates (`acceptance`, `step_cost`) decide what is worth its time (`gamma`);
an allowance in measured time bounds what they may lose (`allowance`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from zenray.engine.speculation import Draft
from zenray.speculative.acceptance import ANY_CLASS, AcceptanceBook, count_matching
from zenray.speculative.allowance import DRAFT_START_STEPS, VERIFY_START_STEPS, Allowance, ProbeBudget
from zenray.speculative.draft_plan import DraftPlan, Prospect, plan_drafts
from zenray.speculative.drafter import DraftCost
from zenray.speculative.gamma import NEGLIGIBLE_SURVIVAL, StepMs, choose_lengths, draft_gain, mean_accepted
from zenray.speculative.step_cost import StepCost

Key = int
"""Of a sequence, the caller's choice; the same from its first round to `closed`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A drafter that could draft for a sequence now, at this cost.

    At most `max_tokens` (at least 1) are of use. `remaining_tokens` is the most the sequence may still produce.
    """

    key: Key
    drafter: str
    max_tokens: int
    remaining_tokens: int
    cost: DraftCost

    @property
    def num_free(self) -> int:
        """Tokens to be had for nothing: all of a drafter without costs, else what is ready."""
        if self.cost.start_ms == 0 and self.cost.token_ms == 0:
            return self.max_tokens
        return min(self.cost.num_ready, self.max_tokens)


@dataclass(frozen=True, slots=True)
class PlannedAsk:
    """Ask this drafter for at most `max_tokens`, less once their survival falls below `min_survival`."""

    key: Key
    drafter: str
    max_tokens: int
    min_survival: float


@dataclass(slots=True)
class _Progress:
    """Tokens a sequence committed in its rounds so far, and how many those were when each drafter last drafted."""

    num_tokens: int = 0
    drafted_at: dict[str, int] = field(default_factory=dict)


RELIED_ON = 1 / 3
"""Part of the tokens still to come that reading a prompt may count on. How long a sequence goes on, and how much of it
will be copies, is known least when its prompt is read: relying on all, holes of 64 tokens came at 1.7 times plain
decoding with a draft model beside suffix lookup, and at 3.1 times without it."""

Offers = Mapping[Key, Sequence[Draft]]
"""The drafts made for each sequence; sequences without any may be missing."""


class GammaPolicy:
    """Holds what was learned: acceptance, the correction of the step cost, what may still be lost.

    `gamma` "auto" maximises expected tokens per millisecond with at most `max_gamma` draft tokens a sequence. A
    number asks for exactly so many every round, whatever they cost.
    """

    def __init__(self, step_cost: StepCost, gamma: int | str = "auto", max_gamma: int = 64) -> None:
        self.book = AcceptanceBook()
        self.draft_allowance = Allowance(DRAFT_START_STEPS)
        self.verify_allowance = Allowance(VERIFY_START_STEPS)
        self._probes = ProbeBudget()
        self._step_cost = step_cost
        self._fixed_gamma = None if isinstance(gamma, str) else gamma
        self._max_gamma = max_gamma if isinstance(gamma, str) else gamma
        self._offers: Offers = {}
        self._probed: tuple[str, Key] | None = None
        self._progress: dict[Key, _Progress] = {}
        self._mean_length: float | None = None

    def probability(self, drafter: str, key: Key) -> Callable[[int], float]:
        """For `Ask.probability`: the chance that a token of a class is accepted in this sequence."""
        return lambda class_: self.book.probability(drafter, class_, key)

    def ask_free(self, candidates: Sequence[Candidate]) -> list[PlannedAsk]:
        """Everybody who drafts for nothing is asked: which of the drafts to verify is decided by `choose`."""
        least = NEGLIGIBLE_SURVIVAL if self._fixed_gamma is None else 0.0
        asks = [
            PlannedAsk(candidate.key, candidate.drafter, min(candidate.num_free, self._max_gamma), least)
            for candidate in candidates
        ]
        return [ask for ask in asks if ask.max_tokens > 0]

    def ask_costly(
        self, candidates: Sequence[Candidate], offers: Offers, keys: Sequence[Key], room: int
    ) -> list[PlannedAsk]:
        """Whom to ask of those who cost time, given what the free ones offered. At most one drafter a round.

        `keys` are all sequences of the step, `room` bounds its draft tokens.
        """
        costly: dict[str, dict[Key, Candidate]] = {}
        for candidate in candidates:
            if candidate.num_free == 0 and self._max_gamma > 0:
                costly.setdefault(candidate.drafter, {})[candidate.key] = candidate
        if not costly:
            return []
        if self._fixed_gamma is not None:
            return self._ask_fixed(costly, offers)
        step_ms = self._step_cost.step_ms(len(keys))
        affordable_ms = self.draft_allowance.balance_steps * step_ms(len(keys))
        best: tuple[DraftPlan, str] | None = None
        for drafter, by_key in costly.items():
            prospects = [self._prospect(drafter, by_key.get(key), key, offers, step_ms, len(keys)) for key in keys]
            token_ms = max(candidate.cost.token_ms for candidate in by_key.values())
            plan = plan_drafts(prospects, token_ms, step_ms, room, affordable_ms)
            if plan is not None and (best is None or plan.tokens_per_ms > best[0].tokens_per_ms):
                best = plan, drafter
        if best is None:
            return self._probe(costly, step_ms(len(keys)), affordable_ms)
        plan, drafter = best
        return [
            PlannedAsk(key, drafter, max_tokens, plan.min_survival)
            for key, max_tokens in zip(keys, plan.max_tokens, strict=True)
            if max_tokens > 0
        ]

    def choose(self, offers: Offers, keys: Sequence[Key], room: int, draft_ms: float = 0.0) -> dict[Key, Draft]:
        """The drafts to verify, cut to length. `draft_ms` was spent on making the offers."""
        self._offers = offers
        num_sequences = len(keys)
        step_ms = self._step_cost.step_ms(num_sequences)
        best = {key: self._best_offer(key, offers, step_ms, num_sequences) for key in keys}
        if self._fixed_gamma is not None:
            lengths = _in_turn([len(best[key][1]) for key in keys], room)
        else:
            plain_ms = step_ms(num_sequences)
            bearable_ms = plain_ms * (1 + max(0.0, self.verify_allowance.balance_steps))
            longest = min(room, sum(len(survivals) for _, survivals in best.values()))
            while longest > 0 and step_ms(num_sequences + longest) > bearable_ms:
                longest -= 1
            lengths = choose_lengths([best[key][1] for key in keys], step_ms, longest, draft_ms)
        chosen = {}
        for key, length in zip(keys, lengths, strict=True):
            draft = best[key][0]
            if draft is not None and length > 0:
                chosen[key] = draft.first(length)
        return chosen

    def record(
        self,
        committed: Mapping[Key, Sequence[int]],
        num_drafted: int,
        draft_ms: float,
        step_ms: float,
        is_pure_decode: bool,
    ) -> None:
        """A step is over: what each sequence committed, `num_drafted` draft tokens verified.

        Every draft offered for the step is judged by what was committed, also those not chosen and the tokens cut
        off: the verifier's own tokens tell whether they would have been right.
        """
        num_sequences = len(committed)
        for key, token_ids in committed.items():
            for draft in self._offers.get(key, ()):
                num_accepted = count_matching(draft.token_ids, token_ids)
                self.book.record(draft.drafter, draft.classes, num_accepted, key, num_seen=len(token_ids))
                if (draft.drafter, key) == self._probed:
                    self._probes.judge(draft.drafter, num_accepted > 0)
            self.book.end_round(key)
            progress = self._progress.setdefault(key, _Progress())
            progress.drafted_at.update((draft.drafter, progress.num_tokens) for draft in self._offers.get(key, ()))
            progress.num_tokens += len(token_ids)
        self._offers, self._probed = {}, None
        if num_sequences == 0:
            return
        self._probes.end_step()
        if is_pure_decode:
            self._step_cost.correct(num_sequences, num_sequences + num_drafted, step_ms)
        self._settle(committed, num_sequences + num_drafted, draft_ms)

    def closed(self, key: Key) -> None:
        """The sequence is finished."""
        self.book.forget(key)
        length = self._progress.pop(key, _Progress()).num_tokens
        if length:
            mean = float(length) if self._mean_length is None else self._mean_length
            self._mean_length = mean + (length - mean) / 16

    def _settle(self, committed: Mapping[Key, Sequence[int]], rows: int, draft_ms: float) -> None:
        """What the step saved against plain decoding of the same tokens.

        The step's own time is taken from its cost as corrected by measurements: a single one is mostly noise.
        """
        num_sequences = len(committed)
        cost_ms = self._step_cost.step_ms(num_sequences)
        plain_ms = cost_ms(num_sequences)
        num_extra = sum(len(token_ids) for token_ids in committed.values()) - num_sequences
        saved_steps = num_extra / num_sequences
        self.draft_allowance.settle(saved_steps - draft_ms / plain_ms)
        self.verify_allowance.settle(saved_steps - (cost_ms(rows) - plain_ms) / plain_ms)

    def _best_offer(
        self, key: Key, offers: Offers, step_ms: StepMs, num_sequences: int
    ) -> tuple[Draft | None, list[float]]:
        """The sequence's best draft and its survivals; the one that gains most if it alone is verified."""
        best: tuple[Draft | None, list[float]] = None, []
        best_gain = -1.0
        for draft in offers.get(key, ()):
            survivals = self.book.survivals(draft.drafter, draft.classes[: self._max_gamma], key)
            gain = sum(survivals) if self._fixed_gamma is not None else draft_gain(survivals, step_ms, num_sequences)
            if gain > best_gain:
                best, best_gain = (draft, survivals), gain
        return best

    def _prospect(
        self,
        drafter: str,
        candidate: Candidate | None,
        key: Key,
        offers: Offers,
        step_ms: StepMs,
        num_sequences: int,
    ) -> Prospect:
        other_survivals = self._best_offer(key, offers, step_ms, num_sequences)[1]
        acceptance = self.book.probability(drafter, ANY_CLASS, key)
        if candidate is None:
            return Prospect(acceptance, 0, 0.0, 1.0, other_survivals)
        lasting = float(candidate.remaining_tokens)
        if self._mean_length is not None:  # lengths without memory: what is left is the mean, however much came
            lasting = min(lasting, self._mean_length)
        progress = self._progress.get(key)
        if progress is None or drafter not in progress.drafted_at:
            lasting *= RELIED_ON
        else:  # it fell behind once and will again
            lasting = min(lasting, progress.num_tokens - progress.drafted_at[drafter])
        max_tokens = min(candidate.max_tokens, self._max_gamma)
        return Prospect(acceptance, max_tokens, candidate.cost.start_ms, lasting, other_survivals)

    def _probe(
        self,
        costly: Mapping[str, Mapping[Key, Candidate]],
        plain_ms: float,
        affordable_ms: float,
    ) -> list[PlannedAsk]:
        """One token of a drafter that nobody expects to pay, when it is time to look again. It need not even be
        verified: the verifier's own token tells whether it is right."""
        for drafter, by_key in costly.items():
            candidate = min(by_key.values(), key=lambda candidate: candidate.cost.start_ms)
            cost_ms = candidate.cost.start_ms + candidate.cost.token_ms
            if cost_ms <= affordable_ms and self._probes.affords(drafter, cost_ms / plain_ms):
                self._probes.spend(cost_ms / plain_ms)
                self._probed = drafter, candidate.key
                return [PlannedAsk(candidate.key, drafter, 1, 1.0)]
        return []

    def _ask_fixed(self, costly: Mapping[str, Mapping[Key, Candidate]], offers: Offers) -> list[PlannedAsk]:
        """The full gamma of the costly drafter that is best for a sequence, unless a free offer promises more."""
        best: dict[Key, tuple[float, PlannedAsk]] = {}
        for drafter, by_key in costly.items():
            for key, candidate in by_key.items():
                max_tokens = min(candidate.max_tokens, self._max_gamma)
                promise = mean_accepted(max_tokens, self.book.probability(drafter, ANY_CLASS, key))
                offered = max(
                    (sum(self.book.survivals(draft.drafter, draft.classes, key)) for draft in offers.get(key, ())),
                    default=0.0,
                )
                if promise > max(offered, best[key][0] if key in best else 0.0):
                    best[key] = promise, PlannedAsk(key, drafter, max_tokens, 0.0)
        return [ask for _, ask in best.values()]


def _in_turn(wanted: Sequence[int], room: int) -> list[int]:
    """What each wants, the first ones first, until the room is used up."""
    lengths = []
    for number in wanted:
        lengths.append(min(number, max(0, room)))
        room -= lengths[-1]
    return lengths
