"""An event loop whose clock only moves when everybody waits, and targets that run on it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from zenray.bench.prompts import Prompt
from zenray.bench.targets import Call, Chunk, Ended


class _NoWaitSelector(selectors.DefaultSelector):
    """Where the loop would sleep, its clock jumps instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.loop.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 1000 s, so that nothing can mistake a time for a duration."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        selector = _NoWaitSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def run_virtually() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end in virtual time."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run


class FakeTarget:
    """Answers after `first_s`, then a token every `gap_s`; counts who is there at once and who left early."""

    name = "fake"

    def __init__(self, first_s: float = 0.5, gap_s: float = 0.1, fail_on: int = -1) -> None:
        self.first_s, self.gap_s, self.fail_on = first_s, gap_s, fail_on
        self.sent_s: list[float] = []
        self.calls: list[Call] = []
        self.open_streams = self.most_open = self.closed_early = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def stream(self, call: Call) -> AsyncIterator[Chunk | Ended]:
        number = len(self.calls)
        self.calls.append(call)
        self.sent_s.append(asyncio.get_running_loop().time())
        self.open_streams += 1
        self.most_open = max(self.most_open, self.open_streams)
        finished = False
        try:
            await asyncio.sleep(self.first_s)
            if number == self.fail_on:
                finished = True
                raise RuntimeError("out of luck")
            for index in range(call.max_tokens):
                if index:
                    await asyncio.sleep(self.gap_s)
                yield Chunk(f"t{index} ", 1)
            yield Ended("LENGTH", 10, 4, call.max_tokens, self.first_s * 1e3)
            finished = True
        finally:
            self.open_streams -= 1
            self.closed_early += not finished


@pytest.fixture
def calls() -> list[Call]:
    return [Call(Prompt("short", str(number), f"text {number}"), max_tokens=4) for number in range(3)]


@pytest.fixture
def make_target() -> Callable[..., FakeTarget]:
    return FakeTarget
