"""One running completion, and everybody who waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator

from zenray.context.suggestion.model import CompletionStarted
from zenray.context.suggestion.reuse import Gap, agrees
from zenray.engine.request import Delta, Final, FinishReason, GenerateEvent, Started, Timings, Usage
from zenray.errors import DeadlineExceeded

Events = AsyncGenerator[GenerateEvent, None]


class Diverged(Exception):
    """The text turned out not to be what was typed, or to end there. Nothing of it was passed on."""


class Generation:
    """Runs `events` to their end, whoever reads how slowly, and keeps them: listeners read what they missed first.
    What is kept is bounded by the request's max_tokens.

    It ends early by `end`, and when the last listener leaves. `on_end` is called once, however it ends.
    """

    def __init__(self, gap: Gap, num_choices: int, events: Events, on_end: Callable[[Generation], None]) -> None:
        self.gap = gap
        self.started: Started | None = None
        self.num_tokens = 0
        self.reason: FinishReason | None = None
        """Why it was ended early; None while it runs, and when it ended by itself or failed."""
        self.final: Final | None = None
        """Of its first choice."""
        self._on_end = on_end
        self._history: list[Delta | Final] = []
        self._texts = [""] * num_choices
        self._num_open = num_choices
        self._num_listeners = 0
        self._failure: Exception | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(events))

    @property
    def text(self) -> str:
        """Of its first choice, so far."""
        return self._texts[0]

    def end(self, reason: FinishReason) -> None:
        """Stops the work at once. Listeners get a Final with what they have, for `reason`; SUPERSEDED says so even to
        one that was still waiting for its first character."""
        if not self._ended:
            self.reason = reason
            self._task.cancel()
            self._end()

    def outcome(self) -> Final | None:
        """Of its first choice, once it has ended: the verifier's, or what a deadline left. None when it failed or was
        given up."""
        if self.reason is None:
            return self.final
        if self.reason is not FinishReason.DEADLINE:
            return None
        started = self.started or Started(0, 0)
        usage = Usage(started.prompt_tokens, self.num_tokens, started.cached_tokens)
        return Final(0, self.text, FinishReason.DEADLINE, usage, Timings(0.0, 0.0, 0.0))

    async def listen(self, typed: str | None, deadline_s: float) -> Events:
        """The events, from the first one on, until `deadline_s` of the monotonic clock. A request that joined gets
        them behind what was `typed` of the text; its usage counts what is generated from then on.

        Raises Diverged before anything else came when the text is not `typed` and more, DeadlineExceeded when the
        deadline passed before a token, and what the generation failed with.
        """
        self._num_listeners += 1
        reason = FinishReason.CANCELLED  # unless something else happens, the caller left
        listener = _Listener(self, typed, len(self._texts))
        try:
            while True:
                for event in listener.news(self._history):
                    yield event
                if self._ended:
                    break
                changed = self._changed
                try:
                    async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                        await changed.wait()
                except TimeoutError:
                    reason = FinishReason.DEADLINE
                    for event in listener.cut(reason):
                        yield event
                    return
            if self._failure is not None:
                raise self._failure
            if self.reason is not None:
                for event in listener.cut(self.reason):
                    yield event
        finally:
            self._num_listeners -= 1
            if not self._num_listeners:
                self.end(reason)

    async def _run(self, events: Events) -> None:
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    self._record(event)
        except Exception as failure:
            self._failure = failure
        if not self._ended:
            self._end()

    def _record(self, event: GenerateEvent) -> None:
        if isinstance(event, Started):
            self.started = event
        else:
            self._history.append(event)
            if isinstance(event, Delta):
                self._texts[event.index] += event.text
                self.num_tokens += len(event.token_ids)
            else:
                self._num_open -= 1
                if event.index == 0:
                    self.final = event
        if self._num_open:
            self._tell()
        else:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._tell()
        self._on_end(self)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Listener:
    """What one listener has got. `typed` None is whoever the generation was begun for."""

    def __init__(self, generation: Generation, typed: str | None, num_choices: int) -> None:
        self._generation, self._typed = generation, typed
        self._arrived_s = time.monotonic()
        self._first_token_s: float | None = None
        self._has_begun = False
        self._num_read = 0
        self._texts = [""] * num_choices
        self._num_tokens = [0] * num_choices
        self._open = set(range(num_choices))

    def news(self, history: list[Delta | Final]) -> Iterator[GenerateEvent]:
        """What has come since the last call. Raises Diverged."""
        generation = self._generation
        if not self._has_begun:
            if generation.started is None or (self._typed is not None and not self._is_typed_through(self._typed)):
                return
            self._has_begun = True
            if self._typed is None:
                yield generation.started
            else:
                yield reused(generation.started)
                self._num_read = len(history) - (generation.final is not None)
                yield self._delta(Delta(0, generation.text[len(self._typed) :], ()))
        while self._num_read < len(history):
            event = history[self._num_read]
            self._num_read += 1
            yield self._delta(event) if isinstance(event, Delta) else self._final(event)

    def cut(self, reason: FinishReason) -> Iterator[GenerateEvent]:
        """Ends every open choice. Raises DeadlineExceeded for a deadline before the first token."""
        if reason is FinishReason.DEADLINE and self._first_token_s is None:
            raise DeadlineExceeded("the deadline passed before a token came")
        started = self._generation.started or CompletionStarted(0, 0)
        if not self._has_begun:
            self._has_begun = True
            yield started if self._typed is None else reused(started)
        for index in sorted(self._open):
            usage = Usage(started.prompt_tokens, self._num_tokens[index], started.cached_tokens)
            yield Final(index, self._texts[index], reason, usage, self._timings())

    def _is_typed_through(self, typed: str) -> bool:
        """The text goes on behind `typed`."""
        generation = self._generation
        if generation.reason is not None:
            return False
        if not agrees(typed, generation.text) or (generation.final is not None and len(generation.text) <= len(typed)):
            raise Diverged
        return len(generation.text) > len(typed)

    def _delta(self, delta: Delta) -> Delta:
        if self._first_token_s is None:
            self._first_token_s = time.monotonic()
        self._texts[delta.index] += delta.text
        self._num_tokens[delta.index] += len(delta.token_ids)
        return delta

    def _final(self, final: Final) -> Final:
        self._open.discard(final.index)
        if self._typed is None:
            return final
        usage = Usage(final.usage.prompt_tokens, self._num_tokens[0], final.usage.cached_tokens)
        return Final(0, self._texts[0], final.finish_reason, usage, self._timings())

    def _timings(self) -> Timings:
        first_token_s = self._arrived_s if self._first_token_s is None else self._first_token_s
        return Timings(0.0, (first_token_s - self._arrived_s) * 1000, (time.monotonic() - self._arrived_s) * 1000)


def reused(started: Started) -> CompletionStarted:
    """`started` as a request hears it that did not begin this completion."""
    attribution = started.attribution if isinstance(started, CompletionStarted) else ()
    return CompletionStarted(started.prompt_tokens, started.cached_tokens, (), attribution, True)
