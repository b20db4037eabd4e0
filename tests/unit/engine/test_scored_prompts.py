"""Prompts that are scored: what is computed of them, what is sent, and that nothing is left of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.engine import Engine
from zenray.engine.prompt_reader import quantise_rows
from zenray.engine.request import (
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Scored,
    ScoreEvent,
    Started,
)
from zenray.engine.scoring import ScoredRows, ScoreFormat, Scoring
from zenray.errors import InvalidRequest
from zenray.ops.batch import select_rows

MakeEngine = Callable[..., Engine]
AnyEvent = GenerateEvent | ScoreEvent
PROMPT = tuple(b"def fibonacci(n):\n    return ")
FORMAT = ScoreFormat(max_head=4)


def to_score(
    prompt: tuple[int, ...] = PROMPT,
    scoring: Scoring | None = None,
    priority: Priority = Priority.BATCH,
    deadline_ms: int | None = None,
) -> GenerateRequest:
    return GenerateRequest.to_score("r", prompt, scoring or Scoring(FORMAT), 7, priority, deadline_ms)


def urgent(length: int, max_tokens: int = 4) -> GenerateRequest:
    return GenerateRequest("u", (66,) * length, Sampling(), Limits(max_tokens=max_tokens, ignore_eos=True))


def finish(engine: Engine, handle: int) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    while engine.has_work:
        events += [event for of, event in engine.step() if of == handle]  # type: ignore[misc]
        engine.check_integrity()
    return events


def positions(events: list[AnyEvent]) -> list[int]:
    rows = [event.rows for event in events if isinstance(event, Scored)]
    return [position for part in rows for position in range(part.first_position, part.end_position)]


class Watched:
    """Which positions of scored prompts the engine has its model compute, and from which it reads."""

    def __init__(self, engine: Engine) -> None:
        self.computed: list[int] = []
        self.read: list[int] = []
        self._run = engine.runner.run
        engine.runner.run = self.run  # type: ignore[method-assign]

    def run(self, plan: list[Any], rows: list[int], hidden_layers: Any) -> Any:
        step = [
            (scheduled.sequence.request.scoring is not None, scheduled.sequence.num_computed + index)
            for scheduled in plan
            for index in range(scheduled.num_tokens)
        ]
        self.computed += [position for is_scored, position in step if is_scored]
        self.read += [position for is_scored, position in (step[row] for row in rows) if is_scored]
        return self._run(plan, rows, hidden_layers)


@given(
    length=st.integers(2, 40),
    first_scored=st.integers(1, 39),
    step_tokens=st.integers(1, 50),
    block_size=st.sampled_from([1, 4, 7]),
    num_known=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_predicts_no_scored_token_is_not_read_and_what_the_cache_has_is_not_computed(
    make_engine: MakeEngine, length: int, first_scored: int, step_tokens: int, block_size: int, num_known: int
) -> None:
    prompt = tuple(range(60, 60 + length))
    first_scored = min(first_scored, length - 1)
    engine = make_engine(block_size=block_size, max_step_tokens=step_tokens)
    if num_known:
        finish(engine, engine.add(GenerateRequest("k", prompt[:num_known], limits=Limits(max_tokens=0))))
    watched = Watched(engine)
    events = finish(engine, engine.add(to_score(prompt, Scoring(FORMAT, first_scored))))
    num_cached = min(num_known, length, first_scored - 1) // block_size * block_size
    assert watched.computed == list(range(num_cached, length - 1)), "nothing stands behind the last token"
    assert watched.read == list(range(first_scored - 1, length - 1))
    assert positions(events) == list(range(first_scored, length))
    assert isinstance(events[0], Started) and isinstance(events[-1], Final)
    assert events[0] == Started(length, num_cached)
    assert all(isinstance(event, Scored) for event in events[1:-1])
    usage = events[-1].usage
    assert (events[-1].finish_reason, usage.prompt_tokens, usage.completion_tokens) == (FinishReason.LENGTH, length, 0)


def test_scored_prompts_count_as_prompts_and_their_blocks_serve_others(make_engine: MakeEngine) -> None:
    engine = make_engine(block_size=4)
    finish(engine, engine.add(to_score()))
    (started, *_) = finish(engine, engine.add(replace(urgent(1), prompt_token_ids=PROMPT)))
    load = engine.load()
    assert started == Started(len(PROMPT), (len(PROMPT) - 1) // 4 * 4)
    assert (load.prompt_tokens, load.cached_prompt_tokens) == (2 * len(PROMPT), (len(PROMPT) - 1) // 4 * 4)
    assert (load.generated_tokens, load.rounds) == (4, 4), "nothing is generated where a prompt is scored"
    assert load.scored_tokens == len(PROMPT) - 1


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_preempted_it_goes_on_where_it_was(make_engine: MakeEngine, prefix_cache: bool) -> None:
    engine = make_engine(num_blocks=10, block_size=4, batch_step_tokens=6, prefix_cache=prefix_cache)
    undisturbed = finish(engine, engine.add(to_score(scoring=Scoring(FORMAT, 2))))
    engine.pool.clear_cache()
    watched = Watched(engine)
    handle = engine.add(to_score(scoring=Scoring(FORMAT, 2)))
    before: list[AnyEvent] = [event for _ in range(3) for _, event in engine.step()]  # type: ignore[misc]
    assert positions(before) == list(range(2, 19))
    engine.add(urgent(8))
    engine.add(urgent(16))
    events = before + finish(engine, handle)
    assert engine.load().preemptions == 1
    assert positions(events) == list(range(2, len(PROMPT))), "no position comes twice"
    assert sum(isinstance(event, Started) for event in events) == 1
    assert watched.read == list(range(1, len(PROMPT) - 1))
    assert watched.computed.count(3) == (1 if prefix_cache else 2)
    joined = [[row for event in run if isinstance(event, Scored) for row in event.rows.gold_logprobs_R.tolist()]
              for run in (events, undisturbed)]  # fmt: skip
    assert joined[0] == pytest.approx(joined[1], abs=1e-6)


def test_prompt_logprobs_survive_preemption(make_engine: MakeEngine) -> None:
    engine = make_engine(num_blocks=10, block_size=4, batch_step_tokens=6)
    limits, sampling = Limits(max_tokens=1, ignore_eos=True), Sampling(prompt_logprobs=True, logprobs=1)
    request = GenerateRequest("r", PROMPT, sampling, limits, Priority.BATCH)
    (undisturbed, *_) = finish(engine, engine.add(request))
    handle = engine.add(request)
    for _ in range(3):
        assert engine.step() == []
    engine.add(urgent(30))
    (started, *_) = finish(engine, handle)
    assert engine.load().preemptions == 1
    assert isinstance(started, Started) and isinstance(undisturbed, Started)
    assert [entry.token_id for entry in started.prompt_logprobs] == list(PROMPT)
    for entry, expected in zip(started.prompt_logprobs[1:], undisturbed.prompt_logprobs[1:], strict=True):
        assert entry.logprob == pytest.approx(expected.logprob, abs=1e-9)


def test_cancelled_it_leaves_nothing(make_engine: MakeEngine) -> None:
    engine = make_engine(batch_step_tokens=6)
    handle = engine.add(to_score())
    assert [type(event) for _, event in engine.step()] == [Started, Scored]
    engine.cancel(handle)
    ((_, final),) = engine.step()
    assert isinstance(final, Final) and final.finish_reason is FinishReason.CANCELLED
    assert not engine.has_work
    engine.check_integrity()


def test_a_deadline_ends_it_between_two_steps(tiny_model, make_engine: MakeEngine) -> None:  # type: ignore[no-untyped-def]
    now = [0.0]
    engine = Engine(tiny_model, make_engine(batch_step_tokens=6).settings, clock=lambda: now[0])
    engine.add(to_score(deadline_ms=50))
    assert [type(event) for _, event in engine.step()] == [Started, Scored]
    now[0] = 0.051
    ((_, final),) = engine.step()
    assert isinstance(final, Final) and final.finish_reason is FinishReason.DEADLINE
    assert not engine.has_work
    engine.check_integrity()


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("limits.max_tokens", {"limits": Limits(max_tokens=1)}),
        ("sampling.n", {"sampling": Sampling(n=2)}),
        ("sampling.prompt_logprobs", {"sampling": Sampling(prompt_logprobs=True)}),
        ("scoring.first_scored", {"scoring": Scoring(FORMAT, first_scored=0)}),
        ("scoring.first_scored", {"scoring": Scoring(FORMAT, first_scored=len(PROMPT))}),
        ("scoring.first_scored", {"prompt_token_ids": PROMPT[:1]}),
        ("scoring.format.max_head", {"scoring": Scoring(ScoreFormat(max_head=0))}),
        ("scoring.format.max_head", {"scoring": Scoring(ScoreFormat(max_head=265))}),
        ("scoring.format.head_mass", {"scoring": Scoring(ScoreFormat(head_mass=0.0))}),
        ("scoring.format.head_mass", {"scoring": Scoring(ScoreFormat(head_mass=1.1))}),
        ("scoring.format.head_mass", {"scoring": Scoring(ScoreFormat(head_mass=float("nan")))}),
        ("scoring.format.least_probability", {"scoring": Scoring(ScoreFormat(least_probability=-0.1))}),
        ("scoring.format.least_probability", {"scoring": Scoring(ScoreFormat(least_probability=1.0))}),
        ("scoring.format.least_probability", {"scoring": Scoring(ScoreFormat(least_probability=float("nan")))}),
        ("scoring.format.num_tail_samples", {"scoring": Scoring(ScoreFormat(num_tail_samples=-1))}),
        ("scoring.format.num_tail_samples", {"scoring": Scoring(ScoreFormat(num_tail_samples=65))}),
        ("scoring.hidden_layers", {"scoring": Scoring(FORMAT, hidden_layers=(3,))}),
        ("scoring.hidden_layers", {"scoring": Scoring(FORMAT, hidden_layers=(-1,))}),
        ("scoring.hidden_layers", {"scoring": Scoring(FORMAT, hidden_layers=(1, 1))}),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(
    make_engine: MakeEngine, field: str, changes: dict[str, Any]
) -> None:
    engine = make_engine()
    with pytest.raises(InvalidRequest) as refused:
        engine.add(replace(to_score(), **changes))
    assert [violation.field for violation in refused.value.violations] == [field]
    assert not engine.has_work


def test_the_bounds_themselves_are_taken(make_engine: MakeEngine) -> None:
    engine = make_engine()
    for scoring in (
        Scoring(ScoreFormat(max_head=264, head_mass=1.0, num_tail_samples=64), len(PROMPT) - 1, (2, 0, 1)),
        Scoring(ScoreFormat(max_head=1, head_mass=1e-9, num_tail_samples=0, least_probability=0.999)),
    ):
        assert positions(finish(engine, engine.add(to_score(scoring=scoring))))[0] == scoring.first_scored


def test_sequences_of_one_format_are_reduced_together(make_engine: MakeEngine) -> None:
    """The head's weights are read once for them, and each gets its own records."""
    engine = make_engine(max_step_tokens=200, batch_step_tokens=200)
    alone = [finish(engine, engine.add(to_score(PROMPT[i:16]))) for i in range(4)]
    passes: list[int] = []
    head = engine.model.decoder.head

    def counted(states_RD: torch.Tensor, out_RV: torch.Tensor | None = None) -> torch.Tensor:
        passes.append(len(states_RD))
        return head(states_RD, out_RV)

    handles = [engine.add(to_score(PROMPT[i:16])) for i in range(3)]
    handles.append(engine.add(to_score(PROMPT[3:16], Scoring(replace(FORMAT, max_head=5)))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.model.decoder, "head", counted)
        events = engine.step()
    assert not engine.has_work
    assert sorted(passes) == [0, 12, 15 + 14 + 13]
    for handle, expected in zip(handles, alone, strict=True):
        rows = records([event for of, event in events if of == handle])  # type: ignore[misc]
        assert rows.gold_logprobs_R.tolist() == pytest.approx(records(expected).gold_logprobs_R.tolist(), abs=1e-6)
        assert rows.tail_ids_RS.shape == (rows.num_rows, FORMAT.num_tail_samples)


def records(events: list[AnyEvent]) -> ScoredRows:
    (rows,) = [event.rows for event in events if isinstance(event, Scored)]
    return rows


def test_hidden_states_are_rounded_to_the_nearest_of_127_steps() -> None:
    states_RD = torch.randn(20, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 20)[:, None]
    states_RD[3] = 0
    hidden = quantise_rows(states_RD)
    assert hidden.scales_R[3] == 0 and not hidden.values_RD[3].any()
    assert (abs(hidden.values_RD.astype(int)).max(axis=1) == 127).sum() == 19
    error_RD = abs(hidden.values_RD * hidden.scales_R[:, None].astype(float) - states_RD.double().numpy())
    assert (error_RD <= 0.50001 * hidden.scales_R[:, None]).all()


def test_rows_are_taken_and_rounded_piece_by_piece_as_they_would_be_at_once() -> None:
    states_RD = torch.randn(70, 1000, generator=torch.Generator().manual_seed(1)).bfloat16()
    rows = [69, 0, 33, *range(60), 32]
    assert torch.equal(select_rows(states_RD, rows), states_RD[rows])
    assert select_rows(states_RD, []).shape == (0, 1000)
    wide_RD = states_RD.float()
    scales_R = wide_RD.abs().amax(dim=1) / 127
    hidden = quantise_rows(states_RD)
    assert hidden.scales_R.tobytes() == scales_R.numpy().tobytes()
    assert hidden.values_RD.tolist() == (wide_RD / scales_R[:, None]).round().tolist()


def test_drafters_never_hear_of_it(make_engine: MakeEngine) -> None:
    class Deaf:
        """Fails whatever it is told."""

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    engine = make_engine(speculator=Deaf(), batch_step_tokens=6)
    assert positions(finish(engine, engine.add(to_score()))) == list(range(1, len(PROMPT)))
    engine.cancel(engine.add(to_score()))
    engine.step()
    assert not engine.has_work
