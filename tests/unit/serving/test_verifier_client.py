"""Requests to replicas that refuse, break, hang and vanish: real gRPC servers, scripted engines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from zenray.engine.request import (
    Delta,
    EngineLoad,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Sampling,
    Started,
    Timings,
    Usage,
)
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from zenray.serving.verifier_client import MAX_RERUNS
from zenray.serving.verifier_harness import VerifierFleet
from zenray.serving.verifier_service import watch_engine
from zenray.v1 import common_pb2

NUM_TOKENS = 6


@dataclass
class ScriptedEngine:
    """Tokens 1, 2, 3 …; `error` after `after` of them, or silence for `hang`."""

    error: Exception | None = None
    after: int = 0
    hang: bool = False
    healthy: bool = True
    stalled_s: float = 0.0
    requests: list[GenerateRequest] = field(default_factory=list)
    open_streams: int = 0

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        self.requests.append(request)
        self.open_streams += 1
        try:
            for number in range(NUM_TOKENS + 1):
                if number == self.after:
                    if self.error is not None:
                        raise self.error
                    if self.hang:
                        await asyncio.Event().wait()
                if number == 0:
                    yield Started(len(request.prompt_token_ids), 0)
                else:
                    yield Delta(0, f"{number} ", (number,))
            yield Final(
                0,
                "".join(f"{number} " for number in range(1, NUM_TOKENS + 1)),
                FinishReason.LENGTH,
                Usage(1, NUM_TOKENS, 0),
                Timings(0, 1, 2),
            )
        finally:
            self.open_streams -= 1

    def load(self) -> EngineLoad:
        return EngineLoad(running_sequences=self.open_streams, total_blocks=10)


class Fleet(VerifierFleet):
    """Replicas of scripted engines."""

    async def complete(self, deadline_s: float = 5.0) -> list[GenerateEvent]:
        return [event async for event in self.stream(deadline_s)]

    def stream(self, deadline_s: float = 5.0) -> AsyncGenerator[GenerateEvent, None]:
        request = GenerateRequest("r", (1,), Sampling(seed=7), Limits(max_tokens=NUM_TOKENS))
        return self.client.generate(request, "key", time.monotonic() + deadline_s)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with Fleet(common_pb2.ModelInfo(name="scripted")) as made:
        yield made


def token_ids(events: list[GenerateEvent]) -> list[int]:
    return [token for event in events if isinstance(event, Delta) for token in event.token_ids]


WHOLE = list(range(1, NUM_TOKENS + 1))


async def test_a_stream_arrives_whole(fleet: Fleet) -> None:
    await fleet.add("a", ScriptedEngine())
    events = await fleet.complete()
    assert token_ids(events) == WHOLE
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Final)
    assert (await fleet.client.info()).name == "scripted"
    assert (await fleet.client.loads())["a"].engine.total_blocks == 10


async def test_without_replicas_a_request_is_refused_at_once(fleet: Fleet) -> None:
    with pytest.raises(Unavailable):
        await fleet.complete()
    with pytest.raises(Unavailable):
        await fleet.client.info()


@pytest.mark.parametrize("after", [0, 1, 4, NUM_TOKENS])
async def test_a_stream_that_breaks_is_continued_by_another_replica(fleet: Fleet, after: int) -> None:
    engines = {name: ScriptedEngine() for name in "ab"}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    await fleet.complete()
    chosen = next(name for name, engine in engines.items() if engine.requests)
    engines[chosen].error, engines[chosen].after = Unavailable("gone"), after
    events = await fleet.complete()
    assert token_ids(events) == WHOLE
    assert sum(isinstance(event, Started) for event in events) == 1
    assert sum(isinstance(event, Final) for event in events) == 1
    assert fleet.client.num_reruns == 1
    seeds = {request.sampling.seed for engine in engines.values() for request in engine.requests}
    assert seeds == {7}


async def test_a_request_whose_only_replica_died_waits_for_its_successor(fleet: Fleet) -> None:
    await fleet.add("a", ScriptedEngine(hang=True, after=3))
    async with aclosing(fleet.stream()) as events:
        first = [await anext(events) for _ in range(3)]
        await fleet.kill("a")
        waiting = asyncio.ensure_future(anext(events))
        await fleet.remove("a")
        assert not waiting.done()
        await fleet.add("b", ScriptedEngine())
        rest = [await waiting, *[event async for event in events]]
    assert token_ids([*first, *rest]) == WHOLE


async def test_nobody_is_sent_to_a_replica_that_takes_no_request(fleet: Fleet) -> None:
    engines = {name: ScriptedEngine() for name in "ab"}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    await fleet.say("a", "an expert has no place")
    for _ in range(4):
        assert token_ids(await fleet.complete()) == WHOLE
    assert not engines["a"].requests
    assert set(await fleet.client.loads()) == {"a", "b"}  # It lives, and says so.
    await fleet.say("b", "an expert has no place")
    with pytest.raises(Unavailable, match="no verifier replica is ready: an expert has no place") as refused:
        await fleet.complete()
    assert refused.value.retry_after_ms
    await fleet.say("a", "")
    await fleet.complete()
    assert engines["a"].requests


async def test_a_request_whose_only_replica_became_unavailable_waits_until_it_is_not(fleet: Fleet) -> None:
    engine = ScriptedEngine(error=Unavailable("an expert has no place"), after=3)
    await fleet.add("a", engine)
    async with aclosing(fleet.stream()) as events:
        first = [await anext(events) for _ in range(3)]
        await fleet.say("a", "an expert has no place")
        waiting = asyncio.ensure_future(anext(events))
        while not fleet.peers.listed()[0].is_suspect:
            await asyncio.sleep(0.001)
        assert not waiting.done()
        engine.error = None
        await fleet.say("a", "")
        rest = [await waiting, *[event async for event in events]]
    assert token_ids([*first, *rest]) == WHOLE


async def test_a_request_that_kills_every_replica_is_given_up(fleet: Fleet) -> None:
    engines = [ScriptedEngine(error=Unavailable("died of it")) for _ in range(MAX_RERUNS + 3)]
    for number, engine in enumerate(engines):
        await fleet.add(f"replica-{number}", engine)
    with pytest.raises(Unavailable):
        await fleet.complete()
    assert sum(len(engine.requests) for engine in engines) == MAX_RERUNS + 1


async def test_a_full_replica_passes_the_request_on_and_only_full_ones_refuse_it(fleet: Fleet) -> None:
    engines = {name: ScriptedEngine() for name in "ab"}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    await fleet.complete()
    chosen = next(name for name, engine in engines.items() if engine.requests)
    engines[chosen].error = Overloaded("full", 250)
    assert token_ids(await fleet.complete()) == WHOLE
    for engine in engines.values():
        engine.error = Overloaded("full", 250)
    with pytest.raises(Overloaded) as refused:
        await fleet.complete()
    assert refused.value.retry_after_ms == 250
    assert fleet.client.num_reruns == 0


async def test_a_bad_request_is_not_tried_twice_and_keeps_its_details(fleet: Fleet) -> None:
    bad = InvalidRequest.of("prompt_token_ids", 9000, "at most 512")
    engines = {name: ScriptedEngine(error=bad) for name in "ab"}
    for name, engine in engines.items():
        await fleet.add(name, engine)
    with pytest.raises(InvalidRequest) as refused:
        await fleet.complete()
    assert str(refused.value) == "prompt_token_ids is 9000; allowed: at most 512"
    assert sum(len(engine.requests) for engine in engines.values()) == 1


async def test_a_silent_replica_ends_at_the_deadline_with_what_there_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenray.serving.verifier_client.DEADLINE_MARGIN_S", 0.05)
    silent = ScriptedEngine(hang=True, after=4)
    await fleet.add("a", silent)
    events = await fleet.complete(deadline_s=0.3)
    assert token_ids(events) == [1, 2, 3]
    final = events[-1]
    assert isinstance(final, Final)
    assert (final.finish_reason, final.text, final.usage.completion_tokens) == (FinishReason.DEADLINE, "1 2 3 ", 3)
    silent.after = 1
    with pytest.raises(DeadlineExceeded):
        await fleet.complete(deadline_s=0.3)


async def test_leaving_a_stream_ends_it_at_the_verifier(fleet: Fleet) -> None:
    engine = ScriptedEngine(hang=True, after=4)
    await fleet.add("a", engine)
    async with aclosing(fleet.stream()) as events:
        async for event in events:
            if isinstance(event, Delta) and event.index == 0 and event.token_ids == (3,):
                break
        assert engine.open_streams == 1
    async with asyncio.timeout(5):
        while engine.open_streams:
            await asyncio.sleep(0.001)
    assert not fleet.peers.listed()[0].outstanding


async def test_a_replica_that_left_the_directory_finishes_its_streams(fleet: Fleet) -> None:
    release = asyncio.Event()

    class Slow(ScriptedEngine):
        async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
            async with aclosing(super().generate(request)) as events:
                async for event in events:
                    if isinstance(event, Delta) and event.token_ids == (3,):
                        await release.wait()
                    yield event

    await fleet.add("a", Slow())
    async with aclosing(fleet.stream()) as events:
        head = [await anext(events), await anext(events)]
        await fleet.remove("a")
        release.set()
        assert token_ids([*head, *[event async for event in events]]) == WHOLE


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (lambda engine: setattr(engine, "healthy", False), "thread has ended"),
        (lambda engine: setattr(engine, "stalled_s", 61.0), "not ended a step for 61"),
    ],
)
async def test_the_watchdog_tells_a_dead_engine_and_a_hanging_one(
    breaks: Callable[[ScriptedEngine], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenray.serving.verifier_service.WATCHDOG_PERIOD_S", 0.001)
    engine, said = ScriptedEngine(), []
    watching = asyncio.create_task(watch_engine(engine, 60.0, said.append))
    await asyncio.sleep(0.01)
    assert not said
    breaks(engine)
    await asyncio.wait_for(watching, 5)
    assert len(said) == 1
    assert reason in said[0]


async def test_a_replica_that_leaves_while_it_is_asked_is_left_out(fleet: Fleet) -> None:
    """Its channel is closed under the question; whoever asked is not cancelled by that, and asks on."""
    await fleet.add("a", ScriptedEngine())
    async with await fleet.add_mute("mute"):
        asking = asyncio.create_task(fleet.client.loads())
        await fleet.remove("mute")
        assert set(await asking) == {"a"}


async def test_whoever_gives_up_a_question_is_cancelled(fleet: Fleet) -> None:
    async with await fleet.add_mute("mute"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await fleet.client.info()
