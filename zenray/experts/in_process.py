"""Expert shards inside the leader's own process: the behaviour of real ones, and their failures on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch

from zenray.errors import ModelFileError
from zenray.experts.link import ExpertCall, ShardLost, ShardRefused, ShardReport
from zenray.experts.placement import ExpertId
from zenray.experts.shard import ExpertShard
from zenray.experts.store import ExpertStore
from zenray.model.weights import WeightProvider
from zenray.ops.backend import Backend

Operation = Literal["start", "send", "receive", "load", "drop", "report"]
Interfere = Callable[[int, Operation, ExpertCall | None], None]
"""Called with (shard, what is about to happen, the call if there is one). A `ShardLost` raised here is what a
killed, stopped or cut off shard looks like to the leader."""


def _no_interference(shard: int, operation: Operation, call: ExpertCall | None) -> None:
    pass


class InProcessLink:
    """A shard's link without a transport. The call is computed when its rows are asked for."""

    transport = "in-process"

    def __init__(self, shard: int, store: ExpertStore, ops: Backend, interfere: Interfere = _no_interference) -> None:
        self.shard = shard
        self._worker = ExpertShard(shard, store, ops)
        self._interfere = interfere
        self._call: ExpertCall | None = None
        self._lost: str | None = None

    def send(self, call: ExpertCall) -> None:
        self._before("send", call)
        self._call = call

    def receive(self) -> torch.Tensor:
        assert self._call is not None, "nothing was sent"
        call = self._call
        self._before("receive", call)
        self._call = None
        return self._worker.compute(call)

    def load(self, experts: Iterable[ExpertId]) -> None:
        self._before("load")
        try:
            self._worker.store.load(experts)
        except ModelFileError as error:
            raise ShardRefused(str(error)) from None

    def drop(self, experts: Iterable[ExpertId]) -> None:
        self._before("drop")
        self._worker.store.drop(experts)

    def report(self) -> ShardReport:
        self._before("report")
        return self._worker.report()

    def close(self) -> None:
        self._lost = self._lost or "the link was closed"

    def kill(self, reason: str = "killed") -> None:
        """From now on the shard is lost, as whoever uses the link next finds out."""
        self._lost = self._lost or reason

    def _before(self, operation: Operation, call: ExpertCall | None = None) -> None:
        if self._lost is None:
            try:
                self._interfere(self.shard, operation, call)
            except ShardLost as error:
                self._lost = self._lost or error.reason
        if self._lost is not None:
            raise ShardLost(self.shard, self._lost)


class InProcessHost:
    """Starts in-process shards of `capacity` experts each. `links` holds the last one of each number."""

    def __init__(
        self,
        weights: WeightProvider,
        ops: Backend,
        *,
        capacity: int | None = None,
        interfere: Interfere = _no_interference,
    ) -> None:
        self.links: dict[int, InProcessLink] = {}
        self._weights, self._ops, self._capacity, self._interfere = weights, ops, capacity, interfere

    def start(self, shard: int) -> InProcessLink:
        if shard in self.links:
            self.links[shard].close()
        self._interfere(shard, "start", None)
        store = ExpertStore(self._weights, capacity=self._capacity)
        self.links[shard] = InProcessLink(shard, store, self._ops, self._interfere)
        return self.links[shard]

    def close(self) -> None:
        for link in self.links.values():
            link.close()
