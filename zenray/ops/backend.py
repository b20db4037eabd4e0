"""What the model asks of a kernel backend. One protocol, several implementations, chosen once."""

from __future__ import annotations

from typing import Protocol

import torch

from zenray.ops.batch import LayerCache, StepBatch
from zenray.ops.weights import PackedWeight


class Backend(Protocol):
    """Kernels over T tokens. D model width, H query heads, K kv heads, C head width, F ffn width.

    Every call may reuse its inputs' storage only where its name ends in an underscore.
    """

    name: str

    def embed(self, token_ids_T: torch.Tensor, table: PackedWeight) -> torch.Tensor:
        """Rows of the embedding table: [T, D]."""
        ...

    def linear(self, x_TD: torch.Tensor, weight: PackedWeight, out_dtype: torch.dtype | None = None) -> torch.Tensor:
        """x @ weight.T (+ bias): [T, N], of x's dtype unless `out_dtype` is given (float32 for logits)."""
        ...

    def rms_norm(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        """Root-mean-square norm over the last dimension, accumulated in float32 or wider."""
        ...

    def add_rms_norm_(
        self, x_TD: torch.Tensor, residual_TD: torch.Tensor, weight_D: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """residual += x in place; returns rms_norm(residual)."""
        ...

    def rope_(
        self, q_THC: torch.Tensor, k_TKC: torch.Tensor, positions_T: torch.Tensor, cos_sin_PC: torch.Tensor
    ) -> None:
        """Rotates q and k in place, halves convention (rotate_half). cos_sin_PC row p is
        [cos(p*f_0..), sin(p*f_0..)] with C/2 entries each, float32 (or the model's wider type)."""
        ...

    def write_kv(self, k_TKC: torch.Tensor, v_TKC: torch.Tensor, cache: LayerCache, slots_T: torch.Tensor) -> None:
        """Stores keys and values of the step's tokens at their slots."""
        ...

    def attention(self, q_THC: torch.Tensor, cache: LayerCache, batch: StepBatch, scale: float) -> torch.Tensor:
        """Causal attention of the step's tokens over their sequences' cached context: [T, H, C].

        Cost is proportional to the context in use, not to the table's capacity.
        """
        ...

    def silu_mul(self, gate_up_T2F: torch.Tensor) -> torch.Tensor:
        """silu(first half) * second half: [T, F]."""
        ...
