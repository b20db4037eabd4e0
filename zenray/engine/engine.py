"""The engine: requests in, events out. Its loop is draft, schedule, run, commit.

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
from zenray.engine.admission import check_request
from zenray.engine.blocks import BlockPool
from zenray.engine.commit import Committer
from zenray.engine.prompt_reader import PromptReader
from zenray.engine.request import (
    Delta,
    EngineLoad,
    Failed,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Priority,
    Scored,
    ScoreEvent,
    Started,
)
from zenray.engine.rows import StepRows, wanted_rows
from zenray.engine.runner import Runner
from zenray.engine.sampler import argmax_rows
from zenray.engine.scheduler import Scheduled, Scheduler
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Round, Speculator
from zenray.engine.stopping import MakeTextRule, TextRule, UnfailingRule
from zenray.errors import InvalidRequest, Overloaded, Unavailable
from zenray.model.decoder import States
from zenray.model.load import LoadedModel
from zenray.model.moe import StepPostponed
from zenray.ops.batch import select_rows

Events = list[tuple[int, GenerateEvent | ScoreEvent | Failed]]
"""Events of one step in order, each with the handle of its request."""


class Engine:
    """Continuous batching over one model.

    `context_length` caps the model's own. `max_sequence_tokens` is what one sequence can hold, prompt
    plus completion: the context or the whole block pool. `clock` is monotonic, in seconds. Without a
    `speculator` it decodes plainly; `make_text_rule` makes what judges the `text_stops` of a request.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: EngineSettings,
        context_length: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        speculator: Speculator | None = None,
        make_text_rule: MakeTextRule | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.speculator = speculator
        self._clock = clock
        self._make_text_rule = make_text_rule
        config = model.decoder.config
        block_bytes = (
            2 * config.num_layers * config.num_kv_heads * config.head_dim
            * settings.block_size * model.decoder.dtype.itemsize
        )  # fmt: skip
        num_blocks = max(1, round(settings.kv_cache_mib * 2**20) // block_bytes)
        self.pool = BlockPool(num_blocks, settings.block_size, settings.prefix_cache)
        self.scheduler = Scheduler(self.pool, settings)
        self.runner = Runner(model.decoder, self.pool)
        self._reader = PromptReader(model.decoder)
        self._committer = Committer(self.pool, model.tokenizer)
        longest = config.max_position_embeddings if context_length is None else context_length
        self.max_sequence_tokens = min(longest, config.max_position_embeddings, num_blocks * settings.block_size)

        self._lock = threading.Lock()
        self._inbox: list[Sequence] = []
        self._cancelled: set[int] = set()
        self._num_live = dict.fromkeys(Priority, 0)  # sequences admitted and not finished
        self._handles = itertools.count(1)
        self._siblings: dict[int, list[Sequence]] = {}  # choices 1.. wait for choice 0's prompt blocks
        self._open_choices: dict[int, int] = {}
        self._ended: list[Sequence] = []  # finished in this step; the speculator hears of it last
        self._num_generated = self._num_prompt = self._num_cached = self._num_rounds = self._num_scored = 0

    @property
    def has_work(self) -> bool:
        return any(self._num_live.values())

    @property
    def unavailable(self) -> str | None:
        """Why no step can run now, although one may later: experts of the model have no place. Read from any thread."""
        return self.model.decoder.experts.unavailable

    def add(self, request: GenerateRequest) -> int:
        """Queues a request and returns its handle. Raises `Overloaded` when the queue of its priority is full and
        `InvalidRequest` as `check_request`."""
        check_request(request, self.model.config, self.max_sequence_tokens)
        count = request.sampling.n
        seed = secrets.randbits(64) if request.sampling.seed is None else request.sampling.seed
        rules = [self._text_rule(request) for _ in range(count)]
        with self._lock:
            capacity = self.settings.max_running_sequences + self.settings.max_waiting_sequences
            num_live = self._num_live[request.priority]  # Batch work must not crowd interactive requests out.
            if num_live + count > capacity:
                raise Overloaded(
                    f"{num_live} {request.priority.name.lower()} sequences are queued or running; "
                    f"this engine takes {capacity}"
                )
            handle = next(self._handles)
            now_s = self._clock()
            self._inbox += [
                Sequence(handle, index, request, seed, now_s, handle, rule) for index, rule in enumerate(rules)
            ]
            self._num_live[request.priority] += count
        return handle

    def _text_rule(self, request: GenerateRequest) -> TextRule | None:
        """A rule of its own for every choice: it may remember what it has seen of a text."""
        if request.text_stops is None:
            return None
        if self._make_text_rule is None:
            raise InvalidRequest.of("text_stops", "set", "nothing: this engine judges no texts")
        return UnfailingRule(self._make_text_rule, request.text_stops)

    def cancel(self, handle: int) -> None:
        """Ends a request before the next step; unknown and finished handles are ignored."""
        with self._lock:
            self._cancelled.add(handle)

    def step(self) -> Events:
        """Drafts, schedules, runs and commits one step. Returns what happened; empty when nothing was to do.

        While no step can run, deadlines and cancellations still count; after a while every request fails.
        """
        events: Events = []
        self._take_inbox(events)
        if self.speculator is not None and (decoding := self._draftable()):
            room = self.scheduler.draft_room
            self.speculator.propose(decoding, room)
            drafted = [(sequence, len(sequence.draft.token_ids)) for sequence in decoding if sequence.draft is not None]
            assert sum(count for _, count in drafted) <= room, "drafts take no more than the room they were given"
            assert all(count <= sequence.max_draft for sequence, count in drafted), "no draft outlives its sequence"
        plan = self.scheduler.plan()
        assert plan or not (self.scheduler.running or self.scheduler.waiting), "somebody can always proceed"
        if plan:
            try:
                self._run(plan, events)
            except StepPostponed:
                pass  # Nothing was committed: the next step plans anew.
            except Unavailable as error:
                self._fail_all(error, events)
        self._close_ended()
        return events

    def _draftable(self) -> list[Sequence]:
        """Decoding sequences whose next token is free: drafters do not know of bytes that are forced."""
        return [sequence for sequence in self.scheduler.draftable if not sequence.output.forced]

    def _run(self, plan: list[Scheduled], events: Events) -> None:
        start_s = self._clock()
        for scheduled in plan:
            if scheduled.sequence.first_scheduled_s is None:
                scheduled.sequence.first_scheduled_s = start_s
        rows = wanted_rows(plan)
        is_pure_decode = all(scheduled.sequence.is_decoding for scheduled in plan)
        num_aborts = self.model.decoder.experts.num_aborts
        states = self.runner.run(plan, rows.tokens, rows.hidden_layers)
        self._read(plan, rows, states, events)
        logits_RV = self.runner.head(select_rows(states.final_RD, rows.choosing))
        rounds = self._commit(plan, rows, logits_RV, events)
        if self.speculator is not None and rounds:
            is_pure_decode = is_pure_decode and num_aborts == self.model.decoder.experts.num_aborts
            self.speculator.observe(rounds, logits_RV, (self._clock() - start_s) * 1000, is_pure_decode)

    def shutdown(self) -> None:
        """Releases what the speculator and the model hold. The engine takes no further step."""
        if self.speculator is not None:
            self.speculator.shutdown()
        self.model.decoder.experts.close()

    def load(self) -> EngineLoad:
        """Counters now. Reads without stopping a step; each number is exact, their moment may differ."""
        running = len(self.scheduler.running)
        return EngineLoad(
            running_sequences=running,
            waiting_sequences=max(0, sum(self._num_live.values()) - running),
            max_waiting_sequences=self.settings.max_waiting_sequences,
            free_blocks=self.pool.num_free,
            cached_blocks=self.pool.num_cached,
            total_blocks=self.pool.num_blocks,
            generated_tokens=self._num_generated,
            prompt_tokens=self._num_prompt,
            cached_prompt_tokens=self._num_cached,
            preemptions=self.scheduler.num_preemptions,
            rounds=self._num_rounds,
            scored_tokens=self._num_scored,
            drafters=() if self.speculator is None else self.speculator.load(),
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
            if self.speculator is not None and sequence.request.scoring is None:
                self.speculator.opened(sequence)
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

    def _read(self, plan: list[Scheduled], rows: StepRows, states: States, events: Events) -> None:
        """Books what the step says of prompts' own tokens. A scored prompt starts with its first records."""
        records = self._reader.score(plan, rows, states)
        for scheduled, entry in zip(plan, rows.entries, strict=True):
            sequence = scheduled.sequence
            if sequence in records:
                self._start(sequence, events)
                events.append((sequence.handle, Scored(records[sequence])))
                self._num_scored += records[sequence].num_rows
            elif entry.read:
                sequence.prompt_logprobs += self._reader.logprobs(sequence, entry.read, states)
            sequence.next_read += len(entry.read)

    def _commit(self, plan: list[Scheduled], rows: StepRows, logits_RV: torch.Tensor, events: Events) -> list[Round]:
        """Books what the step computed and the tokens its rows choose. Returns the rounds that chose any."""
        greedy = argmax_rows(logits_RV)
        now_s = self._clock()
        rounds: list[Round] = []
        for scheduled, entry in zip(plan, rows.entries, strict=True):
            sequence = scheduled.sequence
            self._committer.computed(sequence, scheduled.num_tokens)
            if sequence.num_pending:
                continue
            self._start(sequence, events)
            if not entry.chosen:
                self._finish(sequence, FinishReason.LENGTH, now_s, events)
                continue
            done, reason = self._committer.round(scheduled, entry.chosen.start, logits_RV, greedy, now_s)
            rounds.append(done)
            self._num_rounds += 1
            self._num_generated += done.num_committed
            if reason is not None:
                self._finish(sequence, reason, now_s, events)
            else:
                self._report_text(sequence, sequence.output.take(), events)
        return rounds

    def _start(self, sequence: Sequence, events: Events) -> None:
        """First token of a choice, or first record. Choice 0 speaks for the request and lets its siblings in: they
        find the prompt's blocks in the prefix cache."""
        if sequence.started:
            return
        sequence.started = True
        if sequence.index > 0:
            return
        cached = sequence.num_cached or 0
        self._num_prompt += sequence.num_prompt
        self._num_cached += cached
        events.append((sequence.handle, Started(sequence.num_prompt, cached, tuple(sequence.prompt_logprobs))))
        for sibling in self._siblings.pop(sequence.handle, ()):
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
        self._ended.append(sequence)
        final = Final(sequence.index, sequence.output.text, reason, sequence.usage(), sequence.timings(now_s))
        events.append((sequence.handle, final))
        with self._lock:
            self._num_live[sequence.priority] -= 1
        self._open_choices[sequence.handle] -= 1
        if not self._open_choices[sequence.handle]:
            del self._open_choices[sequence.handle]

    def _fail_all(self, error: Unavailable, events: Events) -> None:
        """Ends every request with an error, and gives back what they hold."""
        failing = self._all_sequences()
        for sequence in failing:
            self._finish(sequence, FinishReason.CANCELLED, self._clock(), [])
        events += [(handle, Failed(error)) for handle in sorted({sequence.handle for sequence in failing})]

    def _close_ended(self) -> None:
        ended, self._ended = self._ended, []
        if self.speculator is not None:
            for sequence in ended:
                if sequence.request.scoring is None:  # there is nothing to draft
                    self.speculator.closed(sequence)
