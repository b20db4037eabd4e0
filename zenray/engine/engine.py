"""The engine: requests in, events out. Its loop is schedule, run, commit.

`add` and `cancel` may be called from any thread; `step` by one. A request is known by the handle `add`
returns, so that clients' request ids need not be unique.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable

import torch

from zenray.config import EngineSettings
from zenray.engine.blocks import BlockPool
from zenray.engine.request import (
    Delta,
    EngineLoad,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Started,
    TokenLogprob,
)
from zenray.engine.runner import Runner
from zenray.engine.sampler import apply_penalties, choose_token, has_penalties, is_plain_greedy, token_logprobs
from zenray.engine.scheduler import Scheduled, Scheduler
from zenray.engine.sequence import Sequence
from zenray.errors import InvalidRequest, Overloaded
from zenray.model.load import LoadedModel

Events = list[tuple[int, GenerateEvent]]
"""Events of one step in order, each with the handle of its request."""


class Engine:
    """Continuous batching over one model.

    `context_length` caps the model's own. `max_sequence_tokens` is what one sequence can hold, prompt
    plus completion: the context or the whole block pool. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: EngineSettings,
        context_length: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.settings = settings
        self._clock = clock
        self._tokenizer = model.tokenizer
        config = model.decoder.config
        block_bytes = (
            2 * config.num_layers * config.num_kv_heads * config.head_dim
            * settings.block_size * model.decoder.dtype.itemsize
        )  # fmt: skip
        num_blocks = max(1, round(settings.kv_cache_mib * 2**20) // block_bytes)
        self.pool = BlockPool(num_blocks, settings.block_size, settings.prefix_cache)
        self.scheduler = Scheduler(self.pool, settings)
        self.runner = Runner(model.decoder, self.pool)
        longest = config.max_position_embeddings if context_length is None else context_length
        self.max_sequence_tokens = min(longest, config.max_position_embeddings, num_blocks * settings.block_size)

        self._lock = threading.Lock()
        self._inbox: list[Sequence] = []
        self._cancelled: set[int] = set()
        self._num_live = 0  # sequences admitted and not finished
        self._handles = itertools.count(1)
        self._siblings: dict[int, list[Sequence]] = {}  # choices 1.. wait for choice 0's prompt blocks
        self._open_choices: dict[int, int] = {}
        self._num_generated = self._num_prompt = self._num_cached = 0

    @property
    def has_work(self) -> bool:
        return self._num_live > 0

    def add(self, request: GenerateRequest) -> int:
        """Queues a request and returns its handle. Raises `Overloaded` when the queue is full and
        `InvalidRequest` when the sequence could never fit."""
        num_tokens = len(request.prompt_token_ids) + request.limits.max_tokens
        if not request.prompt_token_ids or num_tokens > self.max_sequence_tokens:
            raise InvalidRequest.of(
                "prompt_token_ids",
                f"{len(request.prompt_token_ids)} tokens with max_tokens {request.limits.max_tokens}",
                f"1 to {self.max_sequence_tokens} tokens of prompt plus completion",
            )
        count = request.sampling.n
        seed = secrets.randbits(64) if request.sampling.seed is None else request.sampling.seed
        with self._lock:
            capacity = self.settings.max_running_sequences + self.settings.max_waiting_sequences
            if self._num_live + count > capacity:
                raise Overloaded(f"{self._num_live} sequences are queued or running; this engine takes {capacity}")
            handle = next(self._handles)
            now_s = self._clock()
            self._inbox += [Sequence(handle, index, request, seed, now_s, handle) for index in range(count)]
            self._num_live += count
        return handle

    def cancel(self, handle: int) -> None:
        """Ends a request before the next step; unknown and finished handles are ignored."""
        with self._lock:
            self._cancelled.add(handle)

    def step(self) -> Events:
        """Schedules, runs and commits one step. Returns what happened; empty when there was nothing to do."""
        events: Events = []
        self._take_inbox(events)
        plan = self.scheduler.plan()
        assert plan or not (self.scheduler.running or self.scheduler.waiting), "somebody can always proceed"
        if plan:
            now_s = self._clock()
            for scheduled in plan:
                if scheduled.sequence.first_scheduled_s is None:
                    scheduled.sequence.first_scheduled_s = now_s
            rows_of = self._logit_rows(plan)
            logits_RV = self.runner.run(plan, [row for rows in rows_of for row in rows])
            self._commit(plan, rows_of, logits_RV, events)
        return events

    def load(self) -> EngineLoad:
        """Counters now. Reads without stopping a step; each number is exact, their moment may differ."""
        running = len(self.scheduler.running)
        return EngineLoad(
            running_sequences=running,
            waiting_sequences=max(0, self._num_live - running),
            max_waiting_sequences=self.settings.max_waiting_sequences,
            free_blocks=self.pool.num_free,
            cached_blocks=self.pool.num_cached,
            total_blocks=self.pool.num_blocks,
            generated_tokens=self._num_generated,
            prompt_tokens=self._num_prompt,
            cached_prompt_tokens=self._num_cached,
            preemptions=self.scheduler.num_preemptions,
        )

    def check_integrity(self) -> None:
        """Asserts that blocks and sequences agree; when idle, every block is free or cached."""
        self.pool.check_integrity(sequence.block_ids for sequence in self.scheduler.running)
        assert not any(sequence.block_ids for sequence in self.scheduler.waiting), "a waiting sequence holds blocks"
        if not self.has_work:
            assert not self.scheduler.running and not self.scheduler.waiting
            assert not self._siblings and not self._open_choices
            assert self.pool.num_available == self.pool.num_blocks

    def _take_inbox(self, events: Events) -> None:
        with self._lock:
            arrived, self._inbox = self._inbox, []
            cancelled, self._cancelled = self._cancelled, set()
        for sequence in arrived:
            if sequence.index == 0:
                self._open_choices[sequence.handle] = sequence.request.sampling.n
                self.scheduler.add(sequence)
            else:
                self._siblings.setdefault(sequence.handle, []).append(sequence)
        now_s = self._clock()
        for sequence in self._all_sequences():
            if sequence.handle in cancelled:
                self._finish(sequence, FinishReason.CANCELLED, now_s, events)
            elif sequence.deadline_s is not None and now_s >= sequence.deadline_s:
                self._finish(sequence, FinishReason.DEADLINE, now_s, events)

    def _all_sequences(self) -> list[Sequence]:
        siblings = [sequence for group in self._siblings.values() for sequence in group]
        return [*self.scheduler.running, *self.scheduler.waiting, *siblings]

    @staticmethod
    def _logit_rows(plan: list[Scheduled]) -> list[list[int]]:
        """Per plan entry, which of the step's rows need logits: the last pending token's, and every
        prompt token's that predicts a prompt token whose log-probability was asked for."""
        rows_of = []
        start = 0
        for scheduled in plan:
            sequence, count = scheduled.sequence, scheduled.num_tokens
            if sequence.wants_prompt_logprobs:
                rows_of.append(list(range(start, start + count)))
            elif count == sequence.num_pending:
                rows_of.append([start + count - 1])
            else:
                rows_of.append([])
            start += count
        return rows_of

    def _commit(self, plan: list[Scheduled], rows_of: list[list[int]], logits_RV: torch.Tensor, events: Events) -> None:
        greedy = logits_RV.argmax(dim=-1).tolist() if len(logits_RV) else []
        now_s = self._clock()
        end = 0
        for scheduled, rows in zip(plan, rows_of, strict=True):
            sequence = scheduled.sequence
            begin, end = end, end + len(rows)
            if sequence.wants_prompt_logprobs:
                self._collect_prompt_logprobs(sequence, logits_RV[begin:end])
            self._commit_computed(sequence, scheduled.num_tokens)
            if sequence.num_pending == 0:
                self._commit_token(sequence, logits_RV[end - 1], greedy[end - 1], now_s, events)

    def _commit_computed(self, sequence: Sequence, num_tokens: int) -> None:
        """The step's keys and values are final: publish the blocks they filled."""
        block_size = self.pool.block_size
        first_open = sequence.num_computed // block_size
        sequence.num_computed += num_tokens
        if self.settings.prefix_cache:
            for block_index in range(first_open, sequence.num_computed // block_size):
                self.pool.publish(sequence.block_ids[block_index], sequence.block_hash(block_index, block_size))

    def _collect_prompt_logprobs(self, sequence: Sequence, logits_RV: torch.Tensor) -> None:
        """Row i of the chunk predicts token num_computed + i + 1; nothing predicts token 0."""
        if sequence.num_computed == 0:
            sequence.prompt_logprobs = [TokenLogprob(sequence.token_ids[0], None)]
        first = sequence.num_computed + 1
        targets = sequence.token_ids[first : min(first + len(logits_RV), sequence.num_prompt)]
        if targets:
            num_top = sequence.request.sampling.logprobs or 0
            sequence.prompt_logprobs += token_logprobs(logits_RV[: len(targets)], targets, num_top)

    def _commit_token(
        self, sequence: Sequence, logits_V: torch.Tensor, greedy_token: int, now_s: float, events: Events
    ) -> None:
        """Chooses the next token, appends it, applies the stop rules and reports."""
        sampling, limits = sequence.request.sampling, sequence.request.limits
        if sequence.num_output == 0:
            self._start(sequence, events)
        if limits.max_tokens == 0:
            self._finish(sequence, FinishReason.LENGTH, now_s, events)
            return
        token = greedy_token
        if not is_plain_greedy(sampling):
            penalised_V = logits_V
            if has_penalties(sampling):
                penalised_V = apply_penalties(logits_V, sampling, sequence.token_ids, sequence.output_counts)
            token = choose_token(penalised_V, sampling, sequence.seed, len(sequence.token_ids))
        sequence.append_token(token, now_s)
        self._num_generated += 1
        if sampling.logprobs is not None:
            sequence.unsent_logprobs += token_logprobs(logits_V[None], [token], sampling.logprobs)
        # A token that ends the choice is reported and counted, but is no text.
        if token in self._tokenizer.eos_token_ids and not limits.ignore_eos:
            self._finish(sequence, FinishReason.EOS, now_s, events)
            return
        if token in limits.stop_token_ids:
            self._finish(sequence, FinishReason.STOP, now_s, events)
            return
        sequence.output.append(self._tokenizer.token_bytes(token))
        if sequence.output.finish_reason is not None:
            self._finish(sequence, sequence.output.finish_reason, now_s, events)
        elif sequence.num_output >= limits.max_tokens:
            self._finish(sequence, FinishReason.LENGTH, now_s, events)
        else:
            self._report_text(sequence, sequence.output.take(), events)

    def _start(self, sequence: Sequence, events: Events) -> None:
        """First token of a choice. Choice 0 speaks for the request and lets its siblings in: they find
        the prompt's blocks in the prefix cache."""
        if sequence.index > 0:
            return
        cached = sequence.num_cached or 0
        self._num_prompt += sequence.num_prompt
        self._num_cached += cached
        events.append((sequence.handle, Started(sequence.num_prompt, cached, tuple(sequence.prompt_logprobs))))
        for sibling in self._siblings.pop(sequence.handle, ()):
            sibling.prompt_logprobs = sequence.prompt_logprobs
            self.scheduler.add(sibling)

    def _report_text(self, sequence: Sequence, text: str, events: Events) -> None:
        """A delta, unless nothing can be shown yet; tokens without text ride with the next one."""
        if not text and not sequence.unsent_logprobs:
            return
        delta = Delta(sequence.index, text, tuple(sequence.unsent_ids), tuple(sequence.unsent_logprobs))
        sequence.unsent_ids, sequence.unsent_logprobs = [], []
        events.append((sequence.handle, delta))

    def _finish(self, sequence: Sequence, reason: FinishReason, now_s: float, events: Events) -> None:
        """Ends a choice in whatever state it is, frees its blocks and reports the rest of its text."""
        sequence.finish_reason = reason
        group = self._siblings.get(sequence.handle)
        if group and sequence in group:
            group.remove(sequence)
            if not group:
                del self._siblings[sequence.handle]
        else:
            self.scheduler.remove(sequence)
        sequence.output.close()
        text = sequence.output.take(final=True)
        if text or sequence.unsent_ids:
            delta = Delta(sequence.index, text, tuple(sequence.unsent_ids), tuple(sequence.unsent_logprobs))
            events.append((sequence.handle, delta))
        final = Final(sequence.index, sequence.output.text, reason, sequence.usage(), sequence.timings(now_s))
        events.append((sequence.handle, final))
        with self._lock:
            self._num_live -= 1
        self._open_choices[sequence.handle] -= 1
        if not self._open_choices[sequence.handle]:
            del self._open_choices[sequence.handle]
