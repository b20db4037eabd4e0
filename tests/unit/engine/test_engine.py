"""The engine as its callers see it: events, limits, cancellation, priorities, and blocks that come back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from zenray.engine.engine import Engine
from zenray.engine.request import (
    Delta,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Started,
    TextStops,
)
from zenray.engine.stopping import TextEnd, TextRule
from zenray.errors import InvalidRequest, Overloaded

MakeEngine = Callable[..., Engine]
PROMPT = tuple(b"def fibonacci(n):\n    return ")


def request(max_tokens: int = 8, prompt: tuple[int, ...] = PROMPT, priority: Priority = Priority.INTERACTIVE,
            sampling: Sampling | None = None, **limits: object) -> GenerateRequest:  # fmt: skip
    limits.setdefault("ignore_eos", True)
    return GenerateRequest("r", prompt, sampling or Sampling(), Limits(max_tokens=max_tokens, **limits), priority)  # type: ignore[arg-type]


def run(engine: Engine, *requests: GenerateRequest) -> list[list[GenerateEvent]]:
    handles = [engine.add(r) for r in requests]
    events: dict[int, list[GenerateEvent]] = {handle: [] for handle in handles}
    while engine.has_work:
        for handle, event in engine.step():
            events[handle].append(event)
        engine.check_integrity()
    return [events[handle] for handle in handles]


def tokens(events: list[GenerateEvent], index: int = 0) -> list[int]:
    return [t for e in events if isinstance(e, Delta) and e.index == index for t in e.token_ids]


def final(events: list[GenerateEvent], index: int = 0) -> Final:
    (event,) = [e for e in events if isinstance(e, Final) and e.index == index]
    return event


def test_a_request_starts_streams_and_ends_once(make_engine: MakeEngine) -> None:
    (events,) = run(make_engine(), request(8))
    assert events[0] == Started(len(PROMPT), 0)
    assert isinstance(events[-1], Final)
    assert all(isinstance(e, Delta) for e in events[1:-1])
    assert len(tokens(events)) == 8 == final(events).usage.completion_tokens
    assert "".join(e.text for e in events if isinstance(e, Delta)) == final(events).text
    assert final(events).finish_reason is FinishReason.LENGTH
    timings = final(events).timings
    assert 0 <= timings.queue_ms <= timings.first_token_ms <= timings.total_ms


def test_a_repeat_finds_its_prompt_in_the_prefix_cache(make_engine: MakeEngine) -> None:
    engine = make_engine(block_size=4)
    (first,), (again,) = run(engine, request()), run(engine, request(prompt=(*PROMPT, 10, 11)))
    assert final(first).usage.cached_tokens == 0
    assert final(again).usage.cached_tokens == len(PROMPT) // 4 * 4
    engine.pool.clear_cache()
    assert engine.pool.num_free == engine.pool.num_blocks


def test_every_kind_of_end(make_engine: MakeEngine) -> None:
    engine = make_engine()
    (events,) = run(engine, request(12))
    produced = tokens(events)
    text = final(events).text

    (events,) = run(engine, request(12, stop_token_ids=(produced[3],)))
    first = produced.index(produced[3])
    assert (tokens(events), final(events).finish_reason) == (produced[: first + 1], FinishReason.STOP)
    assert text.startswith(final(events).text), "the token that stops is reported, but is no text"

    stop = text[4:6]
    (events,) = run(engine, request(12, stop=(stop,)))
    assert final(events).text == text[: text.index(stop)]
    assert final(events).finish_reason is FinishReason.STOP

    (events,) = run(engine, request(0))
    assert [type(e) for e in events] == [Started, Final]
    assert final(events).usage.completion_tokens == 0


def test_the_token_that_ends_the_text_is_reported_with_its_logprob(make_engine: MakeEngine) -> None:
    engine = make_engine()
    eos = min(engine.model.tokenizer.eos_token_ids)
    engine.runner.head = lambda states_RD: torch.eye(engine.model.config.vocab_size)[[eos] * len(states_RD)] * 9  # type: ignore[method-assign]
    (events,) = run(engine, request(5, ignore_eos=False, sampling=Sampling(logprobs=1)))
    assert tokens(events) == [eos]
    assert events[-2].logprobs[0].top[0][0] == eos  # type: ignore[union-attr]
    assert (final(events).text, final(events).finish_reason) == ("", FinishReason.EOS)
    assert final(events).usage.completion_tokens == 1


def test_choices_differ_and_the_first_is_the_only_ones_twin(make_engine: MakeEngine) -> None:
    engine = make_engine()
    (alone,) = run(engine, request(10, sampling=Sampling(temperature=1.5, seed=3)))
    (events,) = run(engine, request(10, sampling=Sampling(temperature=1.5, seed=3, n=3)))
    assert sum(isinstance(e, Started) for e in events) == 1
    streams = [tuple(tokens(events, index)) for index in range(3)]
    assert streams[0] == tuple(tokens(alone))
    assert len(set(streams)) == 3
    assert final(events, 2).usage.cached_tokens == len(PROMPT) // 4 * 4, "siblings share the prompt's blocks"


def test_cancelling_frees_blocks_before_the_next_step(make_engine: MakeEngine) -> None:
    engine = make_engine()
    handle = engine.add(request(100, sampling=Sampling(n=2)))
    kept = engine.add(request(20, prompt=PROMPT[5:]))
    for _ in range(4):
        engine.step()
    engine.cancel(handle)
    events = engine.step()
    ended = [e for h, e in events if h == handle and isinstance(e, Final)]
    assert [e.finish_reason for e in ended] == [FinishReason.CANCELLED] * 2
    assert engine.load().running_sequences == 1
    engine.check_integrity()
    rest = [e for _ in range(30) for h, e in engine.step() if h == kept]
    assert isinstance(rest[-1], Final)
    assert not engine.has_work
    engine.check_integrity()


def test_a_request_cancelled_before_its_first_step_never_runs(make_engine: MakeEngine) -> None:
    engine = make_engine()
    handle = engine.add(request(sampling=Sampling(n=3)))
    engine.cancel(handle)
    assert [type(e) for _, e in engine.step()] == [Final] * 3
    assert not engine.has_work
    engine.check_integrity()


def test_a_deadline_returns_what_there_is(tiny_model, make_engine: MakeEngine) -> None:  # type: ignore[no-untyped-def]
    now = [0.0]
    engine = Engine(tiny_model, make_engine().settings, clock=lambda: now[0])
    handle = engine.add(request(100, deadline_ms=50))
    engine.step()
    engine.step()
    now[0] = 0.051
    (_, last) = engine.step()[-1]
    assert handle
    assert isinstance(last, Final)
    assert last.finish_reason is FinishReason.DEADLINE
    assert last.usage.completion_tokens == 2
    engine.check_integrity()


def test_a_full_queue_refuses_and_recovers(make_engine: MakeEngine) -> None:
    engine = make_engine(max_running_sequences=1, max_waiting_sequences=2)
    for _ in range(3):
        engine.add(request(2))
    with pytest.raises(Overloaded) as refused:
        engine.add(request(2))
    assert refused.value.retry_after_ms
    while engine.has_work:
        engine.step()
    run(engine, request(2))


@pytest.mark.parametrize(("prompt_length", "max_tokens"), [(0, 1), (30, 11), (41, 0)])
def test_a_sequence_that_can_never_fit_is_refused(make_engine: MakeEngine, prompt_length: int, max_tokens: int) -> None:
    engine = make_engine(num_blocks=10, block_size=4)
    with pytest.raises(InvalidRequest, match="40 tokens of prompt plus completion"):
        engine.add(request(max_tokens, prompt=(65,) * prompt_length))
    assert not engine.has_work


def test_interactive_goes_first_and_preempts_batch(make_engine: MakeEngine) -> None:
    engine = make_engine(num_blocks=12, block_size=4, max_running_sequences=4)
    batch = engine.add(request(16, prompt=(65,) * 24, priority=Priority.BATCH))
    for _ in range(3):
        engine.step()
    urgent = engine.add(request(4, prompt=(66,) * 28))
    order = [h for _ in range(60) for h, e in engine.step() if isinstance(e, Final)]
    assert order == [urgent, batch]
    assert engine.load().preemptions == 1
    engine.check_integrity()


def test_a_long_prompt_does_not_stall_a_stream(make_engine: MakeEngine) -> None:
    engine = make_engine(max_step_tokens=64, mixed_step_tokens=8)
    stream = engine.add(request(40, sampling=Sampling(logprobs=0)))  # a delta for every token
    engine.step()
    engine.add(request(1, prompt=(70,) * 100))
    for _ in range(12):
        assert any(h == stream and isinstance(e, Delta) for h, e in engine.step()), "a token in every step"


def test_prompt_logprobs_are_the_same_in_any_chunking(make_engine: MakeEngine) -> None:
    def prompt_logprobs(**fields: int) -> Started:
        engine = make_engine(**fields)
        run(engine, request(1))  # the prefix cache must not swallow the rows
        (events,) = run(engine, request(1, sampling=Sampling(prompt_logprobs=True, logprobs=2, n=2)))
        assert isinstance(events[0], Started)
        return events[0]

    whole, chunked = prompt_logprobs(), prompt_logprobs(max_step_tokens=5, mixed_step_tokens=5)
    assert [entry.token_id for entry in whole.prompt_logprobs] == list(PROMPT)
    assert whole.prompt_logprobs[0].logprob is None
    for a, b in zip(whole.prompt_logprobs[1:], chunked.prompt_logprobs[1:], strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-9)
        assert len(a.top) == 2
        assert a.top[0][1] >= a.logprob


def test_logprobs_accompany_every_token(make_engine: MakeEngine) -> None:
    (events,) = run(make_engine(), request(6, sampling=Sampling(logprobs=1)))
    entries = [entry for e in events if isinstance(e, Delta) for entry in e.logprobs]
    assert [entry.token_id for entry in entries] == tokens(events)
    assert all(entry.top[0][0] == entry.token_id for entry in entries), "greedy picks the most likely"


class RaisesBehind:
    """A rule with a mistake in it, met where a text has grown to `length` characters."""

    def __init__(self, length: int, in_held_back: bool) -> None:
        self._length, self._in_held_back = length, in_held_back

    def find_end(self, text: str, searched: int) -> TextEnd | None:
        return None if self._in_held_back else self._check(text)

    def held_back(self, text: str) -> int:
        self._check(text)
        return 1

    def _check(self, text: str) -> None:
        if len(text) >= self._length:
            raise ValueError(text)


@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("in_held_back", [True, False])
def test_a_rule_that_raises_ends_neither_the_engine_nor_its_text(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture, length: int, in_held_back: bool
) -> None:
    (plain,) = run(make_engine(), request(8))
    engine = make_engine(make_text_rule=lambda _: RaisesBehind(length, in_held_back))
    (ruled,) = run(engine, replace(request(8), text_stops=TextStops(scope_end=True)))
    assert (final(ruled).text, tokens(ruled)) == (final(plain).text, tokens(plain))
    assert "".join(e.text for e in ruled if isinstance(e, Delta)) == final(ruled).text
    (record,) = caplog.records
    assert "ValueError" in record.getMessage()
    assert final(ruled).text not in record.getMessage()
    assert record.exc_info is None


def test_a_rule_that_cannot_be_made_judges_nothing(make_engine: MakeEngine) -> None:
    def fail(_: TextStops) -> TextRule:
        raise RecursionError

    (ruled,) = run(make_engine(make_text_rule=fail), replace(request(4), text_stops=TextStops(repetition=True)))
    assert final(ruled).finish_reason is FinishReason.LENGTH
