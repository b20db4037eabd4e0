"""What the leader knows of an expert shard: calls out, rows back, and that it can be lost.

Shapes: T tokens of the step, N rows of them that go to the shard, P pairs of a token and one of its experts,
D model width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from zenray.experts.placement import ExpertId

if TYPE_CHECKING:  # Who reads what shards report of themselves need not load torch.
    import torch


class ShardLost(Exception):
    """The shard died, was cut off or stayed silent too long. Its link is of no more use."""

    def __init__(self, shard: int, reason: str) -> None:
        super().__init__(f"expert shard {shard}: {reason}")
        self.shard, self.reason = shard, reason


class ShardRefused(Exception):
    """The shard answered that it cannot: weights that differ, no memory, an expert it does not hold."""


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """What one shard is to compute in one layer of one step.

    expert_ids ascend; counts[i] pairs belong to expert_ids[i]. Pair p takes row rows_P[p] (int64) of x_ND; pairs
    lie in the order of their experts.
    """

    epoch: int
    layer: int
    expert_ids: Sequence[int]
    counts: Sequence[int]
    rows_P: torch.Tensor
    x_ND: torch.Tensor

    @property
    def num_pairs(self) -> int:
        return len(self.rows_P)


@dataclass(frozen=True, slots=True)
class ShardReport:
    """A shard's own view, for people and placement. Bytes are of expert weights held in memory.

    capacity: how many experts (of one layer) its memory takes; None is no bound.
    """

    shard: int
    host: str
    pid: int
    num_experts: int
    weight_bytes: int
    rss_bytes: int
    capacity: int | None
    calls: int
    pairs: int
    busy_ms: float


class ShardLink(Protocol):
    """The leader's side of one shard. `send` and `receive` belong to the engine's thread, all else to any one
    other thread at a time. Every method ends within its deadline, with `ShardLost` if need be; a lost link
    stays lost.
    """

    shard: int

    @property
    def transport(self) -> str:
        """unix, tcp, gloo, nccl or in-process."""
        ...

    def send(self, call: ExpertCall) -> None:
        """Begins a call. One is under way at most."""
        ...

    def receive(self) -> torch.Tensor:
        """[P, D]: row p is pair p's expert applied to its row, unweighted, in x's type, of the call under way.

        Waits for as long as the shard shows signs of life (at most `call_timeout_s`), not longer than
        `silence_timeout_ms` without one.
        """
        ...

    def load(self, experts: Iterable[ExpertId]) -> None:
        """Returns once the shard has these in memory too and has checked their bytes. Raises `ShardRefused`."""
        ...

    def drop(self, experts: Iterable[ExpertId]) -> None:
        """The shard may forget these; none of them is asked for any more."""
        ...

    def report(self) -> ShardReport:
        """Also proof of life."""
        ...

    def close(self) -> None:
        """Hangs up; the shard ends by itself. May be called twice and from any thread: a waiting call is lost."""
        ...


class ShardHost(Protocol):
    """Who starts shard processes: Ray actors in serving, child processes without Ray, fakes in tests."""

    def start(self, shard: int) -> ShardLink:
        """A new shard of this number, holding no expert, its weights' digest compared with the leader's.

        Whatever went by this number before is ended first. Blocks. Raises `ShardLost` when it does not come up and
        `ShardRefused` when its weights differ.
        """
        ...

    def close(self) -> None:
        """Ends everything it started."""
        ...
