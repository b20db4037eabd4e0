"""Brings drafters and policy together: what the engine calls each step."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import TypeVar

import torch

from zenray.engine.request import DrafterLoad
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.speculative.drafter import Ask, Drafter
from zenray.speculative.gamma_policy import Candidate, GammaPolicy, Key, PlannedAsk

_R = TypeVar("_R")

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tally:
    """What became of one drafter's drafts since start."""

    rounds: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    draft_ms: float = 0.0


class DraftingSpeculator:
    """Asks drafters as the policy says, and tells both what came of it.

    A drafter that raises is shut down and left out from then on: it can cost speed, never a request.
    """

    def __init__(
        self, drafters: Iterable[Drafter], policy: GammaPolicy, clock_s: Callable[[], float] = time.perf_counter
    ) -> None:
        self._drafters = list(drafters)
        self._policy = policy
        self._clock_s = clock_s
        self._key_of: dict[Sequence, Key] = {}
        self._new_keys = itertools.count()
        self._proposed: set[Sequence] = set()
        self._draft_ms = 0.0
        self._tallies = {drafter.name: _Tally() for drafter in self._drafters}

    def opened(self, sequence: Sequence) -> None:
        self._key_of[sequence] = next(self._new_keys)
        for drafter in list(self._drafters):
            self._try(drafter, drafter.opened, sequence)

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        start_s = self._clock_s()
        self._proposed = set(sequences)
        by_key = {self._key_of[sequence]: sequence for sequence in sequences}
        keys = list(by_key)
        offers: dict[Key, list[Draft]] = {}
        candidates = self._candidates(by_key)
        self._collect(self._policy.ask_free(candidates), by_key, offers)
        self._collect(self._policy.ask_costly(candidates, offers, keys, room), by_key, offers)
        self._draft_ms = (self._clock_s() - start_s) * 1000
        chosen = self._policy.choose(offers, keys, room, self._draft_ms)
        for key, sequence in by_key.items():
            sequence.draft = chosen.get(key)

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool) -> None:
        committed: dict[Key, Ordered[int]] = {}
        num_drafted = 0
        for done in rounds:
            if done.sequence in self._proposed:
                committed[self._key_of[done.sequence]] = done.sequence.token_ids[-done.num_committed :]
            if done.draft is not None:
                tally = self._tallies[done.draft.drafter]
                tally.rounds += 1
                tally.drafted_tokens += len(done.draft.token_ids)
                tally.accepted_tokens += done.num_accepted
                num_drafted += len(done.draft.token_ids)
        self._policy.record(committed, num_drafted, self._draft_ms, step_ms, is_pure_decode)
        self._proposed = set()
        self._draft_ms = 0.0
        for drafter in list(self._drafters):
            self._try(drafter, drafter.observe, rounds, logits_RV)

    def closed(self, sequence: Sequence) -> None:
        self._policy.closed(self._key_of.pop(sequence))
        for drafter in list(self._drafters):
            self._try(drafter, drafter.closed, sequence)

    def load(self) -> tuple[DrafterLoad, ...]:
        loads = []
        for drafter in list(self._drafters):
            tally, status = self._tallies[drafter.name], drafter.status()
            loads.append(
                DrafterLoad(
                    drafter=drafter.name,
                    rounds=tally.rounds,
                    drafted_tokens=tally.drafted_tokens,
                    accepted_tokens=tally.accepted_tokens,
                    timeouts=status.timeouts,
                    draft_ms=tally.draft_ms,
                    queue_age_ms=status.queue_age_ms,
                    replicas=status.replicas,
                )
            )
        return tuple(loads)

    def shutdown(self) -> None:
        for drafter in list(self._drafters):
            self._try(drafter, drafter.shutdown)

    def _candidates(self, by_key: dict[Key, Sequence]) -> list[Candidate]:
        found = []
        for drafter in list(self._drafters):
            for key, sequence in by_key.items():
                if sequence.max_draft > 0:
                    cost = self._try(drafter, drafter.cost, sequence, len(by_key))
                    if cost is not None:
                        remaining = sequence.max_draft + 1
                        found.append(Candidate(key, drafter.name, sequence.max_draft, remaining, cost))
        return found

    def _collect(
        self, planned: Ordered[PlannedAsk], by_key: dict[Key, Sequence], offers: dict[Key, list[Draft]]
    ) -> None:
        """Asks each drafter once for all its sequences and adds what it offers."""
        for drafter in list(self._drafters):
            own = [ask for ask in planned if ask.drafter == drafter.name]
            if not own:
                continue
            start_s = self._clock_s()
            asks = [
                Ask(by_key[ask.key], ask.max_tokens, ask.min_survival, self._policy.probability(drafter.name, ask.key))
                for ask in own
            ]
            drafts = self._try(drafter, drafter.offer, asks) or ()
            for ask, draft in zip(own, drafts, strict=False):
                if draft is not None and draft.token_ids:
                    # A drafter that offers more than it was asked for harms nobody.
                    offers.setdefault(ask.key, []).append(draft.first(ask.max_tokens))
            self._tallies[drafter.name].draft_ms += (self._clock_s() - start_s) * 1000

    def _try(self, drafter: Drafter, call: Callable[..., _R], *args: object) -> _R | None:
        try:
            return call(*args)
        except Exception:
            _logger.exception("drafter %s failed and is left out", drafter.name)
            if drafter in self._drafters:
                self._drafters.remove(drafter)
                self._try(drafter, drafter.shutdown)
            return None
