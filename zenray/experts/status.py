"""What a verifier's experts are doing now, for operators: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zenray.experts.link import ShardReport
from zenray.experts.placement import ExpertId, ExpertPlacement

ShardState = Literal["serving", "joining", "lost"]


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard number. `report` is its last one; None before the first."""

    shard: int
    state: ShardState
    transport: str
    report: ShardReport | None


@dataclass(frozen=True, slots=True)
class ExpertStatus:
    """All shards of one verifier.

    load: each expert's share of the pairs of its layer lately, 0 to 1.
    recoveries: times that every expert had a place again after a loss, in steps or between them; how long the last and
        the longest one took.
    rebalances: times the placement followed the observed load.
    dispatch_ms, step_ms: of all steps so far, the time in calls to shards beyond the leader's own computing, and
        the time in forward passes.
    """

    placement: ExpertPlacement
    shards: tuple[ShardStatus, ...]
    load: Mapping[ExpertId, float]
    recoveries: int
    last_recovery_ms: float
    longest_recovery_ms: float
    rebalances: int
    dispatch_ms: float
    step_ms: float
    unavailable: str | None
