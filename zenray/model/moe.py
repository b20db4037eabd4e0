"""Mixture of experts: a router chooses, an `ExpertBackend` computes.

The split is the seam for expert sharding: the decoder knows the protocol, not where experts live.
Shapes: T tokens, D width, E experts, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from zenray.model.weights import FeedForwardWeights
from zenray.ops.backend import Backend


class ExpertBackend(Protocol):
    """Applies each token's chosen experts and sums them by weight."""

    def __call__(
        self, layer: int, x_TD: torch.Tensor, expert_ids_TK: torch.Tensor, expert_weights_TK: torch.Tensor
    ) -> torch.Tensor:
        """[T, D]. A token's sum runs over its experts in ascending id, whatever else is in the batch."""
        ...


def route(
    x_TD: torch.Tensor, router_ED: torch.Tensor, num_experts_per_token: int, normalise: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax over all experts, then the top K: (ids int64 [T, K], weights [T, K]).

    Computed in the router's own dtype (float32): bf16 scores would flip near-ties between experts.
    With `normalise` the K weights of a token sum to 1.
    """
    probabilities = torch.softmax(torch.mm(x_TD.to(router_ED.dtype), router_ED.t()), dim=-1)
    weights_TK, ids_TK = torch.topk(probabilities, num_experts_per_token, dim=-1)
    if normalise:
        weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
    return ids_TK, weights_TK


class LocalExperts:
    """All experts in this process: tokens grouped by expert, one product per used expert."""

    def __init__(self, experts_by_layer: Sequence[Sequence[FeedForwardWeights]], ops: Backend) -> None:
        self._experts_by_layer = experts_by_layer
        self._ops = ops

    def __call__(
        self, layer: int, x_TD: torch.Tensor, expert_ids_TK: torch.Tensor, expert_weights_TK: torch.Tensor
    ) -> torch.Tensor:
        experts, ops = self._experts_by_layer[layer], self._ops
        num_chosen = expert_ids_TK.shape[1]
        # One transfer for the whole layer; afterwards only Python ints decide.
        ids = expert_ids_TK.tolist()
        weights_TK = expert_weights_TK.to(x_TD.dtype)
        out_TD = torch.zeros_like(x_TD)
        if len(ids) == 1:
            for expert_id, column in sorted(zip(ids[0], range(num_chosen), strict=True)):
                expert = experts[expert_id]
                y_TD = ops.linear(ops.silu_mul(ops.linear(x_TD, expert.gate_up)), expert.down)
                out_TD.addcmul_(y_TD, weights_TK[:, column : column + 1])
            return out_TD
        pairs_by_expert: dict[int, list[int]] = {}
        for row, chosen in enumerate(ids):
            for column, expert_id in enumerate(chosen):
                pairs_by_expert.setdefault(expert_id, []).append(row * num_chosen + column)
        flat_weights = weights_TK.reshape(-1, 1)
        for expert_id in sorted(pairs_by_expert):
            expert = experts[expert_id]
            pairs = torch.tensor(pairs_by_expert[expert_id], device=x_TD.device)
            rows = pairs // num_chosen
            y_ND = ops.linear(ops.silu_mul(ops.linear(x_TD[rows], expert.gate_up)), expert.down)
            out_TD.index_add_(0, rows, y_ND * flat_weights[pairs])
        return out_TD
