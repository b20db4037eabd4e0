"""Which copy computes an expert in a step."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.experts.assignment import ASK_ROWS, READ_ROWS, assign
from zenray.experts.placement import LEADER


def finish(holders: list[list[int]], counts: list[int], chosen: list[int]) -> float:
    """When the last shard is done, in rows."""
    rows = dict.fromkeys(itertools.chain([LEADER], *holders), 0)
    for shard, count in zip(chosen, counts, strict=True):
        rows[shard] += READ_ROWS + count + (ASK_ROWS if shard != LEADER and rows[shard] == 0 else 0)
    return max(rows.values())


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[list[int]], list[int]]:
    num_experts = draw(st.integers(1, 6))
    one = st.sets(st.integers(0, 3), min_size=1, max_size=3).map(sorted)
    return (
        draw(st.lists(one, min_size=num_experts, max_size=num_experts)),
        draw(st.lists(st.integers(1, 200), min_size=num_experts, max_size=num_experts)),
    )


@settings(deadline=None, max_examples=150)
@given(layers())
def test_chooses_a_holder_of_each_and_is_at_most_twice_the_best_possible(
    layer: tuple[list[list[int]], list[int]],
) -> None:
    holders, counts = layer
    chosen = assign(holders, counts)
    assert all(shard in copies for shard, copies in zip(chosen, holders, strict=True))
    assert assign(holders, counts) == chosen
    best = min(finish(holders, counts, list(choice)) for choice in itertools.product(*holders))
    # Largest first where every shard can take everything is within 4/3; restricted choices can cost more.
    assert finish(holders, counts, chosen) <= 2 * best


def test_without_redundancy_there_is_nothing_to_choose() -> None:
    assert assign([(2,), (0,), (1,)], [1, 5, 1]) == [2, 0, 1]


def test_one_token_stays_with_the_leader_where_the_leader_is_free() -> None:
    assert assign([(0, 1), (1,)], [1, 1]) == [0, 1]


def test_the_leader_shares_with_a_shard_that_is_asked_anyway_only_when_that_ends_sooner() -> None:
    assert assign([(0,), (0, 1)], [1, 1]) == [0, 1]
    assert assign([(0, 1), (0, 1)], [1, 1]) == [0, 1]
    assert assign([(0, 1), (1,), (1,)], [1, 1, 1]) == [0, 1, 1]


def test_large_groups_go_first_and_small_ones_fill_up() -> None:
    assert assign([(0, 1), (0, 1), (0, 1)], [10, 90, 70]) == [1, 0, 1]
