"""What every plan keeps, what a good plan reaches, and what a repair may not do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zenray.experts.placement import LEADER, ExpertId, ExpertPlacement
from zenray.experts.planning import (
    WORTHWHILE_GAIN,
    NoPlacement,
    imbalance,
    is_worth_moving,
    plan_placement,
    plan_repair,
)


@dataclass(frozen=True)
class Fleet:
    """A model's experts, the shards they go to, and how busy they are."""

    layers: tuple[int, ...]
    num_experts: int
    capacity: Mapping[int, int | None]
    load: Mapping[ExpertId, float]
    redundant_experts: int = 0

    def plan(self, current: ExpertPlacement | None = None, epoch: int = 1) -> ExpertPlacement:
        return plan_placement(
            epoch=epoch,
            layers=self.layers,
            num_experts=self.num_experts,
            capacity=self.capacity,
            load=self.load,
            redundant_experts=self.redundant_experts,
            current=current,
        )


def fleet_of(num_shards: int, loads: list[float], redundant_experts: int = 0) -> Fleet:
    """One layer, shards without bound."""
    load = {ExpertId(0, expert): value for expert, value in enumerate(loads)}
    return Fleet((0,), len(loads), dict.fromkeys(range(num_shards)), load, redundant_experts)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    layers = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)))
    num_experts = draw(st.integers(1, 12))
    num_shards = draw(st.integers(1, 5))
    most = len(layers) * num_experts
    limits = st.none() if draw(st.booleans()) else st.none() | st.integers(0, most + 2)
    capacity = {shard: draw(limits) for shard in range(num_shards)}
    assume(sum(most if limit is None else min(limit, most) for limit in capacity.values()) >= most)
    one = st.just(0.0) | st.floats(1e-6, 1e6)
    load = {ExpertId(layer, expert): draw(one) for layer in layers for expert in range(num_experts)}
    return Fleet(layers, num_experts, capacity, load, draw(st.integers(0, 6)))


def copies_of(placement: ExpertPlacement) -> int:
    return sum(len(holders) for row in placement.copies.values() for holders in row)


def moves(old: ExpertPlacement, new: ExpertPlacement) -> int:
    return sum(len(new.held_by(shard) - old.held_by(shard)) for shard in new.shards)


def busiest_load(row: tuple[tuple[int, ...], ...], loads: list[float]) -> float:
    shards: dict[int, float] = {}
    for holders, load in zip(row, loads, strict=True):
        for shard in holders:
            shards[shard] = shards.get(shard, 0.0) + load / len(holders)
    return max(shards.values())


class TestEveryPlan:
    @settings(deadline=None, max_examples=150)
    @given(fleets())
    def test_places_every_expert_within_capacity_and_copies_no_expert_twice_on_a_shard(self, fleet: Fleet) -> None:
        placement = fleet.plan(epoch=7)
        assert placement.epoch == 7
        assert set(placement.copies) == set(fleet.layers)
        assert all(len(row) == fleet.num_experts for row in placement.copies.values())
        assert not placement.missing  # that holders are distinct, ExpertPlacement asserts itself
        assert placement.shards <= set(fleet.capacity)
        for shard, limit in fleet.capacity.items():
            assert limit is None or len(placement.held_by(shard)) <= limit

    @settings(deadline=None, max_examples=150)
    @given(fleets())
    def test_is_the_same_for_the_same_inputs_and_moves_nothing_when_made_again(self, fleet: Fleet) -> None:
        placement = fleet.plan()
        assert fleet.plan() == placement
        assert fleet.plan(current=placement) == placement

    @settings(deadline=None, max_examples=150)
    @given(fleets(), st.data())
    def test_has_as_many_copies_as_asked_where_memory_has_no_bound(self, fleet: Fleet, data: st.DataObject) -> None:
        free = Fleet(
            fleet.layers, fleet.num_experts, dict.fromkeys(fleet.capacity), fleet.load, fleet.redundant_experts
        )
        most = fleet.num_experts * len(fleet.capacity)
        wanted = len(fleet.layers) * min(most, fleet.num_experts + fleet.redundant_experts)
        assert copies_of(free.plan()) == wanted
        survivors = data.draw(st.sets(st.sampled_from(sorted(fleet.capacity)), min_size=1))
        smaller = free.plan().without(set(fleet.capacity) - survivors)
        assert copies_of(free.plan(current=smaller)) == wanted

    @settings(deadline=None, max_examples=150)
    @given(fleets())
    def test_keeps_memory_even_where_it_has_no_bound(self, fleet: Fleet) -> None:
        free = Fleet(
            fleet.layers, fleet.num_experts, dict.fromkeys(fleet.capacity), fleet.load, fleet.redundant_experts
        )
        held = [len(free.plan().held_by(shard)) for shard in fleet.capacity]
        assert max(held) - min(held) <= 1

    @settings(deadline=None, max_examples=150)
    @given(st.integers(2, 4), st.lists(st.floats(0.01, 100), min_size=2, max_size=7))
    def test_busiest_shard_is_within_four_thirds_of_the_best_possible(self, shards: int, loads: list[float]) -> None:
        """The bound of longest-processing-time-first packing (Graham 1969), against every way to fill the slots."""
        placement = fleet_of(shards, loads).plan()
        num_slots = [len(placement.held_by(shard)) for shard in range(shards)]
        best = min(
            busiest_load(tuple((shard,) for shard in choice), loads)
            for choice in itertools.product(range(shards), repeat=len(loads))
            if all(choice.count(shard) == num for shard, num in enumerate(num_slots))
        )
        assert busiest_load(placement.copies[0], loads) <= 4 / 3 * best * (1 + 1e-9)

    @settings(deadline=None, max_examples=150)
    @given(fleets(), st.data())
    def test_is_whole_and_settled_whatever_is_held_now(self, fleet: Fleet, data: st.DataObject) -> None:
        """Holes, shards that are gone, too many copies, more than fits."""
        holders = st.sets(st.integers(0, 6)).map(lambda found: tuple(sorted(found)))
        row = st.lists(holders, min_size=fleet.num_experts, max_size=fleet.num_experts).map(tuple)
        held = ExpertPlacement(1, {layer: data.draw(row) for layer in fleet.layers})
        plan = fleet.plan(current=held)
        assert not plan.missing
        assert plan.shards <= set(fleet.capacity)
        for shard, limit in fleet.capacity.items():
            assert limit is None or len(plan.held_by(shard)) <= limit
        assert fleet.plan(current=plan) == plan

    @settings(deadline=None, max_examples=150)
    @given(fleets(), st.data())
    def test_improves_on_what_is_held_and_keeps_what_it_can(self, fleet: Fleet, data: st.DataObject) -> None:
        old = Fleet(fleet.layers, fleet.num_experts, fleet.capacity, {}, fleet.redundant_experts).plan()
        new = fleet.plan(current=old)
        assert not new.missing
        if not fleet.redundant_experts:
            assert imbalance(new, fleet.load) <= imbalance(old, fleet.load) + 1e-9


class TestTheStart:
    def test_spreads_evenly_loaded_experts_and_every_group_of_them(self) -> None:
        """Halves, even and odd ones, neighbours in pairs: however an upcycled model numbers its groups."""
        placement = Fleet((0, 1, 2), 16, {LEADER: None, 1: None}, {}).plan()
        groups = [range(8), range(8, 16), range(0, 16, 2), range(1, 16, 2)]
        for row, group in itertools.product(placement.copies.values(), groups):
            assert [sum(row[expert] == (shard,) for expert in group) for shard in (0, 1)] == [4, 4]

    def test_gives_every_shard_something_in_turn_when_there_are_more_shards_than_experts(self) -> None:
        placement = Fleet((0, 1), 2, dict.fromkeys(range(4)), {}).plan()
        assert placement.shards == {0, 1, 2, 3}

    def test_half_the_shards_hold_half_the_experts(self) -> None:
        placement = Fleet(tuple(range(24)), 16, {0: None, 1: None}, {}).plan()
        assert [len(placement.held_by(shard)) for shard in (0, 1)] == [192, 192]

    def test_fills_small_shards_and_leaves_the_rest_to_large_ones(self) -> None:
        placement = Fleet((0, 1), 8, {0: 3, 1: None, 2: 5}, {}).plan()
        assert [len(placement.held_by(shard)) for shard in (0, 1, 2)] == [3, 8, 5]

    def test_without_memory_for_one_copy_of_all_there_is_no_plan(self) -> None:
        with pytest.raises(NoPlacement, match=r"16 experts need a place; .* shard 0 7, shard 1 8"):
            Fleet((0, 1), 8, {0: 7, 1: 8}, {}).plan()
        with pytest.raises(NoPlacement):
            Fleet((0,), 8, {}, {}).plan()


class TestRedundancy:
    def test_copies_the_hottest_expert(self) -> None:
        placement = fleet_of(2, [9, 1, 1, 1], redundant_experts=1).plan()
        assert placement.copies[0][0] == (0, 1)
        assert copies_of(placement) == 5

    def test_shares_a_hot_expert_until_it_is_as_cold_as_the_others(self) -> None:
        placement = fleet_of(4, [8, 4, 2, 2], redundant_experts=4).plan()
        assert [len(holders) for holders in placement.copies[0]] == [4, 2, 1, 1]
        assert imbalance(placement, fleet_of(4, [8, 4, 2, 2]).load) == pytest.approx(1.0)

    def test_is_capped_by_the_number_of_shards(self) -> None:
        assert fleet_of(2, [3, 2, 1], redundant_experts=9).plan().copies[0] == ((0, 1),) * 3

    def test_is_capped_by_memory(self) -> None:
        fleet = Fleet((0,), 4, {0: 3, 1: 2}, {ExpertId(0, 2): 1.0}, redundant_experts=4)
        assert [len(holders) for holders in fleet.plan().copies[0]] == [1, 1, 2, 1]

    def test_follows_the_load(self) -> None:
        old = fleet_of(2, [9, 1, 1, 1], redundant_experts=1).plan()
        new = fleet_of(2, [1, 1, 1, 9], redundant_experts=1).plan(current=old)
        assert [len(holders) for holders in new.copies[0]] == [1, 1, 1, 2]
        assert moves(old, new) == 1


class TestRebalancing:
    def test_moves_only_what_the_balance_needs(self) -> None:
        old = fleet_of(2, [1.0] * 16).plan()
        hot = [5.0, 1.0, 1.0, 5.0] + [1.0] * 12  # both on shard 0
        new = fleet_of(2, hot).plan(current=old)
        assert imbalance(new, fleet_of(2, hot).load) == pytest.approx(1.0)
        assert moves(old, new) == 2  # one exchange

    def test_a_shard_that_comes_back_is_given_its_share(self) -> None:
        whole = fleet_of(2, [1.0] * 16)
        alone = whole.plan().without([1])
        alone = alone.adding(plan_repair(alone, {0: None}, {}))
        back = whole.plan(current=alone)
        assert [len(back.held_by(shard)) for shard in (0, 1)] == [8, 8]
        assert moves(alone, back) == 8
        assert is_worth_moving(alone, back, {})

    def test_is_not_worth_it_for_a_little_noise(self) -> None:
        loads = [1.0] * 15 + [1.3]
        fleet = fleet_of(2, loads)
        even = fleet_of(2, [1.0] * 16).plan()
        assert not is_worth_moving(even, even, fleet.load)
        assert not is_worth_moving(even, fleet.plan(current=even), fleet.load)

    def test_is_worth_it_from_a_tenth_of_the_busiest_shard(self) -> None:
        old = ExpertPlacement(1, {0: ((0,), (0,), (1,), (1,))})
        new = ExpertPlacement(2, {0: ((0,), (1,), (0,), (1,))})
        assert 0.05 < WORTHWHILE_GAIN < 0.2
        assert is_worth_moving(old, new, fleet_of(2, [4, 3, 2, 3]).load)  # 7 against 6 of 12
        assert not is_worth_moving(old, new, fleet_of(2, [40, 31, 29, 30]).load)  # 71 against 69 of 130

    def test_is_worth_it_for_more_copies(self) -> None:
        one = fleet_of(2, [1.0, 1.0])
        assert is_worth_moving(one.plan(), fleet_of(2, [1.0, 1.0], redundant_experts=1).plan(), one.load)


class TestImbalance:
    def test_is_the_busiest_shard_over_the_mean_one(self) -> None:
        placement = ExpertPlacement(1, {0: ((0,), (0,), (1,), (0, 1))})
        assert imbalance(placement, {}) == pytest.approx(2.5 / 2)
        assert imbalance(placement, fleet_of(2, [3, 1, 0, 4]).load) == pytest.approx(6 / 4)

    def test_is_the_mean_over_layers_because_each_waits_for_its_own(self) -> None:
        placement = ExpertPlacement(1, {0: ((0,), (1,)), 1: ((0,), (1,))})
        load = {ExpertId(0, 0): 1.0, ExpertId(1, 1): 1.0}  # even over the layers together, but not in any
        assert imbalance(placement, load) == 2.0

    @settings(deadline=None, max_examples=100)
    @given(fleets())
    def test_is_at_least_one(self, fleet: Fleet) -> None:
        assert imbalance(fleet.plan(), fleet.load) >= 1.0


class TestRepair:
    @settings(deadline=None, max_examples=150)
    @given(fleets(), st.data())
    def test_loads_what_is_missing_and_nothing_else(self, fleet: Fleet, data: st.DataObject) -> None:
        lost = data.draw(st.sets(st.sampled_from(sorted(fleet.capacity))))
        survivors = {shard: limit for shard, limit in fleet.capacity.items() if shard not in lost}
        broken = fleet.plan().without(lost)
        room = [limit and limit - len(broken.held_by(shard)) for shard, limit in survivors.items()]
        has_room = any(free is None for free in room) or sum(free or 0 for free in room) >= len(broken.missing)
        if not has_room:
            with pytest.raises(NoPlacement):
                plan_repair(broken, survivors, fleet.load)
            return
        additions = plan_repair(broken, survivors, fleet.load)
        assert sorted(itertools.chain.from_iterable(additions.values())) == sorted(broken.missing)
        whole = broken.adding(additions)
        assert not whole.missing
        for shard, limit in survivors.items():
            assert limit is None or len(whole.held_by(shard)) <= limit

    def test_of_nothing_is_nothing(self) -> None:
        assert plan_repair(fleet_of(2, [1.0, 1.0]).plan(), {0: None, 1: None}, {}) == {}

    def test_spreads_over_survivors_the_leader_among_them(self) -> None:
        fleet = fleet_of(4, [1.0] * 12)
        additions = plan_repair(fleet.plan().without([3]), dict.fromkeys(range(3)), fleet.load)
        assert {shard: len(experts) for shard, experts in additions.items()} == {0: 1, 1: 1, 2: 1}

    def test_gives_the_busiest_to_the_least_loaded(self) -> None:
        placement = ExpertPlacement(1, {0: ((0,), (1,), (), ())})
        loads = fleet_of(2, [5, 2, 1, 4]).load
        assert plan_repair(placement, {0: None, 1: None}, loads) == {1: [ExpertId(0, 3)], 0: [ExpertId(0, 2)]}

    def test_shares_the_reading_between_shards_that_are_equally_busy(self) -> None:
        lost = ExpertPlacement(1, dict.fromkeys(range(10), ((0,), (1,), ())))
        additions = plan_repair(lost, {0: None, 1: None}, {})
        assert {shard: len(experts) for shard, experts in additions.items()} == {0: 5, 1: 5}
