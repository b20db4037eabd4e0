"""One completion at a time for a document, shared by all who ask for it: no listener is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.suggestion.model import CompletionStarted
from zenray.context.suggestion.reuse import MIN_CUT_CHARACTERS, Gap, gap_of
from zenray.engine.request import Delta, Final, FinishReason, GenerateEvent, Limits, Sampling, Started, Timings, Usage
from zenray.errors import DeadlineExceeded, Unavailable
from zenray.serving.generations import Generations

KEY = ("s", "a.py")
WRITTEN = "def area(width, height):\n    return width * height\n"
"""What the user types and the model knows by heart."""
LENGTH = 8


def gap(before: str, after: str = "", sampling: Sampling | None = None) -> Gap:
    editor = EditorState("a.py", "python", before + after, len(before))
    request = CompletionRequest("r", editor, "s", limits=Limits(64), suggestion=FOR_EDITORS)
    return gap_of(replace(request, sampling=sampling or Sampling()))


class Counted:
    """The metrics of a registry."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()
        self.times: Counter[str] = Counter()

    def wasted(self, num_tokens: int, reason: str) -> None:
        self.tokens[reason] += num_tokens

    def superseded(self) -> None:
        self.times["superseded"] += 1

    def joined(self, num_tokens: int) -> None:
        self.times["joined"] += 1
        self.tokens["joined"] += num_tokens

    def reused(self, num_tokens: int) -> None:
        self.times["reused"] += 1
        self.tokens["reused"] += num_tokens


class Run:
    """A verifier's stream: a token for each character, each when the test says so."""

    def __init__(self, text: str, reason: FinishReason = FinishReason.EOS, num_choices: int = 1) -> None:
        self.text = text
        self.is_open = True
        usage = Usage(10, len(text), 4)
        self._events: list[GenerateEvent] = [Started(10, 4)]
        for index in range(num_choices):
            self._events += [Delta(index, character, (1,)) for character in text]
            self._events.append(Final(index, text, reason, usage, Timings(1, 2, 3)))
        self._released = asyncio.Semaphore(0)
        self.failure: Exception | None = None

    async def events(self) -> AsyncGenerator[GenerateEvent, None]:
        try:
            for event in self._events:
                await self._released.acquire()
                if self.failure is not None:
                    raise self.failure
                yield event
        finally:
            self.is_open = False

    async def step(self, num_events: int = 1) -> None:
        for _ in range(num_events):
            self._released.release()
            await settle()

    async def finish(self) -> None:
        await self.step(len(self._events))


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@dataclass
class Client:
    """A request, and what came of it."""

    before: str
    events: list[GenerateEvent] = field(default_factory=list)
    error: Exception | None = None
    task: asyncio.Task[None] | None = None

    @property
    def final(self) -> Final | None:
        return self.events[-1] if self.events and isinstance(self.events[-1], Final) else None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta))

    @property
    def reused(self) -> bool:
        started = self.events[0]
        return isinstance(started, CompletionStarted) and started.reused


class World:
    """A registry, a model that knows WRITTEN by heart, and clients."""

    def __init__(self, max_finished: int = 3, written: str = WRITTEN) -> None:
        self.counted = Counted()
        self.generations = Generations(max_finished, 4, self.counted)
        self.runs: list[Run] = []
        self.clients: list[Client] = []
        self._written = written

    def _generate(self, before: str) -> AsyncGenerator[GenerateEvent, None]:
        known = self._written.startswith(before)
        self.runs.append(Run(self._written[len(before) :][:LENGTH] if known else "??"))
        return self.runs[-1].events()

    async def ask(self, before: str, after: str = "", deadline_s: float = 60, **fields: object) -> Client:
        client = Client(before)
        asked = gap(before, after, **fields)  # type: ignore[arg-type]
        deadline_s += time.monotonic()

        async def read() -> None:
            stream = self.generations.complete(KEY, asked, 1, deadline_s, lambda: self._generate(before))
            try:
                async with aclosing(stream) as events:
                    async for event in events:
                        client.events.append(event)
            except Exception as error:
                client.error = error

        client.task = asyncio.create_task(read())
        self.clients.append(client)
        await settle()
        return client

    async def prefetch(self, before: str) -> asyncio.Task[int]:
        asked = self.generations.prefetch(KEY, gap(before), time.monotonic() + 60, lambda: self._generate(before))
        task = asyncio.create_task(asked)
        await settle()
        return task

    async def leave(self, client: Client) -> None:
        assert client.task is not None
        client.task.cancel()
        await settle()

    @property
    def open_runs(self) -> list[Run]:
        return [run for run in self.runs if run.is_open]


async def test_typing_through_a_running_completion_joins_it() -> None:
    world = World()
    first = await world.ask("def ")
    await world.runs[0].step(4)  # Started, "a", "r", "e"
    second = await world.ask("def ar")
    assert second.text == "e"
    third = await world.ask("def area(")
    assert third.events == []  # typed ahead of the text: it waits
    await world.runs[0].finish()
    assert len(world.runs) == 1
    assert [client.text for client in (first, second, third)] == ["area(wid", "ea(wid", "wid"]
    assert [client.reused for client in (first, second, third)] == [False, True, True]
    assert [client.final.usage.completion_tokens for client in (first, second, third)] == [8, 5, 2]  # type: ignore[union-attr]
    assert world.counted.times == {"joined": 2}
    assert world.counted.tokens == {"joined": 6 + 3}


async def test_a_finished_completion_is_typed_through_without_the_verifier() -> None:
    world = World()
    await world.ask("def ")
    await world.runs[0].finish()
    for typed in range(1, LENGTH):
        client = await world.ask(f"def {'area(wid'[:typed]}")
        assert client.text == "area(wid"[typed:]
        assert client.final is not None
        assert (client.reused, client.final.text, client.final.usage.completion_tokens) == (True, client.text, 0)
    back = await world.ask("def ")
    assert back.text == "area(wid"
    beyond = await world.ask("def area(wid")
    await world.runs[1].finish()
    assert beyond.text == "th, heig"
    assert len(world.runs) == 2
    assert world.counted.times["reused"] == LENGTH
    assert world.counted.tokens["reused"] == sum(range(1, LENGTH + 1))


async def test_a_newer_request_ends_the_older_at_once() -> None:
    world = World()
    first = await world.ask("def ")
    await world.runs[0].step(3)
    second = await world.ask("def x")
    assert not world.runs[0].is_open
    assert first.final is not None
    assert (first.final.finish_reason, first.final.text) == (FinishReason.SUPERSEDED, "ar")
    assert first.final.usage == Usage(10, 2, 4)
    await world.runs[1].finish()
    assert second.text == "??"
    assert world.counted.times == {"superseded": 1}
    assert world.counted.tokens == {"superseded": 2}


async def test_a_request_that_typed_ahead_wrongly_gets_a_completion_of_its_own() -> None:
    world = World()
    first = await world.ask("def ")
    await world.runs[0].step(2)
    second = await world.ask("def abc")
    assert second.events == []
    await world.runs[0].step()
    assert first.final is not None
    assert first.final.finish_reason is FinishReason.SUPERSEDED
    await world.runs[1].finish()
    assert (second.reused, second.text) == (False, "??")


async def test_a_request_that_typed_the_whole_text_ahead_gets_what_follows() -> None:
    world = World()
    await world.ask("def ")
    second = await world.ask("def area(wid")
    await world.runs[0].finish()
    await world.runs[1].finish()
    assert (second.reused, second.text) == (False, "th, heig")


async def test_one_that_has_to_start_over_gives_way_to_a_newer_one() -> None:
    world = World()
    await world.ask("def ")
    stale = await world.ask("def abc")
    newest = await world.ask("def ar")
    await world.runs[0].finish()
    assert [type(event) for event in stale.events] == [CompletionStarted, Final]
    assert stale.final is not None
    assert stale.final.finish_reason is FinishReason.SUPERSEDED
    assert newest.text == "ea(wid"
    assert len(world.runs) == 1


async def test_a_listener_that_leaves_stops_nothing_for_the_others() -> None:
    world = World()
    first = await world.ask("def ")
    await world.runs[0].step(3)
    second = await world.ask("def a")
    await world.leave(first)
    assert world.runs[0].is_open
    await world.leave(second)
    assert not world.runs[0].is_open
    assert world.generations.num_documents == 0
    assert world.counted.tokens == {"cancelled": 2}


async def test_each_has_its_own_deadline() -> None:
    world = World()
    patient = await world.ask("def ")
    await world.runs[0].step(3)
    hasty = await world.ask("def a", deadline_s=0.02)
    nothing_yet = await world.ask("def area", deadline_s=0.02)
    assert hasty.task is not None
    assert nothing_yet.task is not None
    await asyncio.wait([hasty.task, nothing_yet.task], timeout=5)
    assert hasty.final is not None
    assert (hasty.final.finish_reason, hasty.final.text) == (FinishReason.DEADLINE, "r")
    assert isinstance(nothing_yet.error, DeadlineExceeded)
    await world.runs[0].finish()
    assert patient.text == "area(wid"


async def test_what_a_deadline_left_is_typed_through_while_enough_of_it_remains() -> None:
    world = World(written=f"def {'x' * 100}")
    first = await world.ask("def ", deadline_s=0.02)
    await world.runs[0].step(1 + LENGTH)
    assert first.task is not None
    await asyncio.wait([first.task], timeout=5)
    assert not world.runs[0].is_open
    assert first.text == "x" * LENGTH
    assert LENGTH < MIN_CUT_CHARACTERS
    await world.ask("def x")
    assert len(world.runs) == 2


async def test_a_failure_reaches_every_listener() -> None:
    world = World()
    first = await world.ask("def ")
    await world.runs[0].step(2)
    second = await world.ask("def a")
    world.runs[0].failure = Unavailable("lost")
    await world.runs[0].step()
    assert isinstance(first.error, Unavailable)
    assert isinstance(second.error, Unavailable)
    assert world.counted.tokens == {"failed": 1}
    assert world.generations.num_documents == 0


async def test_a_seed_asks_for_its_own_text_but_supersedes() -> None:
    world = World()
    first = await world.ask("def ")
    await world.ask("def ", sampling=Sampling(seed=3))
    assert first.final is not None
    assert first.final.finish_reason is FinishReason.SUPERSEDED
    await world.runs[1].finish()
    await world.ask("def a")
    assert len(world.runs) == 3


async def test_a_superseded_request_for_several_choices_ends_each() -> None:
    counted = Counted()
    generations = Generations(3, 4, counted)
    run, events = Run("ab", num_choices=2), []
    stream = generations.complete(KEY, gap("x", sampling=Sampling(n=2)), 2, time.monotonic() + 60, run.events)
    reading = asyncio.create_task(anext(stream))
    await settle()
    await run.step(4)  # Started, and the whole first choice
    events.append(await reading)
    other = generations.complete(KEY, gap("y"), 1, time.monotonic() + 60, Run("c").events)
    waiting = asyncio.create_task(anext(other))
    await settle()
    events += [event async for event in stream]
    finals = {event.index: event.finish_reason for event in events if isinstance(event, Final)}
    assert finals == {0: FinishReason.EOS, 1: FinishReason.SUPERSEDED}
    waiting.cancel()
    await settle()
    assert generations.num_documents == 0


async def test_a_prefetch_is_there_for_the_request_to_come() -> None:
    world = World()
    prefetch = await world.prefetch("def ")
    await world.runs[0].finish()
    assert await prefetch == LENGTH
    client = await world.ask("def a")
    assert (client.text, client.reused) == ("rea(wid", True)
    assert len(world.runs) == 1
    assert await (await world.prefetch("def ar")) == LENGTH - 2


async def test_a_prefetch_gives_way_unless_its_text_is_there_to_be_shown() -> None:
    world = World()
    waiting = await world.prefetch("def ")
    first = await world.ask("def ")
    assert await waiting == 0
    assert await (await world.prefetch("def x")) == 0
    await world.leave(first)
    flowing = await world.prefetch("def ")
    await world.runs[2].step(3)
    joined = await world.ask("def a")
    assert joined.text == "r"
    await world.runs[2].finish()
    assert await flowing == LENGTH
    assert world.counted.tokens["unused"] == 0


async def test_a_session_that_ends_takes_its_completions_along() -> None:
    world = World()
    await world.ask("def ")
    await world.runs[0].finish()
    running = await world.ask("def area(wid")
    await world.runs[1].step(3)
    world.generations.end_session("another")
    assert world.runs[1].is_open
    world.generations.end_session("s")
    await settle()
    assert running.final is not None
    assert (running.final.finish_reason, running.final.text) == (FinishReason.CANCELLED, "th")
    assert world.open_runs == []
    assert world.generations.num_documents == 0
    await world.ask("def ")
    assert len(world.runs) == 3


async def test_an_unused_prefetch_is_waste() -> None:
    world = World(max_finished=1)
    prefetch = await world.prefetch("def ")
    await world.runs[0].finish()
    await prefetch
    world.generations.end_session("s")
    assert world.counted.tokens == {"unused": LENGTH}
    client = await world.ask("def ")
    await world.runs[1].finish()
    assert not client.reused


steps = st.lists(
    st.one_of(
        st.tuples(st.just("type"), st.integers(1, 4)),
        st.tuples(st.just("mistype"), st.just(0)),
        st.tuples(st.just("back"), st.integers(1, 6)),
        st.tuples(st.just("step"), st.integers(1, 12)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("prefetch"), st.integers(0, 6)),
        st.tuples(st.just("ask again"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens_everybody_gets_a_whole_answer_and_nothing_stays(actions: list[tuple[str, int]]) -> None:
    asyncio.run(_interleave(actions))


async def _interleave(actions: list[tuple[str, int]]) -> None:
    world, before, left, prefetches = World(), "", [], []
    for action, number in actions:
        if action == "step":
            if world.open_runs:
                await world.open_runs[-1].step(number)
        elif action == "leave":
            waiting = [client for client in world.clients if client.task is not None and not client.task.done()]
            if waiting:
                left.append(waiting[number % len(waiting)])
                await world.leave(left[-1])
        elif action == "prefetch":
            prefetches.append(await world.prefetch(before + WRITTEN[len(before) :][:number]))
        else:
            if action == "type":
                before += WRITTEN[len(before) :][:number]
            elif action == "mistype":
                before += "#"
            elif action == "back":
                before = before[:-number]
            await world.ask(before)
        assert len(world.open_runs) <= 1
        assert world.generations.num_running == len(world.open_runs)
    while world.open_runs:
        await world.open_runs[0].finish()
    assert world.generations.num_documents == 0
    assert all(task.done() for task in prefetches)
    runs = {run.text for run in world.runs}
    for client in world.clients:
        assert client.task is not None
        assert client.task.done()
        if client in left:
            continue
        final = client.final
        assert final is not None
        assert sum(isinstance(event, Final) for event in client.events) == 1
        assert isinstance(client.events[0], Started)
        assert final.text == client.text
        if final.finish_reason is not FinishReason.SUPERSEDED:
            assert client.text, client
            assert any(text.endswith(client.text) for text in runs)
            if WRITTEN.startswith(client.before):
                assert WRITTEN.startswith(client.before + client.text)


@pytest.mark.parametrize("max_finished", [0, 2])
async def test_of_a_session_no_more_is_kept_than_allowed(max_finished: int) -> None:
    world = World(max_finished)
    for before in ("", "def area(", "def area(width, heig"):
        await world.ask(before)
        await world.runs[-1].finish()
    reusable = [before for before in ("def area(width, heig", "def area(", "") if (await world.ask(before)).final]
    assert len(reusable) == max_finished
    assert len(world.runs) == 3 + 3 - max_finished
