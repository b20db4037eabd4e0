"""The step cost: sane between measured points, learned from real steps, measured once and kept."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.model.load import LoadedModel, load_preset
from zenray.speculative.measure_steps import MEASURED_ROWS, measure
from zenray.speculative.step_cost import StepCost, load_or_measure

POINTS_MS = st.dictionaries(
    st.sampled_from([1, 2, 4, 8, 16]),
    st.dictionaries(st.integers(1, 65), st.floats(0.5, 200), min_size=1, max_size=6),
    min_size=1,
    max_size=3,
)


@given(POINTS_MS, st.integers(1, 20))
def test_more_rows_never_cost_less(points_ms: dict[int, dict[int, float]], batch_size: int) -> None:
    step_ms = StepCost(points_ms).step_ms(batch_size)
    curve = [step_ms(rows) for rows in range(batch_size, 200)]
    assert all(ms > 0 for ms in curve)
    assert curve == sorted(curve)


def test_between_measured_points_it_is_linear() -> None:
    cost = StepCost({1: {1: 30, 5: 32, 9: 40}, 4: {4: 40, 8: 50}})
    assert cost.ms(1, 1) == 30
    assert cost.ms(1, 3) == 31
    assert cost.ms(1, 13) == 48
    assert cost.ms(4, 4) == 40
    assert cost.ms(4, 16) == 70
    assert cost.ms(16, 16) == 70
    assert cost.ms(2, 5) == pytest.approx(32 + (42.5 - 32) / 3)


def test_short_steps_of_a_batch_size_between_are_those_of_the_smaller_one_and_what_its_sequences_add() -> None:
    cost = StepCost({4: {4: 36, 8: 36, 16: 54}, 16: {16: 57, 33: 100}})
    assert cost.ms(8, 8) == pytest.approx(36 + (57 - 54) / 3)
    assert cost.ms(8, 16) == pytest.approx(54 + (57 - 54) / 3)


def test_the_rows_are_asked_in_any_order() -> None:
    asked, fresh = StepCost({1: {1: 30, 9: 40}}), StepCost({1: {1: 30, 9: 40}})
    assert [asked.ms(1, rows) for rows in (40, 1, 9)] == [fresh.ms(1, 40), 30, 40]


def test_a_table_without_points_is_refused() -> None:
    for points_ms in ({}, {1: {}}):
        with pytest.raises(ValueError, match="at least one measured point"):
            StepCost(points_ms)


def test_a_slower_machine_is_noticed_without_blaming_the_drafts() -> None:
    cost = StepCost({1: {1: 30, 9: 40, 65: 180}})
    for _ in range(100):
        cost.correct(1, 1, 39.0)
    assert cost.ms(1, 1) == pytest.approx(39, rel=0.05)
    assert cost.ms(1, 9) == pytest.approx(52, rel=0.05)


def test_what_a_row_costs_beside_the_forward_is_noticed() -> None:
    cost, rng = StepCost({1: {1: 30, 9: 40, 65: 180}}), random.Random(0)
    plain = StepCost({1: {1: 30, 9: 40, 65: 180}})
    for _ in range(300):
        rows = rng.choice([1, 1, 3, 5, 9])
        cost.correct(1, rows, plain.ms(1, rows) + 2.0 * (rows - 1) + rng.gauss(0, 1.0))
    assert cost.ms(1, 1) == pytest.approx(30, rel=0.1)
    assert cost.ms(1, 9) == pytest.approx(56, rel=0.1)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 64), st.floats(0.001, 10_000)), max_size=80))
def test_no_measurement_makes_the_cost_absurd(steps: list[tuple[int, int, float]]) -> None:
    cost = StepCost({1: {1: 30, 9: 40, 65: 180}, 8: {8: 40, 65: 190}})
    for batch_size, num_drafted, step_ms in steps:
        cost.correct(batch_size, batch_size + num_drafted, step_ms)
    for batch_size in (1, 8):
        curve = [cost.ms(batch_size, rows) for rows in range(batch_size, 100)]
        assert curve[0] > 0
        assert curve == sorted(curve)


def test_one_slow_step_is_nothing() -> None:
    cost = StepCost({1: {1: 30, 9: 40}})
    for _ in range(50):
        cost.correct(1, 1, 30.0)
    cost.correct(1, 1, 5000.0)
    assert cost.ms(1, 1) < 31


@pytest.fixture
def tiny() -> LoadedModel:
    return load_preset("tiny", {"num_layers": 1}, weight_format="int8")


def test_every_size_is_measured_by_its_least_time(tiny: LoadedModel) -> None:
    """The clock ticks 1 ms per look; the second pass is a slow moment of the machine that shall not count."""
    ticks = itertools.count()
    num_sizes = sum(map(len, MEASURED_ROWS.values()))
    slow = range(3 * num_sizes, 4 * num_sizes)

    def clock_s() -> float:
        tick = next(ticks)
        return (tick + 50 * (tick - slow.start if tick in slow else len(slow) if tick >= slow.stop else 0)) / 1000

    seen: list[tuple[int, int, str]] = []
    times = measure(tiny.decoder, lambda *progress: seen.append(progress), clock_s)
    assert {batch_size: tuple(points) for batch_size, points in times.points_ms.items()} == dict(MEASURED_ROWS)
    for points_ms in times.points_ms.values():
        assert list(points_ms.values()) == pytest.approx([1.0] * len(points_ms))
    assert times.prefill_ms_per_token == pytest.approx(1 / 128)
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]


def test_a_measured_table_is_kept_for_this_model_and_machine(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))
    measured: list[str] = []
    cost = load_or_measure(tiny, lambda done, total, what: measured.append(what))
    assert measured
    assert cost.ms(1, 1) > 0
    assert cost.prefill_ms_per_token > 0

    measured.clear()
    assert load_or_measure(tiny, lambda done, total, what: measured.append(what)) == cost
    assert not measured
    load_or_measure(load_preset("tiny", {"num_layers": 2}, weight_format="int8"))
    assert len(list((tmp_path / "step_cost").iterdir())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "identity": ["another"]}),
        lambda text: json.dumps({**json.loads(text), "points_ms": {"1": {"1": -5}}}),
        lambda text: json.dumps({**json.loads(text), "points_ms": {"1": {}}}),
        lambda text: json.dumps({**json.loads(text), "points_ms": {"1": {"1": "NaN"}}}),
        lambda text: json.dumps({**json.loads(text), "prefill_ms_per_token": None}),
    ],
    ids=["cut", "no object", "foreign", "negative", "empty", "not a number", "no prefill"],
)
def test_a_damaged_or_foreign_file_is_measured_again(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: object
) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))
    load_or_measure(tiny)
    (kept,) = (tmp_path / "step_cost").iterdir()
    kept.write_text(damage(kept.read_text()))
    measured: list[int] = []
    load_or_measure(tiny, lambda done, total, what: measured.append(done))
    assert measured
    measured.clear()
    load_or_measure(tiny, lambda done, total, what: measured.append(done))
    assert not measured


def test_a_home_that_takes_no_file_only_means_measuring_again(
    tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "step_cost").write_text("in the way")
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))
    assert load_or_measure(tiny).ms(1, 1) > 0
