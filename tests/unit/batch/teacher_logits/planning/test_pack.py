"""Best-fit decreasing: every segment in one place, none over the window, little room left."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.teacher_logits.planning.pack import pack

CAPACITIES = st.integers(1, 60)
PROBLEMS = CAPACITIES.flatmap(lambda most: st.tuples(st.lists(st.integers(1, most), max_size=40), st.just(most)))


def textbook(lengths: list[int], capacity: int) -> list[list[int]]:
    """The same, by looking at every bin for every segment."""
    bins: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda each: -lengths[each]):
        rooms = [capacity - sum(lengths[each] for each in content) for content in bins]
        fitting = [room for room in rooms if room >= lengths[index]]
        if fitting:
            bins[rooms.index(min(fitting))].append(index)
        else:
            bins.append([index])
    return bins


@given(PROBLEMS)
def test_bins_hold_every_segment_once_and_are_as_full_as_the_textbooks(problem: tuple[list[int], int]) -> None:
    lengths, capacity = problem
    bins = pack(lengths, capacity)
    assert sorted(index for content in bins for index in content) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in content) <= capacity for content in bins)

    def fills(packed: list[list[int]]) -> list[int]:
        return sorted(sum(lengths[index] for index in content) for content in packed)

    assert fills(bins) == fills(textbook(lengths, capacity))


@given(PROBLEMS)
def test_no_two_bins_would_fit_into_one(problem: tuple[list[int], int]) -> None:
    """So more than half of all room is used, whatever the lengths: fewer than twice the fewest bins there can be."""
    lengths, capacity = problem
    fills = [sum(lengths[index] for index in content) for content in pack(lengths, capacity)]
    assert all(one + other > capacity for one, other in combinations(fills, 2))
    assert len(fills) <= max(1, 2 * sum(lengths) / capacity)


def test_documents_as_there_are_leave_almost_no_room() -> None:
    """Log-normal lengths, windows of those that are longer, as in source code."""
    lengths: list[int] = []
    for drawn in np.random.Generator(np.random.Philox(0)).lognormal(7.5, 1.5, 5000):
        full, rest = divmod(int(drawn) + 1, 4096)
        lengths += [4096] * full + [rest] * (rest > 0)
    fewest = -(-sum(lengths) // 4096)
    assert len(pack(lengths, 4096)) <= 1.005 * fewest
