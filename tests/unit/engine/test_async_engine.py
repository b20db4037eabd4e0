"""The engine from an event loop: streams, disconnects, overload, failure and draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest

from zenray.engine.async_engine import AsyncEngine
from zenray.engine.engine import Engine
from zenray.engine.request import (
    Delta,
    Final,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Scored,
    Started,
)
from zenray.engine.scoring import Scoring, join_rows
from zenray.errors import DeadlineExceeded, Overloaded, Unavailable

MakeEngine = Callable[..., Engine]
Event = TypeVar("Event")


def request(max_tokens: int, n: int = 1, deadline_ms: int | None = None) -> GenerateRequest:
    limits = Limits(max_tokens=max_tokens, ignore_eos=True, deadline_ms=deadline_ms)
    return GenerateRequest("r", tuple(b"hello"), Sampling(n=n), limits)


async def collect(stream: AsyncIterator[Event]) -> list[Event]:
    return [event async for event in stream]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def running(make_engine: MakeEngine) -> AsyncIterator[Callable[..., object]]:
    started: list[AsyncEngine] = []

    async def start(**fields: object) -> AsyncEngine:
        engine = AsyncEngine(make_engine(**fields))
        await engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await engine.shutdown(0)


async def test_concurrent_streams_are_whole_and_leave_nothing(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running()
    streams = await asyncio.gather(*(collect(engine.generate(request(12, n=1 + i % 3))) for i in range(9)))
    for i, events in enumerate(streams):
        assert isinstance(events[0], Started)
        finals = [event for event in events if isinstance(event, Final)]
        assert sorted(final.index for final in finals) == list(range(1 + i % 3))
        for final in finals:
            text = "".join(e.text for e in events if isinstance(e, Delta) and e.index == final.index)
            assert text == final.text
    assert not engine.engine.has_work
    engine.engine.check_integrity()


async def test_leaving_a_stream_frees_its_blocks(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running(num_blocks=1100)
    stream = engine.generate(request(3000))
    async for event in stream:
        if isinstance(event, Delta):
            break
    await stream.aclose()
    await until(lambda: not engine.engine.has_work)
    load = engine.load()
    assert load.free_blocks + load.cached_blocks == load.total_blocks


async def test_a_full_engine_refuses_at_once(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running(max_running_sequences=1, max_waiting_sequences=1, num_blocks=1100)
    streams = [engine.generate(request(3000)) for _ in range(2)]
    for stream in streams:
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
    with pytest.raises(Overloaded):
        await anext(engine.generate(request(1)))


async def test_a_deadline_before_any_token_is_an_error(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running()
    with pytest.raises(DeadlineExceeded, match="deadline_ms 0"):
        await collect(engine.generate(request(5, deadline_ms=0)))


async def test_a_failing_step_ends_every_request_and_turns_unhealthy(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running(num_blocks=1100)
    others = [asyncio.ensure_future(collect(engine.generate(request(3000)))) for _ in range(2)]
    await until(lambda: engine.load().running_sequences == 2)

    def broken(*_: object) -> None:
        raise RuntimeError("the device is gone")

    engine.engine.runner.run = broken
    for outcome in await asyncio.gather(*others, return_exceptions=True):
        assert isinstance(outcome, Unavailable)
        assert "the device is gone" in str(outcome)
    assert not engine.healthy
    with pytest.raises(Unavailable):
        await collect(engine.generate(request(1)))


async def test_draining_finishes_what_runs_and_refuses_what_comes(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running()
    stream = asyncio.ensure_future(collect(engine.generate(request(30))))
    await until(lambda: engine.load().running_sequences == 1)
    draining = asyncio.ensure_future(engine.shutdown(20))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="draining"):
        await collect(engine.generate(request(1)))
    events = await stream
    assert isinstance(events[-1], Final)
    assert events[-1].usage.completion_tokens == 30
    await draining
    assert not engine.healthy


def scored(length: int, deadline_ms: int | None = None) -> GenerateRequest:
    return GenerateRequest.to_score("s", (65,) * length, Scoring(), 0, Priority.BATCH, deadline_ms)


async def test_a_prompt_is_scored_beside_streams(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running(batch_step_tokens=16, batch_tokens_beside_interactive=16)
    events, stream = await asyncio.gather(collect(engine.score(scored(100))), collect(engine.generate(request(12))))
    assert isinstance(events[0], Started) and isinstance(events[-1], Final)
    rows = join_rows([event.rows for event in events if isinstance(event, Scored)])
    assert (rows.first_position, rows.end_position) == (1, 100)
    assert isinstance(stream[-1], Final)


async def test_whoever_leaves_ends_the_scoring(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running(batch_step_tokens=1)
    stream = engine.score(scored(200))
    assert isinstance(await anext(stream), Started)
    await stream.aclose()
    await until(lambda: not engine.engine.has_work)
    engine.engine.check_integrity()


async def test_a_prompt_that_is_not_scored_by_its_deadline_is_an_error(running) -> None:  # type: ignore[no-untyped-def]
    engine = await running(batch_step_tokens=1)
    with pytest.raises(DeadlineExceeded, match="could not be scored"):
        await collect(engine.score(scored(250, deadline_ms=1)))
    await until(lambda: not engine.engine.has_work)
    engine.engine.check_integrity()
