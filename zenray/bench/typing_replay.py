"""Typing sessions against a server, open loop: every key at its own time, whatever the server does meanwhile.

Each edit asks for a completion, as editors do. The next edit or cursor move makes the request obsolete: nothing that
comes later is shown. A server that supersedes by itself is left to do so; for all others the client closes the
connection, which is the best it can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, cast

from zenray.bench.statistics import Arrival, first_line_s
from zenray.bench.targets import Chunk, Ended
from zenray.bench.typing_sessions import Edited, Event, Moment, Opened, TypingSession, moments

MAX_UNDER_WAY = 10_000
GRACE_S = 5.0
"""How long the last request of a session may take."""


@dataclass(frozen=True, slots=True)
class Began:
    """The prompt is taken. `reused`: the text comes from a completion begun for an earlier request."""

    prompt_tokens: int | None
    cached_tokens: int | None
    reused: bool = False


class TypingTarget(Protocol):
    """A server that completes while somebody types. `open` inside the event loop that will use it."""

    supersedes: bool
    """Whether a newer request ends the older one without the client's help."""
    one_at_a_time: bool
    """Whether the client closes nothing, and sends the newest request when the one under way has ended."""

    async def open(self) -> None: ...

    async def begin(self, session_id: str, opened: Sequence[Opened]) -> None:
        """A new editor session with these documents."""
        ...

    def see(self, event: Event) -> None:
        """Something happened in the editor. Returns at once."""
        ...

    def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
        """One completion at the cursor; `Began` where the server tells, chunks, `Ended`. Raises whatever fails it."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SuggestionRecord:
    """One request, seconds on the event loop's clock.

    `obsolete_s` is when the user went on, None behind the last event. `ended_s` is when the stream ended or was
    closed. Token counts are the server's; None where it did not tell before it was cut off.
    """

    session: str
    number: int
    due_s: float
    sent_s: float
    obsolete_s: float | None
    ended_s: float
    typed_next: str
    arrivals: tuple[Arrival, ...] = ()
    began: Began | None = None
    ended: Ended | None = None
    error: str = ""

    @property
    def quiet_ms(self) -> float:
        """How long the user waited before going on."""
        return float("inf") if self.obsolete_s is None else (self.obsolete_s - self.due_s) * 1e3

    def in_time(self, at_s: float) -> bool:
        """Whether something that happened then was still of use."""
        return self.obsolete_s is None or at_s < self.obsolete_s

    @property
    def shown(self) -> str:
        """The text that was there before the user went on."""
        return "".join(arrival.text for arrival in self.arrivals if self.in_time(arrival.at_s))

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first visible text; None when the user went on before, or there is none."""
        first = next((arrival.at_s for arrival in self.arrivals if arrival.text), None)
        return (first - self.due_s) * 1e3 if first is not None and self.in_time(first) else None

    @property
    def tfcl_ms(self) -> float | None:
        """Time to the first complete line that is not blank, or to the end of a shorter text; None as above."""
        first_s = first_line_s(self.arrivals)
        if first_s is None and self.ended is not None and not self.error:
            has_text = any(arrival.text.strip() for arrival in self.arrivals)
            first_s = self.ended_s if has_text else None
        return (first_s - self.due_s) * 1e3 if first_s is not None and self.in_time(first_s) else None

    @property
    def total_ms(self) -> float | None:
        """Until the stream ended by itself; None as above."""
        ended = self.ended is not None and not self.error and self.in_time(self.ended_s)
        return (self.ended_s - self.due_s) * 1e3 if ended else None

    @property
    def completion_tokens(self) -> int:
        """As the server counted them, else those that arrived."""
        if self.ended is not None and self.ended.completion_tokens is not None:
            return self.ended.completion_tokens
        return sum(arrival.num_tokens for arrival in self.arrivals)


async def replay(session: TypingSession, target: TypingTarget, session_id: str) -> list[SuggestionRecord]:
    """Types `session` in real time; a record per edit, in order. A failed request is a record with `error`."""
    loop = asyncio.get_running_loop()
    opened = [event for event in session.events if isinstance(event, Opened)]
    await target.begin(session_id, opened)
    due_moments = moments(session)
    start_s = loop.time()
    tasks: list[asyncio.Task[SuggestionRecord]] = []
    under_way = asyncio.Semaphore(1 if target.one_at_a_time else MAX_UNDER_WAY)
    sent: set[int] = set()
    for event in session.events:
        if isinstance(event, Opened):
            continue
        due_s = start_s + event.time_ms / 1e3
        await asyncio.sleep(due_s - loop.time())
        if tasks and not target.supersedes and not (target.one_at_a_time and len(tasks) - 1 in sent):
            tasks[-1].cancel()
        target.see(event)
        if isinstance(event, Edited):
            asked = _suggestion(target, session.name, len(tasks), next(due_moments), due_s, under_way, sent)
            tasks.append(loop.create_task(asked))
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE_S)
        for task in tasks:
            task.cancel()
    return list(await asyncio.gather(*tasks))


async def _suggestion(
    target: TypingTarget,
    session: str,
    number: int,
    moment: Moment,
    due_s: float,
    under_way: asyncio.Semaphore,
    sent: set[int],
) -> SuggestionRecord:
    loop = asyncio.get_running_loop()
    sent_s = loop.time()
    arrivals: list[Arrival] = []
    began: Began | None = None
    ended: Ended | None = None
    error = ""
    try:
        async with under_way, aclosing(cast(Any, target.suggest(moment))) as stream:
            sent.add(number)
            sent_s = loop.time()
            async for item in stream:
                if isinstance(item, Began):
                    began = item
                elif isinstance(item, Ended):
                    ended = item
                else:
                    arrivals.append(Arrival(loop.time(), item.num_tokens, item.text))
    except asyncio.CancelledError:
        pass  # by `replay`, because the user went on: what has come is the record
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    return SuggestionRecord(
        session=session,
        number=number,
        due_s=due_s,
        sent_s=sent_s,
        obsolete_s=None if moment.quiet_ms is None else due_s + moment.quiet_ms / 1e3,
        ended_s=loop.time(),
        typed_next=moment.typed_next,
        arrivals=tuple(arrivals),
        began=began,
        ended=ended,
        error=error,
    )
