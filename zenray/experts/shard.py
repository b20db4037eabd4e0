"""What an expert shard computes, whatever carries the calls. It keeps nothing between calls but weights."""

from __future__ import annotations

import os
import platform
import time

import psutil
import torch

from zenray.experts.link import ExpertCall, ShardRefused, ShardReport
from zenray.experts.placement import ExpertId
from zenray.experts.store import ExpertStore
from zenray.ops.backend import Backend


def compute(store: ExpertStore, ops: Backend, call: ExpertCall) -> torch.Tensor:
    """[P, D]: each pair's expert applied to its row, unweighted. KeyError for an expert that is not held."""
    held = store.held
    experts = [held[ExpertId(call.layer, expert)] for expert in call.expert_ids]
    return ops.swiglu_rows(call.x_ND, [(e.gate_up, e.down) for e in experts], call.counts, call.rows_P)


class ExpertShard:
    """A store, the kernels, and an account of what they did. `compute` belongs to one thread."""

    def __init__(self, shard: int, store: ExpertStore, ops: Backend) -> None:
        self.shard, self.store = shard, store
        self._ops = ops
        self._num_calls = self._num_pairs = 0
        self._busy_s = 0.0

    def compute(self, call: ExpertCall) -> torch.Tensor:
        """As the function of this name. Raises ShardRefused for an expert that is not held."""
        started = time.perf_counter()
        try:
            y_PD = compute(self.store, self._ops, call)
        except KeyError as missing:
            raise ShardRefused(f"expert shard {self.shard} does not hold {missing.args[0]}") from None
        self._num_calls += 1
        self._num_pairs += call.num_pairs
        self._busy_s += time.perf_counter() - started
        return y_PD

    def report(self) -> ShardReport:
        """What it holds and did so far."""
        return ShardReport(
            shard=self.shard,
            host=platform.node(),
            pid=os.getpid(),
            num_experts=len(self.store.held),
            weight_bytes=self.store.num_bytes,
            rss_bytes=psutil.Process().memory_info().rss,
            capacity=self.store.capacity,
            calls=self._num_calls,
            pairs=self._num_pairs,
            busy_ms=self._busy_s * 1e3,
        )
