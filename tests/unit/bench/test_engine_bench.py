"""The benchmark over the real engine with the tiny model: the numbers must be there, whatever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from zenray.bench.engine_bench import EnginePlan, StepBytes, measure_engine
from zenray.bench.prompts import PromptSet, PromptSizes, build_prompts
from zenray.bench.runs import opened
from zenray.bench.step_profile import Stopwatch, instrumented, profile_steps, profile_table
from zenray.bench.targets.engine_door import EngineTarget
from zenray.context.budget import PromptLimits
from zenray.engine.engine import Engine
from zenray.engine.request import GenerateRequest, Limits
from zenray.errors import ZenrayError

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="module")
def prompts() -> PromptSet:
    return build_prompts(lambda text: len(text.encode()), sizes=PromptSizes().within(200))


def test_every_measure_of_an_engine(make_engine: MakeEngine, prompts: PromptSet) -> None:
    engine = make_engine(num_blocks=512)
    plan = EnginePlan(batches=(1, 3), max_tokens=6, rounds=2)
    steps: list[str] = []

    async def measure() -> list[dict[str, Any]]:
        async with opened(EngineTarget(engine, PromptLimits(engine.max_sequence_tokens, 500, 0.25))) as target:
            step_bytes = StepBytes.of(engine.model)
            return await measure_engine(
                target, prompts, plan, step_bytes, {"model": "tiny", "format": "f64"}, steps.append
            )

    rows = asyncio.run(measure())
    assert [(row["measure"], row.get("batch")) for row in rows] == [
        ("decode", 1), ("decode", 3), ("prefill", None), ("repeat", None),
    ]  # fmt: skip
    assert len(steps) == plan.num_steps
    for row in rows[:2]:
        assert row["tokens_per_s"]["count"] == 2 and row["tokens_per_s"]["minimum"] > 0
        assert row["gb_per_s"] > 0 and row["kv_bytes_per_step"] > 0
        assert row["ttft_ms"]["count"] == 2 * row["batch"]
    assert rows[2]["prompt_tokens"]["p50"] > 200  # the variant's first line comes on top
    assert rows[3]["cached_tokens"]["minimum"] > 100  # the second time round the prompt is known
    engine.check_integrity()


def test_a_broken_engine_is_not_measured(make_target: Callable[..., Any], prompts: PromptSet) -> None:
    with pytest.raises(ZenrayError, match="out of luck"):
        asyncio.run(measure_engine(make_target(0, 0, fail_on=0), prompts, EnginePlan(), StepBytes(1, 1), {}))


def test_a_step_is_taken_apart_without_changing_it(make_engine: MakeEngine, prompts: PromptSet) -> None:
    engine = make_engine(num_blocks=512)
    profile = profile_steps(engine, prompts.of("short")[:2], num_steps=5)
    parts = {part: calls for part, _, calls in profile.parts}
    layers = engine.model.config.num_layers
    assert parts["model: between kernels"] == parts["scheduler: plan"] == parts["batch: build"] == 1
    assert parts["kernel: attention"] == parts["kernel: linear qkv"] == parts["kernel: linear down"] == layers
    assert parts["kernel: linear head"] == 1
    assert parts["commit: text, stop rules"] >= 2
    assert sum(ms for _, ms, _ in profile.parts) == pytest.approx(profile.step_ms, rel=0.9)
    assert profile_table(profile, "tiny").row_count == len(parts)
    assert not engine.has_work
    engine.check_integrity()


def test_instruments_leave_no_trace_and_no_other_tokens(make_engine: MakeEngine) -> None:
    engine = make_engine()

    def tokens() -> list[Any]:
        engine.add(GenerateRequest("r", tuple(range(40, 60)), limits=Limits(max_tokens=8, ignore_eos=True)))
        events = []
        while engine.has_work:
            events += [getattr(event, "token_ids", ()) for _, event in engine.step()]
        return events

    plain, before = tokens(), dict(vars(engine))
    with instrumented(engine, Stopwatch()):
        assert tokens() == plain
    assert set(vars(engine)) == set(before)
    assert "linear" not in vars(engine.model.decoder.ops)
    assert tokens() == plain


def test_a_stopwatch_charges_each_part_its_own_time() -> None:
    times = iter(range(100))
    watch = Stopwatch(clock=lambda: float(next(times)))
    leaf = watch.timed("leaf", lambda: None)  # 1 each

    def branch() -> None:
        leaf()
        leaf()

    watch.timed("branch", branch)()
    # Ticks: branch 0, leaf 1-2, leaf 3-4, branch 5.
    assert dict(watch.seconds) == {"leaf": 2.0, "branch": 3.0}
    assert dict(watch.calls) == {"leaf": 2, "branch": 1}
    failing = watch.timed(lambda error: str(error), lambda error: exec("raise error"))
    with pytest.raises(ValueError):
        failing(ValueError("named"))
    assert watch.calls["named"] == 1 and not watch._children_s
