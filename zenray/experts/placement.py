"""Which shard holds which expert: an immutable map with an epoch.

Shards are numbered; `LEADER` is the process that holds the KV cache, attention and the routers. Layers are
the model's MoE layers by their number in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

LEADER = 0


class ExpertId(NamedTuple):
    """One expert of one layer."""

    layer: int
    expert: int


@dataclass(frozen=True, slots=True)
class ExpertPlacement:
    """copies[layer][expert]: the shards that hold it, ascending, none twice; empty where it was lost.

    A step runs under one placement from its first layer to its last; any change makes a new epoch.
    """

    epoch: int
    copies: Mapping[int, tuple[tuple[int, ...], ...]]

    def __post_init__(self) -> None:
        for row in self.copies.values():
            for holders in row:
                assert list(holders) == sorted(set(holders)), holders

    @property
    def shards(self) -> frozenset[int]:
        """Those that hold anything."""
        return frozenset(shard for row in self.copies.values() for holders in row for shard in holders)

    @property
    def missing(self) -> tuple[ExpertId, ...]:
        """Experts nobody holds, in order."""
        return tuple(
            ExpertId(layer, expert)
            for layer, row in self.copies.items()
            for expert, holders in enumerate(row)
            if not holders
        )

    def held_by(self, shard: int) -> frozenset[ExpertId]:
        """The experts a shard holds."""
        return frozenset(
            ExpertId(layer, expert)
            for layer, row in self.copies.items()
            for expert, holders in enumerate(row)
            if shard in holders
        )

    def without(self, lost: Iterable[int]) -> ExpertPlacement:
        """The next epoch, in which these shards hold nothing."""
        gone = frozenset(lost)
        return self._next(lambda at, holders: holders - gone)

    def common(self, other: ExpertPlacement) -> ExpertPlacement:
        """The next epoch, in which everybody holds what both name."""
        return self._next(lambda at, holders: holders & set(other.copies[at.layer][at.expert]))

    def adding(self, experts: Mapping[int, Iterable[ExpertId]]) -> ExpertPlacement:
        """The next epoch, in which shards (the keys) hold these experts too."""
        extra: dict[ExpertId, set[int]] = {}
        for shard, ids in experts.items():
            for expert_id in ids:
                extra.setdefault(expert_id, set()).add(shard)
        return self._next(lambda at, holders: holders | extra.get(at, set()))

    def _next(self, holders_of: Callable[[ExpertId, set[int]], set[int]]) -> ExpertPlacement:
        """The next epoch, in which each expert has the holders that the function makes of its present ones."""
        return ExpertPlacement(
            self.epoch + 1,
            {
                layer: tuple(
                    tuple(sorted(holders_of(ExpertId(layer, expert), set(holders))))
                    for expert, holders in enumerate(row)
                )
                for layer, row in self.copies.items()
            },
        )
