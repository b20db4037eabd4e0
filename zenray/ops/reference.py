"""The backend every other one is checked against: plain torch, any float dtype, any device.

Obvious rather than fast. Packed weights are dequantised on every call, attention gathers the blocks
in use. bfloat16 activations are widened to float32 inside each operation and rounded once at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from zenray.ops.batch import LayerCache, StepBatch
from zenray.ops.packing import unpack, unpack_rows
from zenray.ops.summary import RowSummaries, summarise_rows
from zenray.ops.weights import PackedWeight


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """float32 for narrower floats, the tensor itself otherwise."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


class ReferenceBackend:
    """Implements `zenray.ops.backend.Backend`; activations have the dtype given here."""

    name = "reference"

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def embed(self, token_ids_T: torch.Tensor, table: PackedWeight) -> torch.Tensor:
        """Rows of the embedding table: [T, D]."""
        if table.format == "dense":
            return table.data[token_ids_T].to(self.dtype)
        return unpack_rows(table, token_ids_T).to(self.dtype)

    def linear(
        self,
        x_TD: torch.Tensor,
        weight: PackedWeight,
        out_dtype: torch.dtype | None = None,
        out_TN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T (+ bias): [T, N], of x's dtype unless another is asked for."""
        x = x_TD if out_dtype is None and weight.data.dtype == x_TD.dtype else widened(x_TD)
        matrix = weight.data if weight.format == "dense" else unpack(weight)
        bias = None if weight.bias is None else weight.bias.to(x.dtype)
        result_TN = torch.nn.functional.linear(x, matrix.to(x.dtype), bias).to(out_dtype or x_TD.dtype)
        return result_TN if out_TN is None else out_TN.copy_(result_TN)

    def rms_norm(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        """Root-mean-square norm over the last dimension, accumulated in float32 or wider."""
        x = widened(x_TD)
        inverse = torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)
        return (x * inverse * weight_D.to(x.dtype)).to(x_TD.dtype)

    def add_rms_norm_(
        self, x_TD: torch.Tensor, residual_TD: torch.Tensor, weight_D: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """residual += x in place; returns rms_norm(residual)."""
        residual_TD += x_TD
        return self.rms_norm(residual_TD, weight_D, eps)

    def rope_(
        self, q_THC: torch.Tensor, k_TKC: torch.Tensor, positions_T: torch.Tensor, cos_sin_PC: torch.Tensor
    ) -> None:
        """Rotates q and k in place, halves convention."""
        cos, sin = cos_sin_PC[positions_T][:, None].chunk(2, dim=-1)
        for heads in (q_THC, k_TKC):
            first, second = widened(heads).chunk(2, dim=-1)
            rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
            heads.copy_(rotated)

    def write_kv(self, k_TKC: torch.Tensor, v_TKC: torch.Tensor, cache: LayerCache, slots_T: torch.Tensor) -> None:
        """Stores keys and values of the step's tokens at their slots."""
        blocks, offsets = slots_T // cache.block_size, slots_T % cache.block_size
        cache.keys[blocks, :, offsets] = k_TKC
        cache.values[blocks, :, offsets] = v_TKC

    def attention(self, q_THC: torch.Tensor, cache: LayerCache, batch: StepBatch, scale: float) -> torch.Tensor:
        """Causal attention over each sequence's cached context: [T, H, C]."""
        out_THC = torch.empty_like(q_THC)
        for sequence, context_len in enumerate(batch.context_lens_list):
            start, stop = batch.query_starts_list[sequence], batch.query_starts_list[sequence + 1]
            if start == stop:
                continue
            num_blocks = -(-context_len // cache.block_size)
            blocks = batch.block_tables_SB[sequence, :num_blocks]
            keys, values = (_gathered(pool[blocks], context_len) for pool in (cache.keys, cache.values))
            positions = torch.arange(context_len - (stop - start), context_len, device=q_THC.device)
            mask = torch.arange(context_len, device=q_THC.device) <= positions[:, None]
            attended = torch.nn.functional.scaled_dot_product_attention(
                widened(q_THC[start:stop]).transpose(0, 1)[None],
                widened(keys)[None],
                widened(values)[None],
                attn_mask=mask,
                scale=scale,
                enable_gqa=True,
            )
            out_THC[start:stop] = attended[0].transpose(0, 1)
        return out_THC

    def silu_mul(self, gate_up_T2F: torch.Tensor) -> torch.Tensor:
        """silu(first half) * second half: [T, F]."""
        gate, up = widened(gate_up_T2F).chunk(2, dim=-1)
        return (torch.nn.functional.silu(gate) * up).to(gate_up_T2F.dtype)

    def route(
        self, x_TD: torch.Tensor, router_ED: torch.Tensor, num_chosen: int, normalise: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax over E experts, then each token's K most probable, ids ascending: (ids, weights), both [T, K]."""
        probabilities_TE = torch.softmax(x_TD.to(router_ED.dtype) @ router_ED.t(), dim=-1)
        # A stable sort, because topk leaves open which of two equals it takes.
        ranked_TE = torch.sort(probabilities_TE, dim=-1, descending=True, stable=True).indices
        ids_TK = ranked_TE[:, :num_chosen].sort(dim=-1).values
        weights_TK = probabilities_TE.gather(1, ids_TK)
        if normalise:
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        return ids_TK, weights_TK

    def swiglu_rows(
        self,
        x_ND: torch.Tensor,
        experts: Sequence[tuple[PackedWeight, PackedWeight]],
        counts: Sequence[int],
        rows_P: torch.Tensor,
    ) -> torch.Tensor:
        """SwiGLU feed-forwards, each applied to its own rows of x: [P, D]."""
        parts = [
            self.linear(self.silu_mul(self.linear(x_ND[rows], gate_up)), down)
            for rows, (gate_up, down) in zip(torch.split(rows_P, list(counts)), experts, strict=True)
        ]
        return torch.cat(parts) if parts else x_ND.new_empty(0, x_ND.shape[1])

    def combine(self, y_PD: torch.Tensor, pairs_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        """sum over k, in order, of weights_TK[t, k] * y_PD[pairs_TK[t, k]]: [T, D]."""
        sum_TD = torch.zeros(len(pairs_TK), y_PD.shape[1], dtype=weights_TK.dtype, device=y_PD.device)
        for pairs_T, weights_T in zip(pairs_TK.t(), weights_TK.t(), strict=True):
            sum_TD += weights_T[:, None] * y_PD[pairs_T].to(weights_TK.dtype)
        return sum_TD.to(y_PD.dtype)

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
        """What is kept of each row of logits: a head, the tail's mass and draws from it."""
        return summarise_rows(logits_RV, targets_R, uniforms_R, max_head, head_mass, num_samples, least_probability)


def _gathered(blocks: torch.Tensor, context_len: int) -> torch.Tensor:
    """[n, K, block_size, C] -> [K, context_len, C]."""
    num_blocks, num_kv_heads, block_size, head_dim = blocks.shape
    return blocks.transpose(0, 1).reshape(num_kv_heads, num_blocks * block_size, head_dim)[:, :context_len]
