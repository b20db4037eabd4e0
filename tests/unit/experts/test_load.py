"""What the meter remembers, and for how long."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.experts.load import LoadMeter
from zenray.experts.placement import ExpertId


def shares(meter: LoadMeter, layer: int = 0) -> list[float]:
    return [share for at, share in sorted(meter.snapshot().items()) if at.layer == layer]


def test_says_each_experts_share_of_its_own_layer() -> None:
    meter = LoadMeter([0, 5], num_experts=4)
    meter.count(5, [1, 3], [1, 3])
    assert shares(meter, 5) == pytest.approx([0, 0.25, 0, 0.75])
    assert shares(meter, 0) == [0, 0, 0, 0]
    assert set(meter.snapshot()) == {ExpertId(layer, expert) for layer in (0, 5) for expert in range(4)}


def test_forgets_half_in_a_half_life_of_pairs() -> None:
    meter = LoadMeter([0], 2, half_life_pairs=100)
    meter.count(0, [0], [100])
    for _ in range(100):
        meter.count(0, [1], [1])
    second = sum(0.5 ** (age / 100) for age in range(100))
    assert shares(meter)[0] == pytest.approx(50 / (50 + second), rel=1e-9)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 500)), min_size=1, max_size=300))
def test_is_the_sum_of_decayed_counts_however_long_it_runs(steps: list[tuple[int, int]]) -> None:
    """A half-life of one pair makes weights overflow every few steps: what is scaled back is not lost."""
    meter = LoadMeter([0], 4, half_life_pairs=1.0)
    decayed = [0.0] * 4
    for expert, num_pairs in steps:
        meter.count(0, [expert], [num_pairs])
        decayed = [value * 0.5**num_pairs for value in decayed]
        decayed[expert] += num_pairs
    found = shares(meter)
    assert sum(found) == pytest.approx(1.0)
    assert found == pytest.approx([value / sum(decayed) for value in decayed], abs=1e-6)


def test_can_be_read_while_another_thread_counts() -> None:
    meter = LoadMeter([0], 8, half_life_pairs=50.0)
    is_over = threading.Event()

    def count() -> None:
        while not is_over.is_set():
            meter.count(0, range(8), [1] * 8)

    counter = threading.Thread(target=count)
    counter.start()
    try:
        snapshots = [shares(meter) for _ in range(300)]
    finally:
        is_over.set()
        counter.join()
    assert all(sum(found) == pytest.approx(1.0) or sum(found) == 0 for found in snapshots)
    assert max(snapshots[-1]) < 0.5
