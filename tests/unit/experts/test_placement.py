"""The map of experts: losing shards, adding copies, and what it says of itself."""

from __future__ import annotations

import pytest

from zenray.experts.placement import ExpertId, ExpertPlacement

PLACEMENT = ExpertPlacement(3, {0: ((0,), (0, 1)), 2: ((1,), (2,))})


def test_says_who_holds_what() -> None:
    assert PLACEMENT.shards == {0, 1, 2}
    assert PLACEMENT.held_by(1) == {ExpertId(0, 1), ExpertId(2, 0)}
    assert PLACEMENT.held_by(7) == frozenset()
    assert PLACEMENT.missing == ()


def test_losing_a_shard_leaves_redundant_copies_and_makes_an_epoch() -> None:
    broken = PLACEMENT.without([1])
    assert broken == ExpertPlacement(4, {0: ((0,), (0,)), 2: ((), (2,))})
    assert broken.missing == (ExpertId(2, 0),)
    assert PLACEMENT.epoch == 3
    assert not PLACEMENT.missing


def test_adding_what_was_lost_makes_it_whole_in_another_epoch() -> None:
    whole = PLACEMENT.without([1]).adding({2: [ExpertId(2, 0)], 0: [ExpertId(0, 1)]})
    assert whole == ExpertPlacement(5, {0: ((0,), (0,)), 2: ((2,), (2,))})


def test_a_second_copy_on_one_shard_is_no_placement() -> None:
    with pytest.raises(AssertionError):
        ExpertPlacement(1, {0: ((1, 1),)})
