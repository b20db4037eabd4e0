"""The experts one process holds, loaded and forgotten one at a time from a model's weights."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from zenray.experts.placement import ExpertId
from zenray.model.weights import FeedForwardWeights, WeightProvider, read_feed_forward


class ExpertStore:
    """What this process computes with. Reading (`held`) takes no lock: every change replaces the mapping."""

    def __init__(self, weights: WeightProvider) -> None:
        self._weights = weights
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

        Raises ModelFileError for bytes that differ.
        """
        with self._lock:
            new = {at: self._read(at) for at in experts if at not in self._held}
            self._held = {**self._held, **new}

    def drop(self, experts: Iterable[ExpertId]) -> None:
        """Forgets these; unknown ones are ignored."""
        gone = frozenset(experts)
        with self._lock:
            self._held = {at: weights for at, weights in self._held.items() if at not in gone}

    def _read(self, at: ExpertId) -> FeedForwardWeights:
        return read_feed_forward(self._weights, f"layers.{at.layer}.experts.{at.expert}.")
