"""The attention half of a decoder layer: project, normalise, rotate, store, attend."""

from __future__ import annotations

import torch

from zenray.model.config import ModelConfig
from zenray.model.weights import LayerWeights
from zenray.ops.backend import Backend
from zenray.ops.batch import LayerCache, StepBatch


class Attention:
    """Grouped-query attention over a paged cache. H query heads, K kv heads, C head width."""

    def __init__(self, config: ModelConfig, ops: Backend) -> None:
        self._ops = ops
        self._sizes = (config.q_size, config.kv_size, config.kv_size)
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self._qk_norm, self._eps = config.qk_norm, config.rms_norm_eps
        self._scale = config.head_dim**-0.5

    def __call__(
        self,
        x_TD: torch.Tensor,
        weights: LayerWeights,
        cos_sin_PC: torch.Tensor,
        cache: LayerCache,
        batch: StepBatch,
        *,
        store_only: bool = False,
    ) -> torch.Tensor | None:
        """Heads' outputs [T, H * C], before the output projection.

        With `store_only` keys and values are written and nothing is attended: None.
        """
        ops, width = self._ops, self._head_dim
        q, k, v = torch.split_with_sizes(ops.linear(x_TD, weights.qkv), self._sizes, dim=-1)
        if weights.q_norm is not None and weights.k_norm is not None:
            # One norm per head, or one over the whole projection.
            norm_width = (width, width) if self._qk_norm == "head" else (self._sizes[0], self._sizes[1])
            q = ops.rms_norm(q.reshape(-1, norm_width[0]), weights.q_norm, self._eps)
            k = ops.rms_norm(k.reshape(-1, norm_width[1]), weights.k_norm, self._eps)
        q_THC = q.view(-1, self._num_heads, width)
        k_TKC = k.view(-1, self._num_kv_heads, width)
        v_TKC = v.view(-1, self._num_kv_heads, width)
        ops.rope_(q_THC, k_TKC, batch.positions_T, cos_sin_PC)
        ops.write_kv(k_TKC, v_TKC, cache, batch.slots_T)
        if store_only:
            return None
        return ops.attention(q_THC, cache, batch, self._scale).view(-1, self._sizes[0])
