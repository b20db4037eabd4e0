"""A fleet changes only between steps, whoever changes it, and keeps its books."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from zenray.config import ExpertSettings
from zenray.errors import ConfigError, ModelFileError
from zenray.experts.build import sharded_experts
from zenray.experts.fleet import Fleet
from zenray.experts.in_process import InProcessHost
from zenray.experts.link import ExpertCall, ShardLink, ShardLost, ShardRefused
from zenray.experts.placement import LEADER, ExpertId
from zenray.experts.planning import NoPlacement, imbalance
from zenray.experts.store import ExpertStore
from zenray.experts.upkeep import Upkeep
from zenray.model.load import load_preset, open_preset
from zenray.ops import backend_for

NUM_EXPERTS, LAYERS = 8, (0, 1)
EVERYTHING = {ExpertId(layer, expert) for layer in LAYERS for expert in range(NUM_EXPERTS)}

MakeFleet = Callable[..., Fleet]


class Sabotage:
    """Lets the operations named here fail for the shards named here, until taken back."""

    def __init__(self) -> None:
        self.failing: set[tuple[int, str]] = set()

    def __call__(self, shard: int, operation: str, call: ExpertCall | None) -> None:
        if (shard, operation) in self.failing:
            raise ShardLost(shard, f"fails on {operation}")


@pytest.fixture
def sabotage() -> Sabotage:
    return Sabotage()


@pytest.fixture
def make_fleet(sabotage: Sabotage) -> Iterator[MakeFleet]:
    """A started fleet over the toy's experts; closed at the end."""
    weights, ops = open_preset("tiny-moe"), backend_for("cpu", torch.float64)
    made: list[Fleet] = []

    def make(num_shards: int, capacity: int | None = None, **settings: Any) -> Fleet:
        host = InProcessHost(weights, ops, capacity=capacity, interfere=sabotage)
        store = ExpertStore(weights, capacity=capacity)
        fleet = Fleet(store, host, ExpertSettings(num_shards=num_shards, **settings), LAYERS, NUM_EXPERTS, capacity)
        made.append(fleet)
        fleet.start()
        return fleet

    yield make
    for fleet in made:
        fleet.close()


def check_books(fleet: Fleet) -> None:
    """Everybody has in memory exactly what the placement says, and nothing is missing."""
    assert not fleet.placement.missing
    assert set(fleet.store.held) == fleet.placement.held_by(LEADER)
    for shard, member in fleet.members.items():
        assert member.loaded == fleet.placement.held_by(shard)
        assert member.link.report().num_experts == len(member.loaded)


def lose(fleet: Fleet, shard: int) -> None:
    fleet.lose(shard, fleet.members[shard].link, f"expert shard {shard}: taken away by the test")


@pytest.mark.parametrize("num_shards", [1, 2, 4])
def test_at_the_start_every_expert_has_a_place(make_fleet: MakeFleet, num_shards: int) -> None:
    fleet = make_fleet(num_shards)
    check_books(fleet)
    assert fleet.placement.epoch == 1
    assert len(fleet.placement.held_by(LEADER)) == len(EVERYTHING) / num_shards


def test_a_loss_with_copies_needs_no_loading(make_fleet: MakeFleet, sabotage: Sabotage) -> None:
    fleet = make_fleet(2, redundant_experts=NUM_EXPERTS)
    lose(fleet, 1)
    before = set(fleet.store.held)
    with fleet.step() as placement:
        assert placement.held_by(LEADER) == EVERYTHING == before


def test_a_loss_without_copies_is_repaired_on_entering_the_next_step(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    epoch = fleet.placement.epoch
    lose(fleet, 1)
    assert fleet.is_broken and fleet.placement.missing
    with fleet.step() as placement:
        assert not placement.missing and placement.shards == {LEADER, 2}
        assert placement.epoch > epoch
    assert not fleet.is_broken and len(fleet.recoveries_ms) == 1
    check_books(fleet)


def test_a_survivor_that_dies_while_it_loads_is_lost_too(make_fleet: MakeFleet, sabotage: Sabotage) -> None:
    fleet = make_fleet(3)
    sabotage.failing = {(2, "load")}
    lose(fleet, 1)
    with fleet.step() as placement:
        assert placement.held_by(LEADER) == EVERYTHING
    assert not fleet.members


def test_a_stale_report_of_a_loss_harms_nobody(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    old = fleet.members[1].link
    lose(fleet, 1)
    upkeep = Upkeep(fleet)
    while 1 not in fleet.members:
        upkeep.look()
    fleet.lose(1, old, "expert shard 1: heard late")
    assert 1 in fleet.members


def test_a_replaced_shard_gets_its_share_back_and_the_others_forget_it(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    lose(fleet, 1)
    with fleet.step():
        pass
    assert set(fleet.store.held) == EVERYTHING
    upkeep = Upkeep(fleet)
    while 1 not in fleet.placement.shards:
        upkeep.look()
    check_books(fleet)
    assert len(fleet.store.held) == len(EVERYTHING) / 2


def test_a_start_that_fails_is_tried_again_later(make_fleet: MakeFleet, sabotage: Sabotage) -> None:
    fleet = make_fleet(2)
    now_s = [0.0]
    fleet.clock_s = lambda: now_s[0]
    upkeep = Upkeep(fleet)
    sabotage.failing = {(1, "start")}
    lose(fleet, 1)
    for _ in range(3):
        upkeep.look()
    assert 1 not in fleet.members
    sabotage.failing = set()
    now_s[0] = 60.0
    while 1 not in fleet.members:
        upkeep.look()
    assert [status.state for status in fleet.shards()] == ["serving"]


@pytest.mark.parametrize(("life_s", "least", "most"), [(0.5, 33, 42), (40.0, 23, 25)])
def test_a_shard_that_never_stays_is_started_less_and_less_often(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, life_s: float, least: int, most: int
) -> None:
    """In 1000 seconds, a start taking none. One that has stayed for a while is replaced at once."""
    fleet = make_fleet(2)
    now_s = 0.0
    fleet.clock_s = lambda: now_s

    def start_at_once(shard: int) -> Future[ShardLink]:
        started: Future[ShardLink] = Future()
        started.set_result(fleet._host.start(shard))
        return started

    monkeypatch.setattr(fleet, "begin_start", start_at_once)
    upkeep = Upkeep(fleet)
    num_lost, dies_at_s = 0, 0.0
    while now_s < 1000:
        if 1 in fleet.members and now_s >= dies_at_s:
            lose(fleet, 1)
            num_lost += 1
        was_here = 1 in fleet.members
        upkeep.look()
        if 1 in fleet.members and not was_here:
            dies_at_s = now_s + life_s
        now_s += 0.25
    assert least <= num_lost <= most


def test_a_shard_for_which_no_expert_is_left_is_no_reason_to_move_any(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(20)
    idle = next(shard for shard in fleet.members if shard not in fleet.placement.shards)
    upkeep = Upkeep(fleet)
    lose(fleet, idle)
    while idle not in fleet.members:
        upkeep.look()
    epoch = fleet.placement.epoch
    upkeep.look()
    upkeep.look()
    assert fleet.placement.epoch == epoch


def test_experts_follow_the_load_while_a_step_holds_on_to_its_placement(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    upkeep = Upkeep(fleet)
    for layer in LAYERS:  # all of the load on experts that one shard holds
        hot = sorted(at.expert for at in fleet.placement.held_by(1) if at.layer == layer)
        fleet.meter.count(layer, hot, [1000] * len(hot))
    load = fleet.meter.snapshot()
    before = fleet.placement
    moved: list[bool] = []
    mover = threading.Thread(target=lambda: moved.append(upkeep.rebalance()))
    with fleet.step() as placement:
        mover.start()
        while not fleet._gate.num_waiting:  # the move has loaded everything and wants to change over
            assert fleet.placement is placement
        assert fleet.placement is before
    with fleet.step() as placement:  # the engine's thread makes the change itself
        assert placement is not before
    mover.join()
    assert moved == [True] and upkeep.num_rebalances == 1
    assert imbalance(fleet.placement, load) < imbalance(before, load)
    check_books(fleet)


def test_a_move_that_a_loss_overtakes_is_given_up(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3)
    current = fleet.placement
    target = fleet.plan(current)
    lose(fleet, 2)
    assert not fleet.between_steps(lambda: fleet.change_over(current, target))
    with fleet.step() as placement:
        assert 2 not in placement.shards and not placement.missing


def count_uneven_load(fleet: Fleet) -> None:
    """The lower an expert's number, the busier it is."""
    for layer in LAYERS:
        fleet.meter.count(layer, list(range(NUM_EXPERTS)), [1000 >> expert for expert in range(NUM_EXPERTS)])


def test_shards_without_room_for_old_and_new_exchange_experts_between_two_steps(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2, capacity=len(EVERYTHING) // 2)
    members = dict(fleet.members)
    for layer in LAYERS:
        hot = sorted(at.expert for at in fleet.placement.held_by(1) if at.layer == layer)
        fleet.meter.count(layer, hot, [1000] * len(hot))
    before = imbalance(fleet.placement, fleet.meter.snapshot())
    assert Upkeep(fleet).rebalance()
    assert imbalance(fleet.placement, fleet.meter.snapshot()) < before
    assert fleet.members == members, "nobody was asked for more than fits"
    check_books(fleet)


def test_copies_make_room_for_what_is_lost(make_fleet: MakeFleet) -> None:
    """Everybody is full, but not all of it is needed twice."""
    capacity = len(EVERYTHING) // 2
    fleet = make_fleet(3, capacity=capacity, redundant_experts=NUM_EXPERTS // 2)
    assert {len(fleet.placement.held_by(shard)) for shard in range(3)} == {capacity}
    lose(fleet, 1)
    with fleet.step() as placement:
        assert not placement.missing and placement.shards == {LEADER, 2}
    check_books(fleet)


def test_one_that_comes_back_relieves_shards_that_are_full(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3, capacity=len(EVERYTHING) // 2)
    count_uneven_load(fleet)
    upkeep = Upkeep(fleet)
    lose(fleet, 1)
    with fleet.step() as placement:
        assert {len(placement.held_by(shard)) for shard in (LEADER, 2)} == {fleet.store.capacity}
    while 1 not in fleet.placement.shards:
        upkeep.look()
    check_books(fleet)


def test_a_repair_takes_the_room_of_a_move_that_has_begun(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(3, capacity=len(EVERYTHING) // 2)
    lose(fleet, 1)
    held = {shard: fleet.placement.held_by(shard) for shard in (LEADER, 2)}
    room = {shard: len(EVERYTHING) // 2 - len(held[shard]) for shard in held}
    begun = {LEADER: sorted(held[2])[: room[LEADER]], 2: sorted(held[LEADER])[: room[2]]}
    assert fleet.load(fleet.placement, begun) == {LEADER, 2}
    with fleet.step() as placement:
        assert not placement.missing and placement.shards == {LEADER, 2}
    fleet.between_steps(fleet.forget_surplus)
    check_books(fleet)


@pytest.mark.parametrize("slow", [LEADER, 1])
def test_a_repair_takes_the_room_of_a_load_under_way(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    """Nobody is asked for more than fits, though what a move is just reading is in no book yet."""
    fleet = make_fleet(3, capacity=len(EVERYTHING) // 2)
    reader = fleet.store if slow == LEADER else fleet.members[slow].link
    reading, go_on, load = threading.Event(), threading.Event(), reader.load

    def read_slowly(experts: Any) -> None:
        if not reading.is_set():
            reading.set()
            assert go_on.wait(60)
        load(experts)

    monkeypatch.setattr(reader, "load", read_slowly)
    current = fleet.placement
    room = len(EVERYTHING) // 2 - len(current.held_by(slow))
    target = current.adding({slow: sorted(current.held_by(2) - current.held_by(slow))[:room]})
    moved: list[bool] = []
    mover = threading.Thread(target=lambda: moved.append(Upkeep(fleet)._move(current, target)))
    mover.start()
    assert reading.wait(60)
    lose(fleet, 2)
    epoch = fleet.placement.epoch

    def step() -> None:
        with fleet.step() as placement:
            assert not placement.missing and placement.shards == {LEADER, 1}

    engine = threading.Thread(target=step)
    engine.start()
    while fleet.placement.epoch == epoch:  # until the repair has begun
        pass
    go_on.set()
    engine.join()
    mover.join()
    assert moved == [False] and fleet.members.keys() == {1} and not fleet.is_broken
    check_books(fleet)


def test_what_the_leader_forgot_and_could_not_read_is_missed_by_the_next_step(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(2, capacity=len(EVERYTHING) // 2)
    current = fleet.placement
    swapped = {LEADER: current.held_by(1), 1: current.held_by(LEADER)}
    target = current.without([LEADER, 1]).adding(swapped)

    def unreadable(experts: Any) -> None:
        raise ModelFileError("damaged")

    with monkeypatch.context() as damage:
        damage.setattr(fleet.store, "load", unreadable)
        with pytest.raises(ModelFileError):
            fleet.between_steps(lambda: fleet.exchange(current, target))
    assert fleet.is_broken
    with fleet.step() as placement:
        assert not placement.missing
    check_books(fleet)


def test_too_little_memory_for_all_is_said_at_the_start(make_fleet: MakeFleet) -> None:
    with pytest.raises(NoPlacement):
        make_fleet(2, capacity=len(EVERYTHING) // 2 - 1)


def test_a_shard_lost_over_its_first_experts_is_started_once_more() -> None:
    weights, ops = open_preset("tiny-moe"), backend_for("cpu", torch.float64)
    num_losses = [1]

    def fall_silent(shard: int, operation: str, call: ExpertCall | None) -> None:
        if operation == "load" and shard == 2 and num_losses[0]:
            num_losses[0] -= 1
            raise ShardLost(shard, "silent for a moment")

    def start() -> Fleet:
        host = InProcessHost(weights, ops, interfere=fall_silent)
        fleet = Fleet(ExpertStore(weights), host, ExpertSettings(num_shards=3), LAYERS, NUM_EXPERTS)
        fleet.start()
        return fleet

    fleet = start()
    check_books(fleet)
    assert fleet.placement.shards == {LEADER, 1, 2} and not fleet.is_broken
    fleet.close()
    num_losses[0] = 2
    with pytest.raises(ShardLost):
        start()


@pytest.mark.parametrize(
    ("failure", "said"), [(ShardLost(1, "no memory"), "no memory"), (ShardRefused("weights differ"), "weights differ")]
)
def test_shards_that_cannot_start_are_a_configuration_error(failure: Exception, said: str) -> None:
    class NoHost(InProcessHost):
        def start(self, shard: int) -> Any:
            raise failure

    settings = ExpertSettings(num_shards=2)
    host = NoHost(open_preset("tiny-moe"), backend_for("cpu", torch.float64))
    with pytest.raises(ConfigError, match=said):
        load_preset("tiny-moe", experts=sharded_experts(settings, "cpu", lambda digest: host))


def test_losing_and_returning_at_random_keeps_the_books(make_fleet: MakeFleet, sabotage: Sabotage) -> None:
    chance = random.Random(0)
    fleet = make_fleet(4, redundant_experts=3)
    now_s = [0.0]
    fleet.clock_s = lambda: now_s[0]
    upkeep = Upkeep(fleet)
    for _ in range(60):
        now_s[0] += 10
        for shard in list(fleet.members):
            if chance.random() < 0.2:
                lose(fleet, shard)
        if chance.random() < 0.7:
            upkeep.look()
        with fleet.step() as placement:
            assert not placement.missing
        for layer in LAYERS:
            fleet.meter.count(layer, [chance.randrange(NUM_EXPERTS)], [chance.randrange(1, 200)])
    while len(fleet.placement.shards) < 4:
        now_s[0] += 60
        upkeep.look()
    upkeep.rebalance()
    fleet.between_steps(fleet.forget_surplus)
    check_books(fleet)
