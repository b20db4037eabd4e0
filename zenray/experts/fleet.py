"""The expert shards of one verifier: which live, what each holds, and how a change of it reaches the steps.

A step sees one placement (`StepGate`); entering a step, the engine's thread first repairs what was lost. `Upkeep`, on
a thread of its own, does everything that may take its time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from zenray.config import ExpertSettings
from zenray.errors import Unavailable
from zenray.experts.link import ShardHost, ShardLink, ShardLost, ShardRefused, ShardReport
from zenray.experts.load import LoadMeter
from zenray.experts.placement import LEADER, ExpertId, ExpertPlacement
from zenray.experts.planning import NoPlacement, plan_placement, plan_repair
from zenray.experts.status import ShardState, ShardStatus
from zenray.experts.step_gate import StepGate
from zenray.experts.store import ExpertStore
from zenray.model.moe import StepPostponed

_R = TypeVar("_R")
_logger = logging.getLogger(__name__)

POSTPONE_S = 0.05
"""How long a step waits for a place for lost experts before the engine may look at its requests again."""
RETRY_MS = 2000
"""What a client is told to wait while experts have no place: a process starts in some seconds."""


@dataclass(slots=True)
class Member:
    """A shard that answers, and what it has in memory. `control` serialises everything but the calls of a step."""

    link: ShardLink
    loaded: set[ExpertId] = field(default_factory=set)
    control: threading.Lock = field(default_factory=threading.Lock)
    report: ShardReport | None = None


class Fleet:
    """Owner of the placement. `layers` are the model's MoE layers.

    The leader computes with `store`; the other shards are started by `host`, which the fleet ends, and take
    `shard_capacity` experts each. `changed` is set whenever a shard was lost.
    """

    def __init__(
        self,
        store: ExpertStore,
        host: ShardHost,
        settings: ExpertSettings,
        layers: Sequence[int],
        num_experts: int,
        shard_capacity: int | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.settings, self.clock_s = store, settings, clock_s
        self.meter = LoadMeter(layers, num_experts)
        self.changed = threading.Event()
        self.members: dict[int, Member] = {}
        self.recoveries_ms: list[float] = []
        self._host = host
        self._layers, self._num_experts, self._shard_capacity = tuple(layers), num_experts, shard_capacity
        self._placement = ExpertPlacement(0, dict.fromkeys(layers, ((),) * num_experts))
        self._gate = StepGate()
        self._own_control = threading.Lock()  # the leader's, as a member's
        self._lost_at_s: float | None = None
        self._unplaced: str | None = None
        # A start takes its thread for seconds, while somebody else has to load.
        self._pool = ThreadPoolExecutor(2 * settings.num_shards, thread_name_prefix="zenray-shard")

    def start(self) -> None:
        """Brings every shard up and every expert to its place; a shard lost over that is started once more: where
        everything starts at the same time, one that lives may fall silent for a moment.

        Raises what the host raises, `ShardLost` and `ShardRefused` included, and `NoPlacement` when the memory
        allowed does not hold the experts.
        """
        try:
            starts = {shard: self.begin_start(shard) for shard in self.remote_shards}
            self.members = {shard: Member(start.result()) for shard, start in starts.items()}
            target = self.plan()
            wanted = additions(self._placement, target)
            for shard, loading in self._begin_loading(self._placement, wanted).items():
                try:
                    loading.result()
                except ShardLost as error:
                    _logger.warning("%s; it is started once more", error)
                    self.members[shard].link.close()
                    self.members[shard] = Member(self._host.start(shard))
                    self._load_one(self._placement, shard, wanted[shard])
            self._placement = target
        except BaseException:
            self.close()
            raise

    @property
    def remote_shards(self) -> range:
        """The numbers of the shards that are not the leader."""
        return range(1, self.settings.num_shards)

    @property
    def placement(self) -> ExpertPlacement:
        return self._placement

    @property
    def unavailable(self) -> str | None:
        """Why some expert has no place now."""
        return self._unplaced

    @property
    def is_broken(self) -> bool:
        """A shard was lost, and no step has seen a whole placement since."""
        return self._lost_at_s is not None

    def shards(self) -> tuple[ShardStatus, ...]:
        """The remote shards' state, ascending. From any thread."""
        members, serving = dict(self.members), self._placement.shards
        found = []
        for shard in self.remote_shards:
            if shard in members:
                member = members[shard]
                state: ShardState = "serving" if shard in serving else "joining"
                found.append(ShardStatus(shard, state, member.link.transport, member.report))
            else:
                found.append(ShardStatus(shard, "lost", "", None))
        return tuple(found)

    # What a step needs.

    @contextmanager
    def step(self) -> Iterator[ExpertPlacement]:
        """The placement of one step; it does not change inside.

        Raises `StepPostponed` while some expert has no place, `Unavailable` when that has lasted too long.
        """
        with self._gate.step():
            if not self.repair():
                self._gate.wait_for_change(POSTPONE_S)
                if not self.repair():
                    self._postpone()
            yield self._placement

    def lose(self, shard: int, link: ShardLink, reason: str) -> None:
        """The shard behind this link is of no more use; `reason` names it. Harmless if somebody was quicker."""
        with self._gate.hold():
            member = self.members.get(shard)
            if member is None or member.link is not link:
                return
            _logger.warning("%s; its experts go to others", reason)
            del self.members[shard]
            self._placement = self._placement.without([shard])
            self._note_loss()
        link.close()
        self.changed.set()

    def repair(self) -> bool:
        """Gives lost experts a place on survivors; False if there is none. Inside a step or between two."""
        if self._lost_at_s is None:
            return True
        while self._placement.missing:
            try:
                self.exchange(self._placement, self._plan_repair())
            except NoPlacement as reason:
                self._unplaced = str(reason)
                return False
        self._unplaced = None
        self.recoveries_ms.append((self.clock_s() - self._lost_at_s) * 1000)
        self._lost_at_s = None
        _logger.info("experts are complete again after %.0f ms, epoch %d", self.recoveries_ms[-1], self.placement.epoch)
        return True

    def _postpone(self) -> None:
        assert self._lost_at_s is not None
        allowed_s = self.settings.recovery_timeout_s
        if self.clock_s() - self._lost_at_s > allowed_s:
            raise Unavailable(f"{self._unplaced}; no shard came back within {allowed_s:g} s", RETRY_MS)
        raise StepPostponed

    # What upkeep needs.

    def between_steps(self, change: Callable[[], _R]) -> _R:
        """Has `change` made while no step is under way. Raises what it raises."""
        return self._gate.change(change)

    def begin_start(self, shard: int) -> Future[ShardLink]:
        """Starts a shard anew, without waiting for it."""
        return self._pool.submit(self._host.start, shard)

    def take_in(self, shard: int, link: ShardLink) -> None:
        """A shard that was started counts from now on. Between steps."""
        self.members[shard] = Member(link)

    def plan(self, current: ExpertPlacement | None = None) -> ExpertPlacement:
        """Where the experts belong, given who is here and the load seen lately. Raises `NoPlacement`."""
        return plan_placement(
            epoch=(current or self._placement).epoch + 1,
            layers=self._layers,
            num_experts=self._num_experts,
            capacity=self._capacity(),
            load=self.meter.snapshot(),
            redundant_experts=self.settings.redundant_experts,
            current=current,
        )

    def has_room_for(self, target: ExpertPlacement) -> bool:
        """Everybody's memory takes what it holds now and what it shall hold."""
        capacity = self._capacity()
        loaded = {LEADER: set(self.store.held)} | {shard: member.loaded for shard, member in self.members.items()}
        return all(
            (limit := capacity.get(shard)) is None or len(loaded.get(shard, set()) | target.held_by(shard)) <= limit
            for shard in target.shards
        )

    def load(self, current: ExpertPlacement, wanted: Mapping[int, Iterable[ExpertId]]) -> set[int]:
        """Has shards load experts, all at once. Returns those that did. Those that failed are lost; nobody begins once
        `current` is replaced, because the new placement may need the room. Raises what goes wrong with the leader's
        own."""
        links = {shard: member.link for shard, member in self.members.items() if shard in wanted}
        done = set()
        failed: dict[int, str] = {}
        for shard, loading in self._begin_loading(current, wanted).items():
            try:
                if loading.result():
                    done.add(shard)
            except (ShardLost, ShardRefused) as error:
                if shard == LEADER:
                    raise
                failed[shard] = str(error)
        for shard in failed.keys() & links.keys():
            self.lose(shard, links[shard], failed[shard])
        return done

    def change_over(self, current: ExpertPlacement, target: ExpertPlacement) -> bool:
        """Puts `target` in the place of `current`, unless the fleet has changed meanwhile. Between steps."""
        if self._placement is not current or not target.shards <= {LEADER, *self.members}:
            return False
        self._placement = target
        return True

    def exchange(self, current: ExpertPlacement, target: ExpertPlacement) -> bool:
        """As `change_over`, for experts that are not loaded yet where memory does not hold old and new together:
        what `target` does not name is forgotten first. Steps wait for the loading. Between steps."""
        if not self.change_over(current, current.common(target)):
            return False
        self.forget_surplus()
        wanted = additions(self._placement, target)
        try:
            for shard in self.load(self._placement, wanted):
                self._placement = self._placement.adding({shard: wanted[shard]})
        except BaseException:
            self._note_loss()  # what was forgotten for this is missing
            raise
        return not self._placement.missing

    def forget_surplus(self) -> None:
        """Shards drop what the placement does not name. Between steps: a repair may be about to name it."""
        with self._own_control:  # after any load under way: its experts may be surplus too
            self.store.drop(set(self.store.held) - self._placement.held_by(LEADER))
        for shard, member in list(self.members.items()):
            try:
                with member.control:
                    if surplus := member.loaded - self._placement.held_by(shard):
                        member.link.drop(surplus)
                        member.loaded -= surplus
            except (ShardLost, ShardRefused) as error:
                self.lose(shard, member.link, str(error))

    def close(self) -> None:
        """Hangs up on every shard and ends what the host started."""
        for member in list(self.members.values()):
            member.link.close()
        self._host.close()
        self._pool.shutdown()

    def _note_loss(self) -> None:
        if self._lost_at_s is None:
            self._lost_at_s = self.clock_s()

    def _plan_repair(self) -> ExpertPlacement:
        """Raises `NoPlacement`."""
        try:
            return self._placement.adding(plan_repair(self._placement, self._capacity(), self.meter.snapshot()))
        except NoPlacement:
            return self.plan(self._placement)  # fewer copies may leave room

    def _capacity(self) -> dict[int, int | None]:
        return {LEADER: self.store.capacity} | dict.fromkeys(sorted(self.members), self._shard_capacity)

    def _begin_loading(
        self, current: ExpertPlacement, wanted: Mapping[int, Iterable[ExpertId]]
    ) -> dict[int, Future[bool]]:
        return {shard: self._pool.submit(self._load_one, current, shard, wanted[shard]) for shard in wanted}

    def _load_one(self, current: ExpertPlacement, shard: int, experts: Iterable[ExpertId]) -> bool:
        """False if `current` was replaced before it was this shard's turn."""
        if shard == LEADER:
            with self._own_control:
                if self._placement is not current:
                    return False
                self.store.load(experts)
            return True
        member = self.members.get(shard)
        if member is None:
            raise ShardLost(shard, "it was lost before it was given its experts")
        with member.control:
            if self._placement is not current:
                return False
            member.link.load(experts)
            member.loaded |= set(experts)
        return True


def additions(current: ExpertPlacement, target: ExpertPlacement) -> dict[int, frozenset[ExpertId]]:
    """What each shard of `target` does not hold in `current`."""
    wanted = {shard: target.held_by(shard) - current.held_by(shard) for shard in target.shards}
    return {shard: experts for shard, experts in wanted.items() if experts}
