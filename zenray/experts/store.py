"""The experts one process holds, loaded and forgotten one at a time from a model's weights."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from zenray.experts.link import ShardRefused
from zenray.experts.placement import ExpertId
from zenray.model.config import ModelConfig
from zenray.model.weights import FeedForwardWeights, WeightProvider, moved, read_feed_forward

_MAX_READERS = 4
_CPU = torch.device("cpu")


class ExpertStore:
    """What this process computes with. Reading (`held`) takes no lock: every change replaces the mapping.

    capacity: the most experts it takes; None is no bound. On the CPU experts of a converted file stay views of its
    mapping, so that they cost memory once on a machine and only where they are held.
    """

    def __init__(self, weights: WeightProvider, *, capacity: int | None = None, device: torch.device = _CPU) -> None:
        self.capacity = capacity
        self._weights, self._device = weights, device
        self._lock = threading.Lock()
        self._held: Mapping[ExpertId, FeedForwardWeights] = {}

    @property
    def held(self) -> Mapping[ExpertId, FeedForwardWeights]:
        return self._held

    @property
    def num_bytes(self) -> int:
        return sum(weights.num_bytes for weights in self._held.values())

    def load(self, experts: Iterable[ExpertId]) -> None:
        """Holds these too. Their bytes are checked against the digests written at conversion, where there are any.

        All or none. Raises ShardRefused beyond the capacity, ModelFileError for bytes that differ.
        """
        with self._lock:
            new = sorted(set(experts) - self._held.keys())
            if self.capacity is not None and len(self._held) + len(new) > self.capacity:
                raise ShardRefused(f"no memory for {len(new)} experts beside {len(self._held)}, of {self.capacity}")
            self._held = {**self._held, **dict(zip(new, self._read(new), strict=True))}

    def drop(self, experts: Iterable[ExpertId]) -> None:
        """Forgets these and gives their memory back; unknown ones are ignored."""
        with self._lock:
            gone = self._held.keys() & set(experts)
            self._held = {at: weights for at, weights in self._held.items() if at not in gone}
            for name in (name for at in gone for name in _names(at)):
                self._weights.release(name)

    def _read(self, experts: list[ExpertId]) -> list[FeedForwardWeights]:
        if len(experts) < 2:
            return [self._read_one(at) for at in experts]
        with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), _MAX_READERS)) as pool:
            return list(pool.map(self._read_one, experts))

    def _read_one(self, at: ExpertId) -> FeedForwardWeights:
        for name in _names(at):
            self._weights.check(name)
        weights = read_feed_forward(self._weights, _prefix(at))
        return weights if self._device.type == "cpu" else moved(weights, self._device)


def capacity_of(memory_mib: float, config: ModelConfig, weights: WeightProvider) -> int | None:
    """How many experts fit into so much memory, each taken as large as the largest; None for no bound (0 MiB)."""
    if not memory_mib:
        return None
    first = (ExpertId(layer, 0) for layer in config.moe_layers)
    largest = max(read_feed_forward(weights, _prefix(at)).num_bytes for at in first)
    return int(memory_mib * 2**20 // largest)


def _prefix(at: ExpertId) -> str:
    return f"layers.{at.layer}.experts.{at.expert}."


def _names(at: ExpertId) -> tuple[str, str]:
    return _prefix(at) + "gate_up", _prefix(at) + "down"
