"""Keeps a fleet whole and balanced while steps go on: watches, replaces lost shards, follows the load."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from zenray.experts.fleet import Fleet, additions
from zenray.experts.link import ShardLink, ShardLost, ShardRefused
from zenray.experts.placement import ExpertPlacement
from zenray.experts.planning import NoPlacement, is_worth_moving

_logger = logging.getLogger(__name__)

WATCH_PERIOD_S = 0.25
_FAILURE_PAUSE_S = 5.0
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 30.0


@dataclass(slots=True)
class _Starts:
    """Of one shard number: `start` is under way, the next one is not before `next_at_s`. Each that fails, or whose
    shard does not live until the next one would be allowed, doubles the pause."""

    next_at_s: float
    pause_s: float = _FIRST_PAUSE_S
    start: Future[ShardLink] | None = None


class Upkeep:
    """A thread beside a started fleet, until it is told to `stop`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._starts: dict[int, _Starts] = {}
        self._is_settled = True
        self._balanced_at_s = fleet.clock_s()
        self.num_rebalances = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="zenray-experts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No further round begins."""
        self._stopping = True
        self._fleet.changed.set()

    def join(self) -> None:
        """Waits for the thread's end. A closed fleet frees it from whatever it waits for."""
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """One round of everything."""
        fleet = self._fleet
        self._ask_members()
        if fleet.is_broken:
            fleet.between_steps(fleet.repair)
        self._bring_back()
        if not self._is_settled:
            self._settle()
        period_s = fleet.settings.rebalance_period_s
        if period_s and fleet.clock_s() - self._balanced_at_s >= period_s:
            self._balanced_at_s = fleet.clock_s()
            self.rebalance()

    def rebalance(self) -> bool:
        """Places the experts by the load seen lately; False when that is not worth the move, or not the time."""
        fleet = self._fleet
        current = fleet.placement
        if len(fleet.members) < len(fleet.remote_shards):
            return False
        target = fleet.plan(current)
        if not is_worth_moving(current, target, fleet.meter.snapshot()) or not self._move(current, target):
            return False
        self.num_rebalances += 1
        _logger.info("experts follow the load: epoch %d", target.epoch)
        return True

    def _run(self) -> None:
        while not self._stopping:
            pause_s = WATCH_PERIOD_S
            try:
                self.look()
            except Exception:
                if not self._stopping:
                    _logger.exception("looking after the expert shards failed; trying again")
                pause_s = _FAILURE_PAUSE_S
            self._fleet.changed.wait(pause_s)
            self._fleet.changed.clear()

    def _ask_members(self) -> None:
        """A shard that does not answer is lost, also while the engine is idle."""
        for shard, member in list(self._fleet.members.items()):
            try:
                with member.control:
                    member.report = member.link.report()
            except (ShardLost, ShardRefused) as error:
                if not self._stopping:
                    self._fleet.lose(shard, member.link, str(error))

    def _bring_back(self) -> None:
        """Starts lost shards anew and takes in those that have come up: empty, to be given experts."""
        fleet = self._fleet
        for shard in fleet.remote_shards:
            now_s = fleet.clock_s()
            if shard in fleet.members:
                if shard in self._starts and now_s >= self._starts[shard].next_at_s:
                    del self._starts[shard]
                continue
            starts = self._starts.setdefault(shard, _Starts(now_s))
            if starts.start is None:
                if now_s >= starts.next_at_s:
                    starts.start = fleet.begin_start(shard)
                    starts.start.add_done_callback(lambda _: fleet.changed.set())
            elif starts.start.done():
                start, starts.start = starts.start, None
                starts.next_at_s, starts.pause_s = now_s + starts.pause_s, min(2 * starts.pause_s, _LAST_PAUSE_S)
                try:
                    link = start.result()
                except Exception as error:
                    _logger.warning("expert shard %d does not start: %s", shard, error)
                    continue
                fleet.between_steps(partial(fleet.take_in, shard, link))
                self._is_settled = False
                _logger.info("expert shard %d is back", shard)

    def _settle(self) -> None:
        """Shares the experts out over everybody who is here, also those who came last."""
        current = self._fleet.placement
        try:
            self._is_settled = self._move(current, self._fleet.plan(current))
        except NoPlacement as reason:
            _logger.warning("%s", reason)
            self._is_settled = True  # until somebody else comes

    def _move(self, current: ExpertPlacement, target: ExpertPlacement) -> bool:
        """Loads what `target` needs while steps go on under `current`, changes over between two steps, then forgets
        what is not needed any more. False if the fleet changed meanwhile."""
        fleet = self._fleet
        if not fleet.has_room_for(target):
            return fleet.between_steps(partial(fleet.exchange, current, target))
        wanted = additions(current, target)
        is_loaded = fleet.load(current, wanted) == wanted.keys()
        moved = is_loaded and fleet.between_steps(partial(fleet.change_over, current, target))
        fleet.between_steps(fleet.forget_surplus)
        return moved
