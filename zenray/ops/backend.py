"""What the model asks of a kernel backend. One protocol, several implementations, chosen once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from zenray.ops.batch import LayerCache, StepBatch
from zenray.ops.summary import RowSummaries
from zenray.ops.weights import PackedWeight


class Backend(Protocol):
    """Kernels over T tokens. D model width, H query heads, K kv heads, C head width, F ffn width.

    Every call may reuse its inputs' storage only where its name ends in an underscore.
    """

    name: str

    def embed(self, token_ids_T: torch.Tensor, table: PackedWeight) -> torch.Tensor:
        """Rows of the embedding table: [T, D]."""
        ...

    def linear(
        self,
        x_TD: torch.Tensor,
        weight: PackedWeight,
        out_dtype: torch.dtype | None = None,
        out_TN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T (+ bias): [T, N], of x's dtype unless `out_dtype` is given (float32 for logits).

        Written to `out_TN`, contiguous and of that type, where it is given: the pages of a fresh one cost time.
        """
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

    def route(
        self, x_TD: torch.Tensor, router_ED: torch.Tensor, num_chosen: int, normalise: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax over E experts, then each token's K most probable: (ids int64, weights), both [T, K].

        Ids ascend within a token. Scores and weights have the router's own type (float32 or wider): bfloat16
        scores would flip near-ties. Equal probabilities prefer the lower id. With `normalise` a token's weights
        sum to 1. A token's result does not depend on the other tokens.
        """
        ...

    def swiglu_rows(
        self,
        x_ND: torch.Tensor,
        experts: Sequence[tuple[PackedWeight, PackedWeight]],
        counts: Sequence[int],
        rows_P: torch.Tensor,
    ) -> torch.Tensor:
        """[P, D]: SwiGLU feed-forwards, each applied to its own rows of x.

        experts are (gate over up [2F, D], down [D, F]); the first counts[0] of rows_P (int64) belong to experts[0],
        and so on. A row's result does not depend on the other rows where `linear`'s does not.
        """
        ...

    def combine(self, y_PD: torch.Tensor, pairs_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        """[T, D]: sum over k, in order, of weights_TK[t, k] * y_PD[pairs_TK[t, k]]; accumulated in the weights' type
        and rounded once to y's."""
        ...

    def summarise(
        self,
        logits_RV: torch.Tensor,
        targets_R: torch.Tensor,
        uniforms_R: torch.Tensor,
        max_head: int,
        head_mass: float,
        num_samples: int,
        least_probability: float = 0.0,
    ) -> RowSummaries:
        """What is kept of each row of logits (float32 or wider), as `zenray.ops.summary` says.

        targets_R int64, in [0, V). The head is the smallest set of most probable tokens whose mass reaches
        `head_mass`, at most `max_head` (at least 1) of them, all of these where `head_mass` is 1, and none but the
        first that is less probable than `least_probability`. The rest is the tail. Draw i is the tail's token at
        quantile (i + u) / num_samples over ascending ids, u of uniforms_R (float64, [0, 1)): systematic sampling
        (Madow 1949). A row's summary does not depend on the other rows.
        """
        ...
