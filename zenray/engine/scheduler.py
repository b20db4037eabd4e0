"""Who computes how many tokens in the next step. The policy is `Scheduler.plan`, top to bottom."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from zenray.config import EngineSettings
from zenray.engine.blocks import BlockPool
from zenray.engine.request import Priority
from zenray.engine.sequence import Sequence

MAX_PROMPT_LOGPROB_ROWS = 64
"""Tokens per step of a prompt whose log-probabilities are wanted: each needs a vocabulary-wide row."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """`num_tokens` pending tokens of a sequence are computed in this step, and behind them the first
    `num_draft` tokens of its draft; the blocks of all are in its table."""

    sequence: Sequence
    num_tokens: int
    num_draft: int = 0


def _order(sequence: Sequence) -> tuple[int, int, int]:
    return sequence.order


class Scheduler:
    """Continuous batching with chunked prefill, two priorities and preemption by recomputation.

    `running` sequences hold blocks, `waiting` ones hold none; both are kept in (priority, arrival) order.
    """

    def __init__(self, pool: BlockPool, settings: EngineSettings) -> None:
        self._pool = pool
        self._settings = settings
        self.running: list[Sequence] = []
        self.waiting: list[Sequence] = []
        self.num_preemptions = 0

    def add(self, sequence: Sequence) -> None:
        bisect.insort(self.waiting, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is, and gives its blocks back."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._drop_blocks(sequence)

    @property
    def draftable(self) -> list[Sequence]:
        """The sequences whose next step produces a token and that a draft may help: the most urgent ones that decode.
        Batch sequences get drafts only among themselves."""
        return [sequence for sequence in self._urgent(self.running) if sequence.is_decoding]

    @property
    def draft_room(self) -> int:
        """Draft tokens the next step takes. While prompts as urgent wait to be computed they get half of what the
        decoding sequences leave, so that drafts delay no first token for long."""
        num_decoding = len(self.draftable)
        spare = max(0, self._step_budget - num_decoding)
        prompts_wait = self._urgent(self.waiting) or num_decoding < len(self._urgent(self.running))
        return spare // 2 if prompts_wait else spare

    @property
    def _has_interactive(self) -> bool:
        return any(queue and queue[0].priority is Priority.INTERACTIVE for queue in (self.running, self.waiting))

    def _urgent(self, sequences: list[Sequence]) -> list[Sequence]:
        """Those of `sequences` that have the most urgent priority of all that are here."""
        if not self._has_interactive:
            return sequences
        return [sequence for sequence in sequences if sequence.priority is Priority.INTERACTIVE]

    @property
    def _step_budget(self) -> int:
        """Tokens of a step: how long those may wait whom it must not stall."""
        if not self._has_interactive:
            budget = min(self._settings.batch_step_tokens, self._settings.max_step_tokens)
        elif self.draftable:
            budget = min(self._settings.mixed_step_tokens, self._settings.max_step_tokens)
        else:
            budget = self._settings.max_step_tokens
        return max(budget, min(len(self.running), self._settings.max_step_tokens))

    def plan(self) -> list[Scheduled]:
        """The next step.

        Interactive before batch; within a priority decodes first (one token each, so no stream stalls),
        then prefills in order of arrival, then newcomers. The token budget bounds the step; it is
        smaller while somebody decodes, and beside interactive sequences batch ones share a few tokens.
        A sequence that finds no block preempts a later one. A draft takes tokens beside its sequence's own
        (at most `draft_room` in all), blocks only when nobody else needs them.
        """
        plan: list[Scheduled] = []
        budget = self._step_budget
        batch_budget = self._settings.batch_tokens_beside_interactive if self._has_interactive else budget
        for sequence in self.running:
            self._drop_draft_blocks(sequence)
        for sequence in list(self._candidates()):
            if sequence.priority is Priority.BATCH:
                budget = min(budget, batch_budget)
            if budget == 0:
                break
            num_tokens = self._make_runnable(sequence, budget, plan)
            if num_tokens:
                num_draft = min(len(sequence.draft.token_ids) if sequence.draft else 0, budget - num_tokens)
                plan.append(Scheduled(sequence, num_tokens, num_draft))
                budget -= num_tokens + num_draft
        return [self._with_draft_blocks(scheduled) for scheduled in plan]

    def _with_draft_blocks(self, scheduled: Scheduled) -> Scheduled:
        """Keeps as much of the sequence's draft as finds blocks that nobody else was promised."""
        sequence = scheduled.sequence
        if not scheduled.num_draft:
            return scheduled
        end = sequence.num_computed + scheduled.num_tokens
        wanted = self._pool.blocks_for(end + scheduled.num_draft) - len(sequence.block_ids)
        sequence.block_ids += self._pool.allocate(max(0, min(wanted, self._available_beside([]))), sequence.priority)
        num_draft = min(scheduled.num_draft, len(sequence.block_ids) * self._pool.block_size - end)
        return Scheduled(sequence, scheduled.num_tokens, num_draft)

    def _drop_draft_blocks(self, sequence: Sequence) -> None:
        """Gives back the blocks that only rejected draft tokens were written to."""
        kept = self._pool.blocks_for(len(sequence.token_ids))
        self._pool.release(sequence.block_ids[kept:])
        del sequence.block_ids[kept:]

    def _candidates(self) -> Iterator[Sequence]:
        for priority in sorted({sequence.order[0] for sequence in self.running + self.waiting}):
            running = [sequence for sequence in self.running if sequence.order[0] == priority]
            yield from (sequence for sequence in running if sequence.is_decoding)
            yield from (sequence for sequence in running if not sequence.is_decoding)
            yield from (sequence for sequence in self.waiting if sequence.order[0] == priority)

    def _make_runnable(self, sequence: Sequence, budget: int, plan: list[Scheduled]) -> int:
        """Gives the sequence a place and blocks for its next tokens; how many, 0 if it must wait."""
        if sequence in self.waiting and not self._admit(sequence, plan):
            return 0
        num_tokens = min(sequence.num_pending, budget)
        if sequence.wants_prompt_logprobs:
            num_tokens = min(num_tokens, MAX_PROMPT_LOGPROB_ROWS)
        missing = self._pool.blocks_for(sequence.num_computed + num_tokens) - len(sequence.block_ids)
        while missing > self._pool.num_available:
            victim = self._victim(sequence, plan, same_priority=True)
            if victim is None:
                return 0
            self._preempt(victim)
        sequence.block_ids += self._pool.allocate(max(0, missing), sequence.priority)
        return num_tokens

    def _admit(self, sequence: Sequence, plan: list[Scheduled]) -> bool:
        """Moves a waiting sequence to running if there is a place and room for all its pending tokens.

        Room is asked for as a whole, so that a prompt does not start only to be preempted halfway; and
        only sequences of a lower priority are preempted for it, so that newcomers do not thrash.
        """
        hashes = list(sequence.findable_hashes(self._pool.block_size)) if self._settings.prefix_cache else []
        needed = self._pool.blocks_for(len(sequence.token_ids)) - self._pool.count_cached(hashes)
        while len(self.running) >= self._settings.max_running_sequences or needed > self._available_beside(hashes):
            victim = self._victim(sequence, plan, same_priority=False)
            if victim is None:
                return False
            self._preempt(victim)
            needed = self._pool.blocks_for(len(sequence.token_ids)) - self._pool.count_cached(hashes)
        sequence.block_ids = self._pool.acquire_cached(hashes, sequence.priority)
        sequence.num_computed = len(sequence.block_ids) * self._pool.block_size
        if sequence.num_cached is None:
            sequence.num_cached = sequence.num_computed
        self.waiting.remove(sequence)
        bisect.insort(self.running, sequence, key=_order)
        return True

    def _available_beside(self, hashes: list[bytes]) -> int:
        """Blocks left once the cached prefix is taken and the running prefills have what they need."""
        promised = sum(
            max(0, self._pool.blocks_for(len(other.token_ids)) - len(other.block_ids)) for other in self.running
        )
        return self._pool.num_available - self._pool.count_idle(hashes) - promised

    def _victim(self, sequence: Sequence, plan: list[Scheduled], same_priority: bool) -> Sequence | None:
        """The last running sequence behind this one that the plan does not use yet."""
        planned = {id(scheduled.sequence) for scheduled in plan}
        for other in reversed(self.running):
            behind = other.order > sequence.order if same_priority else other.order[0] > sequence.order[0]
            if behind and id(other) not in planned:
                return other
        return None

    def _preempt(self, sequence: Sequence) -> None:
        """Back to waiting, everything to be recomputed (its published blocks may still be found)."""
        self.running.remove(sequence)
        self._drop_blocks(sequence)
        self.num_preemptions += 1
        self.add(sequence)

    def _drop_blocks(self, sequence: Sequence) -> None:
        self._pool.release(sequence.block_ids)
        sequence.block_ids = []
        sequence.num_computed = 0
        sequence.draft = None
