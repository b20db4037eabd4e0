"""The experts of a model shared out over processes: what the decoder calls instead of its own experts.

Shapes: T tokens, K experts per token, P = T * K pairs, N rows sent to a shard, D model width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch

from zenray.experts.assignment import assign
from zenray.experts.fleet import Fleet
from zenray.experts.link import ExpertCall, ShardLink, ShardLost, ShardRefused
from zenray.experts.placement import LEADER, ExpertPlacement
from zenray.experts.shard import ExpertShard
from zenray.experts.status import ExpertStatus, ShardStatus
from zenray.experts.upkeep import Upkeep
from zenray.model.moe import StepAborted, group_by_expert
from zenray.ops.backend import Backend


class ShardedExperts:
    """Sends every token to the shards that hold its experts and sums what returns, in the order of the experts.

    A shard answers with one row per pair of a token and an expert, so the sum is the same wherever the experts are.
    """

    def __init__(self, fleet: Fleet, ops: Backend) -> None:
        """Around a started fleet, which it ends with itself; its upkeep is started by the caller."""
        self.fleet, self.upkeep = fleet, Upkeep(fleet)
        self._own = ExpertShard(LEADER, fleet.store, ops)
        self._ops = ops
        self._placement: ExpertPlacement | None = None
        self._dispatch_s = self._step_s = 0.0
        self.num_dispatches = 0
        """Layers of steps in which somebody else was asked."""
        self.num_aborts = 0

    @property
    def name(self) -> str:
        settings = self.fleet.settings
        return f"{settings.num_shards} shards, {settings.redundant_experts} copies, {settings.num_threads} threads"

    @property
    def unavailable(self) -> str | None:
        return self.fleet.unavailable

    @contextmanager
    def step(self) -> Iterator[None]:
        with self.fleet.step() as placement:
            self._placement = placement
            start_s = time.perf_counter()
            try:
                yield
            finally:
                self._placement = None
                self._step_s += time.perf_counter() - start_s

    def __call__(
        self, layer: int, x_TD: torch.Tensor, expert_ids_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        assert self._placement is not None, "experts are called inside a step"
        grouped = group_by_expert(expert_ids_TK)
        self.fleet.meter.count(layer, grouped.expert_ids, grouped.counts)
        holders = self._placement.copies[layer]
        chosen = assign([holders[expert] for expert in grouped.expert_ids], grouped.counts)
        whole = ExpertCall(self._placement.epoch, layer, grouped.expert_ids, grouped.counts, grouped.rows_P, x_TD)
        y_PD = self._own.compute(whole) if all(shard == LEADER for shard in chosen) else self._dispatch(whole, chosen)
        return self._ops.combine(y_PD, grouped.pairs_TK, weights_TK)

    def status(self) -> ExpertStatus:
        """What the shards do, from any thread."""
        recoveries_ms = self.fleet.recoveries_ms
        return ExpertStatus(
            placement=self.fleet.placement,
            shards=(ShardStatus(LEADER, "serving", "in-process", self._own.report()), *self.fleet.shards()),
            load=self.fleet.meter.snapshot(),
            recoveries=len(recoveries_ms),
            last_recovery_ms=recoveries_ms[-1] if recoveries_ms else 0.0,
            longest_recovery_ms=max(recoveries_ms, default=0.0),
            rebalances=self.upkeep.num_rebalances,
            dispatch_ms=self._dispatch_s * 1000,
            step_ms=self._step_s * 1000,
            unavailable=self.fleet.unavailable,
        )

    def close(self) -> None:
        self.upkeep.stop()
        self.fleet.close()
        self.upkeep.join()

    def _dispatch(self, whole: ExpertCall, chosen: Sequence[int]) -> torch.Tensor:
        """[P, D] of the whole layer's call: others compute their experts while the leader computes its own."""
        start_s = time.perf_counter()
        y_PD = whole.x_ND.new_empty(whole.num_pairs, whole.x_ND.shape[1])
        ranges = [(end - count, end) for count, end in zip(whole.counts, accumulate(whole.counts), strict=True)]
        indices_of = {
            shard: [index for index, owner in enumerate(chosen) if owner == shard] for shard in sorted(set(chosen))
        }
        own = indices_of.pop(LEADER, None)
        asked: list[tuple[ShardLink, list[int]]] = []
        lost: list[tuple[ShardLink, str]] = []
        for shard, indices in indices_of.items():
            link = self.fleet.members[shard].link
            try:
                link.send(_part(whole, indices, ranges))
                asked.append((link, indices))
            except ShardLost as error:
                lost.append((link, str(error)))
        own_start_s = time.perf_counter()
        if own is not None:
            _put(y_PD, own, ranges, self._own.compute(_part(whole, own, ranges)))
        own_s = time.perf_counter() - own_start_s
        # Everybody is heard even when somebody is lost: an answer left behind would meet the next call.
        for link, indices in asked:
            try:
                _put(y_PD, indices, ranges, link.receive())
            except (ShardLost, ShardRefused) as error:
                lost.append((link, str(error)))
        self._dispatch_s += time.perf_counter() - start_s - own_s
        self.num_dispatches += 1
        if lost:
            for link, reason in lost:
                self.fleet.lose(link.shard, link, reason)
            self.num_aborts += 1
            raise StepAborted
        return y_PD


Range = tuple[int, int]
"""Where the pairs of one used expert begin and end."""


def _part(whole: ExpertCall, indices: Sequence[int], ranges: Sequence[Range]) -> ExpertCall:
    """The call for some of a layer's used experts, given by their place in the whole one, with the rows they need."""
    if len(indices) == len(ranges):
        return whole
    rows_P = torch.cat([whole.rows_P[slice(*ranges[index])] for index in indices])
    x_ND = whole.x_ND
    if len(x_ND) > 1:
        needed_N, rows_P = torch.unique(rows_P, return_inverse=True)
        x_ND = x_ND[needed_N]
    expert_ids = [whole.expert_ids[index] for index in indices]
    return ExpertCall(whole.epoch, whole.layer, expert_ids, [whole.counts[index] for index in indices], rows_P, x_ND)


def _put(y_PD: torch.Tensor, indices: Sequence[int], ranges: Sequence[Range], part_PD: torch.Tensor) -> None:
    """Rows of some experts' pairs to where all pairs' rows are."""
    start = 0
    for begin, end in (ranges[index] for index in indices):
        y_PD[begin:end] = part_PD[start : start + end - begin]
        start += end - begin
