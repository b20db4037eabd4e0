"""The CPU backends for bfloat16 activations: compiled kernels, and torch where they cannot be had."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import torch

from zenray.ops.batch import LayerCache, StepBatch
from zenray.ops.native import Kernels, kernels, matrix
from zenray.ops.packing import unpack
from zenray.ops.reference import ReferenceBackend
from zenray.ops.summary import RowSummaries
from zenray.ops.weights import PackedWeight

DEQUANTISED_ROWS = 2048
"""Rows the torch fallback dequantises at a time."""


class TorchCpuBackend(ReferenceBackend):
    """Where there is no compiler or no AVX-512: torch's operations, packed weights dequantised in slices."""

    name = "cpu-torch"

    def linear(
        self,
        x_TD: torch.Tensor,
        weight: PackedWeight,
        out_dtype: torch.dtype | None = None,
        out_TN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T (+ bias): [T, N]."""
        if weight.format == "dense":
            result_TN = torch.nn.functional.linear(x_TD, weight.data, weight.bias).to(out_dtype or x_TD.dtype)
            return result_TN if out_TN is None else out_TN.copy_(result_TN)
        if out_TN is None:
            out_TN = torch.empty(x_TD.shape[0], weight.shape[0], dtype=out_dtype or x_TD.dtype)
        for start in range(0, weight.shape[0], DEQUANTISED_ROWS):
            rows = weight.rows(start, min(start + DEQUANTISED_ROWS, weight.shape[0]))
            matrix = unpack(rows).to(x_TD.dtype)
            bias = None if rows.bias is None else rows.bias.to(x_TD.dtype)
            out_TN[:, start : start + rows.shape[0]] = torch.nn.functional.linear(x_TD, matrix, bias)
        return out_TN


class CpuBackend(TorchCpuBackend):
    """Compiled kernels. Activations, keys and values are bfloat16 and contiguous within a token."""

    name = "cpu"

    def __init__(self, library: Kernels | None = None) -> None:
        super().__init__(torch.bfloat16)
        self._kernels = library or kernels()

    def embed(self, token_ids_T: torch.Tensor, table: PackedWeight) -> torch.Tensor:
        """Rows of the embedding table: [T, D]."""
        if table.format == "dense":
            return super().embed(token_ids_T, table)
        assert table.scales is not None
        num_tokens, num_columns = token_ids_T.shape[0], table.shape[1]
        out_TD = torch.empty(num_tokens, num_columns, dtype=torch.bfloat16)
        num_strangers = self._kernels.embed(
            out_TD.data_ptr(),
            token_ids_T.contiguous().data_ptr(),
            num_tokens,
            num_columns,
            table.shape[0],
            table.data.data_ptr(),
            table.scales.data_ptr(),
            None if table.supers is None else table.supers.data_ptr(),
            torch.get_num_threads(),
        )
        if num_strangers:
            raise IndexError(f"{num_strangers} token ids are no rows of a table of {table.shape[0]}")
        return out_TD

    def linear(
        self,
        x_TD: torch.Tensor,
        weight: PackedWeight,
        out_dtype: torch.dtype | None = None,
        out_TN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T (+ bias): [T, N]."""
        num_tokens, num_columns = x_TD.shape
        assert x_TD.dtype is torch.bfloat16, x_TD.dtype
        assert num_columns == weight.shape[1], (x_TD.shape, weight.shape)
        wide = out_dtype is torch.float32
        x_TD = x_TD.contiguous()
        dtype = torch.float32 if wide else torch.bfloat16
        if out_TN is None:
            out_TN = torch.empty(num_tokens, weight.shape[0], dtype=dtype)
        assert out_TN.shape == (num_tokens, weight.shape[0]) and out_TN.dtype is dtype and out_TN.is_contiguous()
        self._kernels.linear(
            out_TN.data_ptr(), wide, x_TD.data_ptr(), num_tokens, matrix(weight), torch.get_num_threads()
        )
        return out_TN

    def rms_norm(self, x_TD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        """Root-mean-square norm over the last dimension, accumulated in float32."""
        return self._norm(x_TD.contiguous(), None, weight_D, eps)

    def add_rms_norm_(
        self, x_TD: torch.Tensor, residual_TD: torch.Tensor, weight_D: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """residual += x in place; returns rms_norm(residual)."""
        assert residual_TD.is_contiguous()
        return self._norm(x_TD.contiguous(), residual_TD, weight_D, eps)

    def _norm(
        self, x_TD: torch.Tensor, residual_TD: torch.Tensor | None, weight_D: torch.Tensor, eps: float
    ) -> torch.Tensor:
        out_TD = torch.empty_like(x_TD)
        width = x_TD.shape[-1]
        self._kernels.rms_norm(
            out_TD.data_ptr(),
            x_TD.data_ptr(),
            None if residual_TD is None else residual_TD.data_ptr(),
            weight_D.data_ptr(),
            weight_D.dtype is torch.float32,
            x_TD.numel() // width,
            width,
            eps,
            torch.get_num_threads(),
        )
        return out_TD

    def rope_(
        self, q_THC: torch.Tensor, k_TKC: torch.Tensor, positions_T: torch.Tensor, cos_sin_PC: torch.Tensor
    ) -> None:
        """Rotates q and k in place, halves convention."""
        num_tokens, num_heads, head_dim = q_THC.shape
        self._kernels.rope(
            q_THC.data_ptr(),
            k_TKC.data_ptr(),
            positions_T.data_ptr(),
            cos_sin_PC.data_ptr(),
            num_tokens,
            num_heads,
            k_TKC.shape[1],
            head_dim,
            _token_stride(q_THC),
            _token_stride(k_TKC),
            torch.get_num_threads(),
        )

    def write_kv(self, k_TKC: torch.Tensor, v_TKC: torch.Tensor, cache: LayerCache, slots_T: torch.Tensor) -> None:
        """Stores keys and values of the step's tokens at their slots."""
        num_tokens, num_kv_heads, head_dim = k_TKC.shape
        self._kernels.write_kv(
            k_TKC.data_ptr(),
            v_TKC.data_ptr(),
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            slots_T.data_ptr(),
            num_tokens,
            num_kv_heads,
            head_dim,
            cache.block_size,
            _token_stride(k_TKC),
            _token_stride(v_TKC),
            torch.get_num_threads(),
        )

    def attention(self, q_THC: torch.Tensor, cache: LayerCache, batch: StepBatch, scale: float) -> torch.Tensor:
        """Causal attention over each sequence's cached context: [T, H, C]."""
        num_tokens, num_heads, head_dim = q_THC.shape
        if head_dim % 32:
            return super().attention(q_THC, cache, batch, scale)
        out_THC = torch.empty(num_tokens, num_heads, head_dim, dtype=torch.bfloat16)
        keys, tables = cache.keys, batch.block_tables_SB
        self._kernels.attention(
            out_THC.data_ptr(),
            q_THC.data_ptr(),
            keys.data_ptr(),
            cache.values.data_ptr(),
            tables.data_ptr(),
            batch.query_starts.data_ptr(),
            batch.context_lens_S.data_ptr(),
            tables.shape[0],
            num_heads,
            keys.shape[1],
            head_dim,
            keys.shape[2],
            _token_stride(q_THC),
            tables.stride(0),
            scale,
            torch.get_num_threads(),
        )
        return out_THC

    def silu_mul(self, gate_up_T2F: torch.Tensor) -> torch.Tensor:
        """silu(first half) * second half: [T, F]."""
        gate_up_T2F = gate_up_T2F.contiguous()
        num_tokens, width = gate_up_T2F.shape[0], gate_up_T2F.shape[1] // 2
        out_TF = torch.empty(num_tokens, width, dtype=torch.bfloat16)
        self._kernels.silu_mul(out_TF.data_ptr(), gate_up_T2F.data_ptr(), num_tokens, width, torch.get_num_threads())
        return out_TF

    def route(
        self, x_TD: torch.Tensor, router_ED: torch.Tensor, num_chosen: int, normalise: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax over E experts, then each token's K most probable, ids ascending: (ids, weights), both [T, K]."""
        (num_tokens, width), num_experts = x_TD.shape, router_ED.shape[0]
        assert router_ED.dtype is torch.float32, router_ED.dtype
        assert 1 <= num_chosen <= num_experts, (num_chosen, num_experts)
        x_TD, router_ED = x_TD.contiguous(), router_ED.contiguous()
        ids_TK = torch.empty(num_tokens, num_chosen, dtype=torch.int64)
        weights_TK = torch.empty(num_tokens, num_chosen)
        self._kernels.route(
            ids_TK.data_ptr(),
            weights_TK.data_ptr(),
            x_TD.data_ptr(),
            router_ED.data_ptr(),
            num_tokens,
            width,
            num_experts,
            num_chosen,
            normalise,
            torch.get_num_threads(),
        )
        return ids_TK, weights_TK

    def swiglu_rows(
        self,
        x_ND: torch.Tensor,
        experts: Sequence[tuple[PackedWeight, PackedWeight]],
        counts: Sequence[int],
        rows_P: torch.Tensor,
    ) -> torch.Tensor:
        """SwiGLU feed-forwards, each applied to its own rows of x: [P, D]."""
        assert x_ND.dtype is torch.bfloat16, x_ND.dtype
        assert len(counts) == len(experts), (len(counts), len(experts))
        assert sum(counts) == rows_P.shape[0], (sum(counts), rows_P.shape)
        x_ND, rows_P = x_ND.contiguous(), rows_P.contiguous()
        out_PD = torch.empty(rows_P.shape[0], x_ND.shape[1], dtype=torch.bfloat16)
        self._kernels.swiglu_rows(
            out_PD.data_ptr(),
            x_ND.data_ptr(),
            b"".join(matrix(weight) for expert in experts for weight in expert),
            struct.pack(f"{len(counts)}q", *counts),
            len(counts),
            rows_P.data_ptr(),
            torch.get_num_threads(),
        )
        return out_PD

    def combine(self, y_PD: torch.Tensor, pairs_TK: torch.Tensor, weights_TK: torch.Tensor) -> torch.Tensor:
        """sum over k, in order, of weights_TK[t, k] * y_PD[pairs_TK[t, k]]: [T, D]."""
        (num_tokens, num_chosen), width = pairs_TK.shape, y_PD.shape[1]
        assert weights_TK.dtype is torch.float32, weights_TK.dtype
        y_PD, pairs_TK, weights_TK = y_PD.contiguous(), pairs_TK.contiguous(), weights_TK.contiguous()
        out_TD = torch.empty(num_tokens, width, dtype=torch.bfloat16)
        self._kernels.combine(
            out_TD.data_ptr(),
            y_PD.data_ptr(),
            pairs_TK.data_ptr(),
            weights_TK.data_ptr(),
            num_tokens,
            num_chosen,
            width,
            torch.get_num_threads(),
        )
        return out_TD

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
        num_rows, num_columns = logits_RV.shape
        assert logits_RV.dtype is torch.float32 and logits_RV.is_contiguous(), (logits_RV.dtype, logits_RV.stride())
        assert targets_R.dtype is torch.int64 and uniforms_R.dtype is torch.float64
        assert targets_R.shape == uniforms_R.shape == (num_rows,), (targets_R.shape, uniforms_R.shape)
        width = min(max_head, num_columns)
        result = RowSummaries(
            gold_logprobs_R=torch.empty(num_rows),
            entropies_R=torch.empty(num_rows),
            head_counts_R=torch.empty(num_rows, dtype=torch.int32),
            head_ids_RK=torch.empty(num_rows, width, dtype=torch.int32),
            head_logprobs_RK=torch.empty(num_rows, width),
            tail_masses_R=torch.empty(num_rows),
            tail_ids_RS=torch.empty(num_rows, num_samples, dtype=torch.int32),
        )
        self._kernels.summarise(
            result.gold_logprobs_R.data_ptr(),
            result.entropies_R.data_ptr(),
            result.head_counts_R.data_ptr(),
            result.head_ids_RK.data_ptr(),
            result.head_logprobs_RK.data_ptr(),
            result.tail_masses_R.data_ptr(),
            result.tail_ids_RS.data_ptr(),
            logits_RV.data_ptr(),
            targets_R.contiguous().data_ptr(),
            uniforms_R.contiguous().data_ptr(),
            num_rows,
            num_columns,
            width,
            head_mass,
            num_samples,
            least_probability,
            torch.get_num_threads(),
        )
        return result


def _token_stride(heads_THC: torch.Tensor) -> int:
    token_stride, head_stride, stride = heads_THC.stride()
    assert stride == 1, heads_THC.stride()
    assert head_stride == heads_THC.shape[2], heads_THC.stride()
    return token_stride
