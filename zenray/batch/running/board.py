"""What a job's workers have done so far, told to one small actor that the driver reads.

It is the job's heartbeat as well: the driver's end takes the board with it, and workers that miss it stop their work.
Nothing here enters a result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows that each stage has done in this run, and tokens so far, those of lost attempts included."""

    rows: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0


class Board:
    """The actor. Workers report what they have as a whole, so that a report may be lost or repeated."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[int, int]] = {}
        self._tokens: dict[str, int] = {}
        self._begun: Counter[tuple[str, int]] = Counter()

    def begin(self, stage: str, shard: int) -> int:
        """A worker takes a shard. How often that has happened, this time included: Ray gives it to another worker
        whenever one dies."""
        self._begun[stage, shard] += 1
        return self._begun[stage, shard]

    def report(self, worker_id: str, stage: str, rows: Mapping[int, int], tokens: int) -> None:
        """`rows` of the shards that `worker_id` has under way or has finished since its last report."""
        self._rows.setdefault(stage, {}).update(rows)
        self._tokens[worker_id] = tokens

    def read(self) -> Counts:
        return Counts({stage: sum(shards.values()) for stage, shards in self._rows.items()}, sum(self._tokens.values()))


def start_board() -> Any:
    """A board of this driver, which ends with it."""
    return ray.remote(Board).options(num_cpus=0, max_restarts=0).remote()
