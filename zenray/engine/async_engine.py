"""The engine on a thread of its own, spoken to from one event loop.

The loop never waits for a step: requests go through the engine's inbox, a step's events come back in
one call. A step's exception is not survivable (the model's state is unknown), so it ends every request
with `Unavailable` and `healthy` turns false; whoever owns the process replaces it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from typing import cast

from zenray.engine.engine import Engine, Events
from zenray.engine.request import (
    EngineLoad,
    Failed,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    ScoreEvent,
)
from zenray.errors import DeadlineExceeded, Unavailable

_logger = logging.getLogger(__name__)
_JOIN_TIMEOUT_S = 30.0


class AsyncEngine:
    """Streams of events for requests; closing a stream cancels its request within one step."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._thread = threading.Thread(target=self._run, name="zenray-engine", daemon=True)
        self._wake = threading.Event()
        self._stopping = False
        self._draining = False
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[int, asyncio.Queue[GenerateEvent | ScoreEvent | Failed | None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_step_s = time.monotonic()

    @property
    def healthy(self) -> bool:
        """The engine thread runs and has not failed."""
        return self._thread.is_alive() and self._failure is None

    @property
    def unavailable(self) -> str | None:
        """Why no request is taken now although the engine is healthy; None when it is ready."""
        return self.engine.unavailable

    @property
    def stalled_s(self) -> float:
        """Seconds since the last step ended while there is work; 0 when idle."""
        return time.monotonic() - self._last_step_s if self.engine.has_work else 0.0

    async def start(self) -> None:
        """Starts the engine thread; events are delivered to the calling loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """One `Started`, then deltas and finals of all choices in the order they happen.

        Raises `Overloaded` at once when the queue is full, `InvalidRequest` for a sequence that cannot
        fit, `Unavailable` while draining, while experts have no place or after a failure, and
        `DeadlineExceeded` when the deadline passed before any token. Leaving the iterator early cancels the request.
        """
        return cast("AsyncGenerator[GenerateEvent, None]", self._stream(request))

    def score(self, request: GenerateRequest) -> AsyncGenerator[ScoreEvent, None]:
        """One `Started`, the records of all positions asked for, step by step, and the `Final`. Errors as for
        `generate`; `DeadlineExceeded` whenever the deadline passed before the last record."""
        return cast("AsyncGenerator[ScoreEvent, None]", self._stream(request))

    async def _stream(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent | ScoreEvent, None]:
        if self._draining or not self.healthy:
            raise Unavailable("the engine is draining" if self._draining else f"the engine stopped: {self._failure}")
        if (reason := self.unavailable) is not None:
            raise Unavailable(reason)
        if not self.engine.has_work:
            self._last_step_s = time.monotonic()
        handle = self.engine.add(request)
        # Bounded by max_tokens times n, and by the prompt where it is scored.
        stream: asyncio.Queue[GenerateEvent | ScoreEvent | Failed | None] = asyncio.Queue()
        self._streams[handle] = stream
        self._idle.clear()
        self._wake.set()
        open_choices = request.sampling.n
        num_tokens = 0
        try:
            while open_choices:
                event = await stream.get()
                if event is None:
                    raise Unavailable(f"the engine stopped: {self._failure}")
                if isinstance(event, Failed):
                    open_choices = 0
                    raise event.error
                if isinstance(event, Final):
                    open_choices -= 1
                    num_tokens += event.usage.completion_tokens
                    if event.finish_reason is FinishReason.DEADLINE and not open_choices and not num_tokens:
                        missed = "no token could be produced" if request.scoring is None else "it could not be scored"
                        raise DeadlineExceeded(f"{missed} within deadline_ms {request.limits.deadline_ms}")
                yield event
        finally:
            del self._streams[handle]
            if open_choices:
                self.engine.cancel(handle)
                self._wake.set()
            if not self._streams:
                self._idle.set()

    def load(self) -> EngineLoad:
        return self.engine.load()

    async def shutdown(self, drain_timeout_s: float) -> None:
        """Refuses new requests, lets running ones finish for at most `drain_timeout_s`, cancels the rest
        and ends the thread."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), drain_timeout_s)
        except TimeoutError:
            _logger.warning("draining timed out; %d requests are cancelled", len(self._streams))
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, _JOIN_TIMEOUT_S)
        await asyncio.to_thread(self.engine.shutdown)
        self._end_streams()

    def _run(self) -> None:
        assert self._loop is not None
        try:
            while not self._stopping:
                if not self.engine.has_work:
                    self._wake.wait()
                    self._wake.clear()
                    continue
                events = self.engine.step()
                self._last_step_s = time.monotonic()
                if events:
                    self._loop.call_soon_threadsafe(self._deliver, events)
        except BaseException as failure:
            _logger.exception("the engine failed")
            self._failure = failure
            self._loop.call_soon_threadsafe(self._end_streams)

    def _deliver(self, events: Events) -> None:
        for handle, event in events:
            stream = self._streams.get(handle)
            if stream is not None:
                stream.put_nowait(event)

    def _end_streams(self) -> None:
        for stream in self._streams.values():
            stream.put_nowait(None)
