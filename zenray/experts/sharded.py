"""The experts of a model shared out over processes: what the decoder calls instead of its own experts.

Shapes: T tokens, K experts per token, P = T * K pairs, N rows sent to a shard, D model width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from zenray.experts.assignment import assign
from zenray.experts.fleet import Fleet
from zenray.experts.link import ExpertCall, ShardLink, ShardLost, ShardRefused
from zenray.experts.placement import LEADER, ExpertPlacement
from zenray.experts.shard import ExpertShard
from zenray.experts.status import ExpertStatus, ShardStatus
from zenray.experts.upkeep import Upkeep
from zenray.model.moe import Grouped, StepAborted, group_by_expert
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
        self._num_aborts = 0

    @property
    def name(self) -> str:
        settings = self.fleet.settings
        return f"{settings.num_shards} shards, {settings.redundant_experts} copies, {settings.num_threads} threads"

    @property
    def unavailable(self) -> str | None:
        return self.fleet.unavailable

    @property
    def num_aborts(self) -> int:
        return self._num_aborts

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
        if all(shard == LEADER for shard in chosen):
            y_PD = self._own.compute(_part(grouped, range(len(chosen)), x_TD, layer, self._placement.epoch))
        else:
            y_PD = self._dispatch(layer, x_TD, grouped, chosen)
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

    def _dispatch(self, layer: int, x_TD: torch.Tensor, grouped: Grouped, chosen: Sequence[int]) -> torch.Tensor:
        """[P, D]: others compute their experts while the leader computes its own."""
        assert self._placement is not None
        start_s = time.perf_counter()
        y_PD = x_TD.new_empty(len(grouped.rows_P), x_TD.shape[1])
        indices_of = {
            shard: [index for index, owner in enumerate(chosen) if owner == shard] for shard in sorted(set(chosen))
        }
        own = indices_of.pop(LEADER, None)
        asked: list[tuple[ShardLink, list[int]]] = []
        lost: list[tuple[ShardLink, str]] = []
        for shard, indices in indices_of.items():
            link = self.fleet.members[shard].link
            try:
                link.send(_part(grouped, indices, x_TD, layer, self._placement.epoch))
                asked.append((link, indices))
            except ShardLost as error:
                lost.append((link, str(error)))
        own_start_s = time.perf_counter()
        if own is not None:
            _put(y_PD, grouped, own, self._own.compute(_part(grouped, own, x_TD, layer, self._placement.epoch)))
        own_s = time.perf_counter() - own_start_s
        # Everybody is heard even when somebody is lost: an answer left behind would meet the next call.
        for link, indices in asked:
            try:
                _put(y_PD, grouped, indices, link.receive())
            except (ShardLost, ShardRefused) as error:
                lost.append((link, str(error)))
        self._dispatch_s += time.perf_counter() - start_s - own_s
        self.num_dispatches += 1
        if lost:
            for link, reason in lost:
                self.fleet.lose(link.shard, link, reason)
            self._num_aborts += 1
            raise StepAborted
        return y_PD


def _part(grouped: Grouped, indices: Sequence[int], x_TD: torch.Tensor, layer: int, epoch: int) -> ExpertCall:
    """The call for some of a layer's used experts, given by their place in `grouped`, with the rows they need."""
    expert_ids = [grouped.expert_ids[index] for index in indices]
    counts = [grouped.counts[index] for index in indices]
    if len(indices) == len(grouped.counts):
        return ExpertCall(epoch, layer, expert_ids, counts, grouped.rows_P, x_TD)
    rows_P = torch.cat([grouped.rows_P[begin:end] for begin, end in _ranges(grouped, indices)])
    if len(x_TD) == 1:
        return ExpertCall(epoch, layer, expert_ids, counts, rows_P, x_TD)
    needed_N, rows_P = torch.unique(rows_P, return_inverse=True)
    return ExpertCall(epoch, layer, expert_ids, counts, rows_P, x_TD[needed_N])


def _put(y_PD: torch.Tensor, grouped: Grouped, indices: Sequence[int], part_PD: torch.Tensor) -> None:
    """Rows of some experts' pairs to where all pairs' rows are."""
    start = 0
    for begin, end in _ranges(grouped, indices):
        y_PD[begin:end] = part_PD[start : start + end - begin]
        start += end - begin


def _ranges(grouped: Grouped, indices: Sequence[int]) -> list[tuple[int, int]]:
    """Where the pairs of these experts begin and end."""
    ends = torch.tensor(grouped.counts).cumsum(0).tolist()
    return [(ends[index] - grouped.counts[index], ends[index]) for index in indices]
