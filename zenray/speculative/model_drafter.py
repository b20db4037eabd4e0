"""The draft model in the verifier's own process: it drafts between two steps of the engine, for all at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

import torch

from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.model.load import LoadedModel
from zenray.speculative.chains import Chain
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.drafter import Ask, DraftCost, DrafterStatus

IN_SYNC_TOKENS = 2
"""After full acceptance the last draft token and the bonus token are pending: both ride in the first forward."""
_SMOOTHING = 0.1
_PROBE_BATCHES = (1, 8)
_PROBE_PROMPT_TOKENS = 64
_PROBE_STEPS = 3


@dataclass(slots=True)
class _Drafting:
    """A draft being made."""

    ask: Ask
    chain: Chain
    token_ids: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    survival: float = 1.0

    def take(self, token_id: int, confidence: int) -> None:
        self.token_ids.append(token_id)
        self.classes.append(confidence)
        self.survival *= self.ask.probability(confidence)


class ModelDrafter:
    """A `Drafter` over a `DraftModel` with the vocabulary of `verifier`.

    Costs are measured once at the start and followed from then on. `clock` is in seconds.
    """

    name = "draft_model"

    def __init__(
        self, draft: DraftModel, verifier: LoadedModel, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._draft = draft
        self._end_token_ids = verifier.tokenizer.eos_token_ids
        self._vocab_size = verifier.config.vocab_size
        self._clock = clock
        self._chains: dict[Sequence, Chain] = {}
        self._step_ms: dict[int, float] = {}
        self._prefill_ms = 0.0  # per token
        self._probe()

    def opened(self, sequence: Sequence) -> None:
        if max(sequence.token_ids) >= self._draft.model.config.vocab_size:
            return  # an id that only the verifier's wider embedding has
        sampling = sequence.request.sampling
        self._chains[sequence] = self._draft.open(sequence.token_ids, sampling, sequence.seed, sequence.num_prompt)

    def cost(self, sequence: Sequence, batch_size: int) -> DraftCost | None:
        """The catch-up by measured prefill, a token by measured steps of about that batch size."""
        if sequence not in self._chains or len(sequence.token_ids) >= self._draft.max_tokens:
            return None
        num_behind = self._draft.count_pending(self._synced(sequence)) - IN_SYNC_TOKENS
        return DraftCost(start_ms=max(0, num_behind) * self._prefill_ms, token_ms=self._expected_step_ms(batch_size))

    def offer(self, asks: Ordered[Ask]) -> list[Draft | None]:
        """Token after token for all sequences in one forward each; a sequence leaves when it has its tokens,
        when the next one is unlikely to be reached, or at the end of the text."""
        drafts = [_Drafting(ask, self._synced(ask.sequence)) for ask in asks]
        active = drafts
        while active:
            num_pending = sum(self._draft.count_pending(draft.chain) for draft in active)
            start_s = self._clock()
            guesses = self._draft.extend([draft.chain for draft in active])
            self._learn(len(active), num_pending, (self._clock() - start_s) * 1e3)
            going_on = []
            for draft, guess in zip(active, guesses, strict=True):
                # The draft's embedding may be padded further than the verifier's: ids beyond mean nothing to it.
                if guess is not None and guess.token_id < self._vocab_size:
                    draft.take(guess.token_id, guess.confidence)
                    if self._goes_on(draft):
                        going_on.append(draft)
            active = going_on
        return [
            Draft(self.name, tuple(draft.token_ids), tuple(draft.classes)) if draft.token_ids else None
            for draft in drafts
        ]

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor) -> None:
        """Nothing to learn: what was committed is read with the next draft."""

    def closed(self, sequence: Sequence) -> None:
        chain = self._chains.pop(sequence, None)
        if chain is not None:
            self._draft.close(chain)

    def status(self) -> DrafterStatus:
        return DrafterStatus()

    def shutdown(self) -> None:
        while self._chains:
            self._draft.close(self._chains.popitem()[1])

    def _synced(self, sequence: Sequence) -> Chain:
        chain = self._chains[sequence]
        # A sequence only grows: of the same length, the committed tokens are the same.
        if chain.num_committed != len(sequence.token_ids) or len(chain.token_ids) != len(sequence.token_ids):
            self._draft.sync(chain, sequence.token_ids)
        return chain

    def _goes_on(self, draft: _Drafting) -> bool:
        ask, limits = draft.ask, draft.ask.sequence.request.limits
        if len(draft.token_ids) >= ask.max_tokens or draft.survival < ask.min_survival:
            return False
        last = draft.token_ids[-1]
        ends = last in limits.stop_token_ids or (last in self._end_token_ids and not limits.ignore_eos)
        return not ends

    def _expected_step_ms(self, batch_size: int) -> float:
        """Known sizes by measurement, others on the line through their neighbours."""
        known = self._step_ms
        if batch_size in known:
            return known[batch_size]
        sizes = sorted(known)
        below = max((size for size in sizes if size < batch_size), default=sizes[0])
        above = min((size for size in sizes if size > batch_size), default=sizes[-1])
        if below == above or above < batch_size:
            below, above = sizes[0], sizes[-1]
        slope = max(0.0, (known[above] - known[below]) / (above - below))
        return known[below] + slope * (batch_size - below)

    def _learn(self, batch_size: int, num_pending: int, took_ms: float) -> None:
        """One forward: a step if everybody was in sync, else a step and a catch-up."""
        num_behind = num_pending - IN_SYNC_TOKENS * batch_size
        if num_behind <= 0:
            known = self._step_ms.setdefault(batch_size, took_ms)
            self._step_ms[batch_size] = known + _SMOOTHING * (took_ms - known)
        elif num_behind >= _PROBE_PROMPT_TOKENS:  # fewer tell more of the clock than of the cost
            token_ms = max(0.0, took_ms - self._expected_step_ms(batch_size)) / num_behind
            self._prefill_ms += _SMOOTHING * (token_ms - self._prefill_ms)

    def _probe(self) -> None:
        """Measures a catch-up and steps at a few batch sizes, the first of each to warm up."""
        prompt = [0] * min(_PROBE_PROMPT_TOKENS, self._draft.max_tokens // 2)
        chains: list[Chain] = []
        for batch_size in _PROBE_BATCHES:
            while len(chains) < batch_size:
                chains.append(self._draft.open([1] if chains else prompt))
            start_s = self._clock()
            self._draft.extend(chains)
            catch_up_ms = (self._clock() - start_s) * 1e3
            times_ms = []
            for _ in range(_PROBE_STEPS):
                start_s = self._clock()
                self._draft.extend(chains)
                times_ms.append((self._clock() - start_s) * 1e3)
            self._step_ms[batch_size] = sorted(times_ms)[len(times_ms) // 2]
            if batch_size == 1:
                self._prefill_ms = max(0.0, catch_up_ms - self._step_ms[1]) / len(prompt)
        for chain in chains:
            self._draft.close(chain)
        self._draft.clear_cache()
