"""Mixture of experts: a router chooses, an `ExpertBackend` computes.

The split is the seam for expert sharding: the decoder knows the protocol, not where experts live.
Shapes: T tokens, D width, E experts, K experts per token.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from zenray.model.weights import FeedForwardWeights
from zenray.ops.backend import Backend


class StepAborted(Exception):
    """Experts were lost in mid-step. Nothing of the step was committed: run it again."""


class StepPostponed(Exception):
    """Some expert has no place at this moment, which may change: ask again soon. Nothing was computed."""


class ExpertBackend(Protocol):
    """Applies each token's chosen experts and sums them by weight, wherever the experts are."""

    @property
    def name(self) -> str:
        """Where the experts are, in so far as the time of a step depends on it."""
        ...

    @property
    def unavailable(self) -> str | None:
        """Why nobody can compute some expert now; None while all can be. Read from any thread."""
        ...

    @property
    def num_aborts(self) -> int:
        """Passes that were run again, since start. Who times a pass learns that it tells nothing of its cost."""
        ...

    def step(self) -> AbstractContextManager[None]:
        """Around all layers of one forward pass: who computes what does not change inside.

        Entering first repairs what was lost. Raises `StepPostponed` while some expert has no place, and
        `Unavailable` once that has lasted longer than allowed.
        """
        ...

    def __call__(
        self, layer: int, x_TD: torch.Tensor, expert_ids_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        """[T, D]. A token's ids ascend, and its sum runs in that order whatever else is in the batch.

        Raises `StepAborted`.
        """
        ...

    def close(self) -> None:
        """Ends what the backend started. No further step is run."""
        ...


@dataclass(frozen=True, slots=True)
class Grouped:
    """The pairs of a token and one of its experts, put in the order of their experts.

    expert_ids ascend; counts[i] pairs belong to expert_ids[i]. Pair p belongs to token rows_P[p]; pairs_TK tells
    where a token's pairs went. P = T * K.
    """

    expert_ids: list[int]
    counts: list[int]
    rows_P: torch.Tensor
    pairs_TK: torch.Tensor


def group_by_expert(expert_ids_TK: torch.Tensor) -> Grouped:
    """Groups a step's pairs by expert; each token's ids ascend."""
    num_tokens, num_chosen = expert_ids_TK.shape
    if num_tokens == 1:
        return Grouped(expert_ids_TK.tolist()[0], [1] * num_chosen, *_pairs_of_one(num_chosen, expert_ids_TK.device))
    flat_P = expert_ids_TK.reshape(-1)
    order_P = flat_P.argsort(stable=True)
    counts = torch.bincount(flat_P).tolist()
    return Grouped(
        expert_ids=[expert_id for expert_id, count in enumerate(counts) if count],
        counts=[count for count in counts if count],
        rows_P=order_P // num_chosen,
        pairs_TK=order_P.argsort().reshape(num_tokens, num_chosen),
    )


@functools.cache
def _pairs_of_one(num_chosen: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """rows_P and pairs_TK of a single token, which are always the same."""
    return torch.zeros(num_chosen, dtype=torch.int64, device=device), torch.arange(num_chosen, device=device)[None]


class LocalExperts:
    """All experts in this process: tokens grouped by expert, each expert's weights read once."""

    name = "local"
    unavailable = None
    num_aborts = 0

    def __init__(self, experts_by_layer: Sequence[Sequence[FeedForwardWeights]], ops: Backend) -> None:
        self._experts_by_layer = [[(expert.gate_up, expert.down) for expert in experts] for experts in experts_by_layer]
        self._ops = ops

    def step(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __call__(
        self, layer: int, x_TD: torch.Tensor, expert_ids_TK: torch.Tensor, weights_TK: torch.Tensor
    ) -> torch.Tensor:
        grouped, experts = group_by_expert(expert_ids_TK), self._experts_by_layer[layer]
        used = [experts[expert_id] for expert_id in grouped.expert_ids]
        y_PD = self._ops.swiglu_rows(x_TD, used, grouped.counts, grouped.rows_P)
        return self._ops.combine(y_PD, grouped.pairs_TK, weights_TK)

    def close(self) -> None:
        pass
