from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from zenray.bench.load import Bounds, closed_loop, open_loop, poisson_arrivals
from zenray.bench.targets import Call

Run = Callable[[Any], Any]
MakeTarget = Callable[..., Any]


@pytest.mark.parametrize("concurrency", [1, 3, 8])
def test_a_closed_loop_keeps_so_many_streams_open(
    run_virtually: Run, make_target: MakeTarget, calls: list[Call], concurrency: int
) -> None:
    target = make_target()
    records = run_virtually(closed_loop(target, calls, concurrency, Bounds(12)))
    assert target.most_open == concurrency
    assert [record.name for record in records] == [f"short/{number % 3}" for number in range(12)]
    assert all(record.ttft_ms == pytest.approx(500) for record in records)
    assert all(record.itl_ms == pytest.approx([100, 100, 100]) for record in records)
    rounds = -(-12 // concurrency)
    assert max(record.ended_s for record in records) == pytest.approx(1000 + rounds * 0.8)


def test_a_record_holds_what_the_target_said(run_virtually: Run, make_target: MakeTarget, calls: list[Call]) -> None:
    (record,) = run_virtually(closed_loop(make_target(), calls, 1, Bounds(1)))
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (10, 4, 4)
    assert (record.finish_reason, record.server_first_token_ms) == ("LENGTH", 500)
    assert record.text == "t0 t1 t2 t3 "


def test_a_closed_loop_starts_nothing_after_its_time(
    run_virtually: Run, make_target: MakeTarget, calls: list[Call]
) -> None:
    target = make_target()
    records = run_virtually(closed_loop(target, calls, 2, Bounds(1000, max_seconds=2.0)))
    # Each takes 0.8 s: starts at 0, 0.8 and 1.6 s, twice; the last two end behind the limit, whole.
    assert len(records) == 6
    assert not any(record.error for record in records)


def test_streams_that_hang_are_given_up(run_virtually: Run, make_target: MakeTarget, calls: list[Call]) -> None:
    target = make_target(first_s=0.5, gap_s=1e9)
    records = run_virtually(closed_loop(target, calls, 2, Bounds(2, max_seconds=5, grace_s=2)))
    assert [record.error for record in records] == ["the run's time was over"] * 2
    assert [record.ended_s for record in records] == [1007.0] * 2
    assert target.closed_early == 2 and target.open_streams == 0


def test_a_failing_request_fails_alone(run_virtually: Run, make_target: MakeTarget, calls: list[Call]) -> None:
    records = run_virtually(closed_loop(make_target(fail_on=1), calls, 1, Bounds(3)))
    assert [record.error for record in records] == ["", "RuntimeError: out of luck", ""]


def test_every_record_is_reported_as_it_ends(run_virtually: Run, make_target: MakeTarget, calls: list[Call]) -> None:
    seen: list[Any] = []
    records = run_virtually(closed_loop(make_target(), calls, 2, Bounds(5), seen.append))
    assert sorted(seen, key=id) == sorted(records, key=id)


def test_an_open_loop_sends_on_time_whatever_the_target_does(
    run_virtually: Run, make_target: MakeTarget, calls: list[Call]
) -> None:
    target = make_target(first_s=50.0)
    records = run_virtually(open_loop(target, calls, 4.0, seed=7, bounds=Bounds(20)))
    due = [1000 + at_s for at_s in itertools.islice(poisson_arrivals(4.0, 7), 20)]
    assert target.sent_s == pytest.approx(due)
    assert [record.due_s for record in records] == pytest.approx(due)
    assert target.most_open == 20


def test_an_open_loop_ends_with_its_time(run_virtually: Run, make_target: MakeTarget, calls: list[Call]) -> None:
    target = make_target()
    run_virtually(open_loop(target, calls, 10.0, seed=1, bounds=Bounds(10_000, max_seconds=3.0)))
    expected = sum(1 for at_s in itertools.takewhile(lambda at_s: at_s < 3.0, poisson_arrivals(10.0, 1)))
    assert len(target.calls) == expected


def test_poisson_arrivals_repeat_with_their_seed_and_keep_their_rate() -> None:
    def first(count: int, seed: int) -> list[float]:
        return list(itertools.islice(poisson_arrivals(5.0, seed), count))

    assert first(50, 3) == first(50, 3) != first(50, 4)
    times = first(20_000, 0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) > 0
    assert sum(gaps) / len(gaps) == pytest.approx(0.2, rel=0.03)
    # Exponential gaps spread as wide as their mean; regular ones would not spread at all.
    assert sum(gap > 0.2 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_a_rate_is_positive() -> None:
    with pytest.raises(ValueError, match="rate_per_s"):
        next(poisson_arrivals(0.0, 0))
