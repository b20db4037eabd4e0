"""Records over the wire: real engines behind real gRPC, replicas that die amid a request, and ones that lie."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.engine.async_engine import AsyncEngine
from zenray.engine.engine import Engine, Events
from zenray.engine.request import (
    Final,
    FinishReason,
    GenerateRequest,
    Priority,
    Scored,
    ScoreEvent,
    Started,
    Timings,
    Usage,
)
from zenray.engine.scoring import HiddenRows, ScoredRows, ScoreFormat, Scoring, join_rows, split_rows
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable, ZenrayError
from zenray.model.load import LoadedModel
from zenray.serving.channels import ReplicaLost
from zenray.serving.verifier_client import MAX_RERUNS
from zenray.serving.verifier_harness import VerifierFleet
from zenray.v1 import common_pb2

MakeEngine = Callable[..., Engine]
WAIT_S = 20.0
VOCAB_SIZE, NUM_LAYERS, MAX_TOKENS = 264, 2, 50
TOKENS = tuple((7 * i * i + 3 * i) % 256 for i in range(150))
SCORING = Scoring(ScoreFormat(12, 0.97, 4), first_scored=5, hidden_layers=(1, 0))


def to_score(scoring: Scoring = SCORING, tokens: tuple[int, ...] = TOKENS, seed: int = 11) -> GenerateRequest:
    return GenerateRequest.to_score("r", tokens, scoring, seed, Priority.BATCH)


class Fleet(VerifierFleet):
    """Replicas that are asked for records; `counts` is what the client said of those that came."""

    def __init__(self) -> None:
        super().__init__(common_pb2.ModelInfo(name="tiny"))
        self.counts: list[int] = []

    async def score(self, request: GenerateRequest | None = None, deadline_s: float = WAIT_S) -> ScoredRows:
        return await self.client.score(request or to_score(), "key", time.monotonic() + deadline_s, self.counts.append)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with Fleet() as made:
        yield made


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[AsyncEngine]:
    started = AsyncEngine(engine)
    await started.start()
    yield started
    await started.shutdown(0)


def bits(rows: ScoredRows) -> list[tuple[object, ...]]:
    """All there is of records, comparable."""
    arrays = [
        rows.gold_logprobs_R, rows.entropies_R, rows.head_counts_R, rows.head_ids_N, rows.head_logprobs_N,
        rows.tail_masses_R, rows.tail_ids_RS,
    ]  # fmt: skip
    for states in rows.hidden.values():
        arrays += [states.values_RD, states.scales_R]
    return [(rows.first_position, *rows.hidden), *((each.shape, each.dtype, each.tobytes()) for each in arrays)]


async def in_process(engine: AsyncEngine, request: GenerateRequest) -> ScoredRows:
    return join_rows([event.rows async for event in engine.score(request) if isinstance(event, Scored)])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.001)


@st.composite
def allowed_requests(draw: st.DrawFn) -> GenerateRequest:
    """What the door lets in to the tiny model, its bounds more often than not."""
    tokens = draw(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=2, max_size=MAX_TOKENS))
    kept = ScoreFormat(
        draw(st.sampled_from((1, VOCAB_SIZE)) | st.integers(1, VOCAB_SIZE)),
        draw(st.sampled_from((5e-324, 1.0)) | st.floats(0.5, 1.0)),
        draw(st.sampled_from((0, 64)) | st.integers(0, 64)),
    )
    first_scored = draw(st.sampled_from((1, len(tokens) - 1)) | st.integers(1, len(tokens) - 1))
    layers = draw(st.permutations(range(NUM_LAYERS + 1)))[: draw(st.integers(0, NUM_LAYERS + 1))]
    return to_score(Scoring(kept, first_scored, tuple(layers)), tuple(tokens), draw(st.integers(0, 2**64 - 1)))


@settings(deadline=None, max_examples=30)
@given(allowed_requests())
def test_what_the_door_lets_in_the_engine_answers_and_the_wire_changes_no_bit(
    make_engine: MakeEngine, request: GenerateRequest
) -> None:
    async def story() -> None:
        async with running(make_engine(context_length=MAX_TOKENS, max_step_tokens=16)) as engine, Fleet() as fleet:
            await fleet.add("a", engine)
            rows = await fleet.score(request)
            assert bits(rows) == bits(await in_process(engine, request))
            assert sum(fleet.counts) == rows.num_rows
            engine.engine.check_integrity()

    asyncio.run(story())


async def test_what_the_door_refuses_the_engine_never_sees(fleet: Fleet, tiny_model: LoadedModel) -> None:
    engine = Scripted(tiny_model, marked(1.0))
    await fleet.add("a", engine)
    with pytest.raises(InvalidRequest, match=r"scoring\.first_scored is 0; allowed: .*; scoring\.hidden_layers is \(9"):
        await fleet.score(to_score(replace(SCORING, first_scored=0, hidden_layers=(9,))))
    with pytest.raises(InvalidRequest, match=f"token_ids.2. is {VOCAB_SIZE}; allowed: 0 to {VOCAB_SIZE - 1}"):
        await fleet.score(to_score(Scoring(), (1, 2, VOCAB_SIZE)))
    assert not engine.requests


async def test_a_steps_records_may_be_several_messages(
    fleet: Fleet, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make_engine()) as engine:
        await fleet.add("a", engine)
        monkeypatch.setattr("zenray.api.convert_scoring.MAX_ROWS_BYTES", 1000)
        assert bits(await fleet.score()) == bits(await in_process(engine, to_score()))
        assert len(fleet.counts) > 30


class Held(AsyncEngine):
    """An engine whose steps wait for `go` once the first has given records."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.num_rows = 0
        self.go = threading.Event()
        self._step, engine.step = engine.step, self._held  # type: ignore[method-assign]

    def _held(self) -> Events:
        if self.num_rows:
            assert self.go.wait(WAIT_S)
        events = self._step()
        self.num_rows += sum(event.rows.num_rows for _, event in events if isinstance(event, Scored))
        return events


async def test_whoever_leaves_amid_a_request_frees_its_blocks(fleet: Fleet, make_engine: MakeEngine) -> None:
    engine = Held(make_engine(max_step_tokens=16))
    await engine.start()
    await fleet.add("a", engine)
    asking = asyncio.create_task(fleet.score())
    await until(lambda: fleet.counts)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: engine.engine._cancelled)
    engine.go.set()
    await until(lambda: not engine.engine.has_work)
    engine.engine.check_integrity()
    assert engine.num_rows < len(TOKENS) - SCORING.first_scored
    assert not fleet.peers.listed()[0].outstanding
    assert bits(await fleet.score()) == bits(await in_process(engine, to_score()))
    await engine.shutdown(0)


async def test_a_replica_killed_amid_a_request_changes_no_bit(fleet: Fleet, make_engine: MakeEngine) -> None:
    engines = {name: Held(make_engine(max_step_tokens=16)) for name in "ab"}
    for name, engine in engines.items():
        await engine.start()
        await fleet.add(name, engine)
    asking = asyncio.create_task(fleet.score())
    await until(lambda: fleet.counts)
    victim = next(name for name, engine in engines.items() if engine.num_rows)
    (survivor,) = (engine for name, engine in engines.items() if name != victim)
    survivor.go.set()
    await fleet.kill(victim)
    assert bits(await asking) == bits(await in_process(survivor, to_score()))
    assert fleet.client.num_reruns == 1
    assert sum(fleet.counts) > len(TOKENS) - SCORING.first_scored
    engines[victim].go.set()
    await until(lambda: not engines[victim].engine.has_work)
    for engine in engines.values():
        engine.engine.check_integrity()
        await engine.shutdown(0)


async def test_a_deadline_that_passes_gives_no_part_of_the_records(fleet: Fleet, make_engine: MakeEngine) -> None:
    engine = Held(make_engine(max_step_tokens=16))
    await engine.start()
    await fleet.add("a", engine)
    asking = asyncio.create_task(fleet.score(deadline_s=0.3))
    await until(lambda: fleet.counts)
    deadline_s = engine.engine.scheduler.running[0].deadline_s
    assert deadline_s is not None
    await until(lambda: time.monotonic() > deadline_s)
    engine.go.set()
    with pytest.raises(DeadlineExceeded):
        await asking
    await until(lambda: not engine.engine.has_work)
    engine.engine.check_integrity()
    await engine.shutdown(0)


def marked(mark: float, scoring: Scoring = SCORING, num_tokens: int = len(TOKENS)) -> ScoredRows:
    """Records that say who made them."""
    num_rows, num_samples = num_tokens - scoring.first_scored, scoring.format.num_tail_samples
    floats, counts = np.full(num_rows, mark, np.float32), np.ones(num_rows, np.int32)
    hidden = {layer: HiddenRows(np.ones((num_rows, 4), np.int8), floats) for layer in scoring.hidden_layers}
    tails = np.full((num_rows, num_samples), 3, np.int32)
    return ScoredRows(scoring.first_scored, floats, floats, counts, counts, floats, floats, tails, hidden)


@dataclass
class Scripted:
    """Sends `rows` in parts of `part_rows`, and `error`, or nothing any more for `hang`, after so many parts."""

    model: LoadedModel
    rows: ScoredRows
    part_rows: int = 40
    after: int | None = None
    error: Exception | None = None
    reason: FinishReason = FinishReason.LENGTH
    requests: list[GenerateRequest] = field(default_factory=list)
    num_open: int = 0

    @property
    def engine(self) -> Any:
        return SimpleNamespace(model=self.model, max_sequence_tokens=1000)

    async def score(self, request: GenerateRequest) -> AsyncGenerator[ScoreEvent, None]:
        self.requests.append(request)
        self.num_open += 1
        try:
            yield Started(len(request.prompt_token_ids), 0)
            starts = range(0, self.rows.num_rows, self.part_rows)
            runs = [
                (self.rows.first_position + start, min(self.part_rows, self.rows.num_rows - start)) for start in starts
            ]
            for number, part in enumerate(split_rows(self.rows, runs)):
                if number == self.after:
                    if self.error is not None:
                        raise self.error
                    await asyncio.Event().wait()
                yield Scored(part)
            yield Final(0, "", self.reason, Usage(len(TOKENS), 0, 0), Timings(0, 0, 1))
        finally:
            self.num_open -= 1


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_records_of_two_replicas_are_never_joined(fleet: Fleet, tiny_model: LoadedModel, after: int) -> None:
    """The replica that takes over computes something else: all that is returned is its own."""
    engines = {name: Scripted(tiny_model, marked(mark)) for name, mark in (("a", 1.0), ("b", 2.0))}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    first = await fleet.score()
    chosen, other = ("a", "b") if first.gold_logprobs_R[0] == 1.0 else ("b", "a")
    engines[chosen].after, engines[chosen].error = after, Unavailable("gone")
    assert bits(await fleet.score()) == bits(engines[other].rows)
    assert fleet.client.num_reruns == 1
    assert {request.sampling.seed for engine in engines.values() for request in engine.requests} == {11}


class MethodNotFound(ZenrayError):
    """What gRPC says of a method that a server does not have."""

    grpc_status = "UNIMPLEMENTED"


async def test_a_replica_that_is_too_old_to_score_is_passed_over(
    fleet: Fleet, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = {name: Scripted(tiny_model, marked(1.0)) for name in "ab"}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    await fleet.score()
    chosen = next(engine for engine in engines.values() if engine.requests)
    chosen.after, chosen.error = 0, MethodNotFound("Method not found!")
    assert bits(await fleet.score()) == bits(marked(1.0))
    monkeypatch.setattr("zenray.serving.peers.SUSPECT_S", 0.01)
    for engine in engines.values():
        engine.after, engine.error = 0, MethodNotFound("Method not found!")
    with pytest.raises(Unavailable, match="a verifier of another version cannot answer this: Method not found!"):
        await fleet.score()


async def test_a_request_that_kills_every_replica_is_given_up(fleet: Fleet, tiny_model: LoadedModel) -> None:
    engines = [Scripted(tiny_model, marked(1.0), after=1, error=Unavailable("died")) for _ in range(MAX_RERUNS + 2)]
    for number, engine in enumerate(engines):
        await fleet.add(f"replica-{number}", engine)
    with pytest.raises(Unavailable, match="died"):
        await fleet.score()
    assert sum(len(engine.requests) for engine in engines) == MAX_RERUNS + 1


async def test_a_full_replica_passes_the_request_on(fleet: Fleet, tiny_model: LoadedModel) -> None:
    engines = [Scripted(tiny_model, marked(1.0), after=0, error=Overloaded("full", 250)) for _ in range(2)]
    for number, engine in enumerate(engines):
        await fleet.add(f"replica-{number}", engine)
    with pytest.raises(Overloaded) as refused:
        await fleet.score()
    assert refused.value.retry_after_ms == 250
    engines[1].after = None
    assert bits(await fleet.score()) == bits(marked(1.0))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (marked(1.0, num_tokens=len(TOKENS) - 1), "records end at position 149 of 150"),
        (marked(1.0, num_tokens=len(TOKENS) + 1), "positions 125 to 150 where 125 to 149 are to come"),
        (marked(1.0, replace(SCORING, first_scored=6)), "positions 6 to 45 where 5 to 149"),
        (marked(1.0, replace(SCORING, hidden_layers=(0,))), r"hidden states of layers \[0\], not \[0, 1\]"),
        (replace(marked(1.0), hidden={1: HiddenRows(np.ones((145, 4), np.int8), np.ones(145, np.float32)),
                                      0: HiddenRows(np.ones((145, 5), np.int8), np.ones(145, np.float32))}),
         r"hidden states \[4, 5\] wide"),
        (marked(1.0, replace(SCORING, format=ScoreFormat(12, 0.97, 3))), "3 tail samples where 4"),
        (replace(marked(1.0), head_counts_R=np.full(145, 13, np.int32), head_ids_N=np.zeros(1885, np.int32),
                 head_logprobs_N=np.zeros(1885, np.float32)), "a head of 13 tokens where 12"),
    ],
)  # fmt: skip
async def test_a_replica_that_sends_other_records_than_asked_for_is_passed_over(
    fleet: Fleet, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, rows: ScoredRows, said: str
) -> None:
    engines = {name: Scripted(tiny_model, marked(1.0)) for name in "ab"}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    await fleet.score()
    chosen, other = sorted(engines.values(), key=lambda engine: -len(engine.requests))
    chosen.rows = rows
    assert bits(await fleet.score()) == bits(marked(1.0))
    other.rows = rows
    monkeypatch.setattr("zenray.serving.peers.SUSPECT_S", 0.01)
    with pytest.raises(ReplicaLost, match=f"cannot be read: .*{said}"):
        await fleet.score()


async def test_a_message_that_cannot_be_read_is_no_answer(
    fleet: Fleet, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.add("a", Scripted(tiny_model, marked(1.0)))

    def unreadable(message: object) -> ScoreEvent:
        raise ValueError("entropies has 7 bytes where 8 belong")

    monkeypatch.setattr("zenray.serving.verifier_client.score_event_from_proto", unreadable)
    monkeypatch.setattr("zenray.serving.peers.SUSPECT_S", 0.01)
    with pytest.raises(ReplicaLost, match="cannot be read: entropies has 7 bytes"):
        await fleet.score()


async def test_an_early_end_is_no_answer(fleet: Fleet, tiny_model: LoadedModel) -> None:
    await fleet.add("a", Scripted(tiny_model, marked(1.0), reason=FinishReason.CANCELLED))
    with pytest.raises(Unavailable, match="ended a request early: CANCELLED"):
        await fleet.score()


async def test_readers_who_do_not_read_leave_only_so_much(
    fleet: Fleet, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the records of two requests: a third is refused until one of the others has ended, however it does."""
    room = 2 * 145 * (16 + 12 * 8 + 4 * 4 + 2 * (tiny_model.config.hidden_size + 4))
    monkeypatch.setattr("zenray.serving.verifier_service.MAX_UNREAD_BYTES", room)
    engine = Scripted(tiny_model, marked(1.0), after=1)
    await fleet.add("a", engine)
    asking = [asyncio.create_task(fleet.score()) for _ in range(2)]
    await until(lambda: engine.num_open == 2)
    with pytest.raises(Overloaded, match="may wait for their readers"):
        await fleet.score()
    asking[0].cancel()
    await until(lambda: engine.num_open == 1)
    engine.after = None
    assert bits(await fleet.score()) == bits(marked(1.0))
    asking[1].cancel()
    await asyncio.gather(*asking, return_exceptions=True)
