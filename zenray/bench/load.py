"""Load on a target: closed loop (so many at once) and open loop (so many a second), bounded in count and time.

The clock is the event loop's, so that a test can run the same code on a virtual one.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

from zenray.bench.statistics import Arrival, RequestRecord
from zenray.bench.targets import Call, Ended, Target

OnRecord = Callable[[RequestRecord], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a run stops sending: after `max_requests`, or `max_seconds` from its start, whichever is first.

    Streams still open `grace_s` later are closed and count as failed.
    """

    max_requests: int
    max_seconds: float = 300.0
    grace_s: float = 60.0


def poisson_arrivals(rate_per_s: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests are due: exponential gaps with mean 1 / rate, for ever."""
    if rate_per_s <= 0:
        raise ValueError(f"rate_per_s is {rate_per_s}; allowed: above 0")
    generator = random.Random(seed)
    at_s = 0.0
    while True:
        at_s += generator.expovariate(rate_per_s)
        yield at_s


async def closed_loop(
    target: Target, calls: Sequence[Call], concurrency: int, bounds: Bounds, on_record: OnRecord | None = None
) -> list[RequestRecord]:
    """`concurrency` clients, each sending its next request when its last one ended. Calls are taken in
    order, round and round. Records are in order of their start."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    numbered = enumerate(itertools.islice(itertools.cycle(calls), bounds.max_requests))
    records: dict[int, RequestRecord] = {}

    async def client() -> None:
        for number, call in numbered:
            if loop.time() - start_s >= bounds.max_seconds:
                return
            records[number] = await observe(target, call, loop.time(), _last_moment(start_s, bounds))
            if on_record is not None:
                on_record(records[number])

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(client())
    return [records[number] for number in sorted(records)]


async def open_loop(
    target: Target,
    calls: Sequence[Call],
    rate_per_s: float,
    seed: int,
    bounds: Bounds,
    on_record: OnRecord | None = None,
) -> list[RequestRecord]:
    """Requests due at Poisson times, sent whether or not earlier ones ended. Same seed, same times.
    Records are in order of their due time."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    tasks: list[asyncio.Task[RequestRecord]] = []

    async def one(call: Call, due_s: float) -> RequestRecord:
        record = await observe(target, call, due_s, _last_moment(start_s, bounds))
        if on_record is not None:
            on_record(record)
        return record

    arrivals = itertools.islice(poisson_arrivals(rate_per_s, seed), bounds.max_requests)
    async with asyncio.TaskGroup() as group:
        for after_s, call in zip(arrivals, itertools.cycle(calls), strict=False):
            if after_s >= bounds.max_seconds:
                break
            await asyncio.sleep(max(0.0, start_s + after_s - loop.time()))
            tasks.append(group.create_task(one(call, start_s + after_s)))
    return [task.result() for task in tasks]


async def observe(target: Target, call: Call, due_s: float, give_up_s: float) -> RequestRecord:
    """One request from the outside; a failure becomes a record with `error`, never an exception."""
    loop = asyncio.get_running_loop()
    arrivals: list[Arrival] = []
    ended = Ended()
    error = ""
    try:
        async with asyncio.timeout_at(give_up_s), aclosing(cast(Any, target.stream(call))) as stream:
            async for item in stream:
                if isinstance(item, Ended):
                    ended = item
                else:
                    arrivals.append(Arrival(loop.time(), item.num_tokens, item.text))
    except TimeoutError:
        error = "the run's time was over"
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    return RequestRecord(
        name=f"{call.prompt.kind}/{call.prompt.name}",
        due_s=due_s,
        ended_s=loop.time(),
        arrivals=tuple(arrivals),
        prompt_tokens=ended.prompt_tokens,
        cached_tokens=ended.cached_tokens,
        completion_tokens=ended.completion_tokens if not error else None,
        server_first_token_ms=ended.server_first_token_ms,
        finish_reason=ended.finish_reason,
        error=error,
    )


def _last_moment(start_s: float, bounds: Bounds) -> float:
    return start_s + bounds.max_seconds + bounds.grace_s
