"""The layout of one forward pass over many sequences, shared by engine, model and kernels.

Shapes: T tokens of this step over all sequences, S sequences, B blocks per table row (padded),
R rows whose logits are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Tokens of S sequences laid end to end, and where their keys and values live.

    token_ids_T, positions_T: int64.
    query_starts: int32 [S+1], exclusive prefix sums of the number of new tokens of each sequence.
    context_lens_S: int32, tokens of each sequence in the cache once this step has written its own.
    block_tables_SB: int32, block ids of each sequence, padded with 0; only the first
        ceil(context_len / block_size) entries of a row are meaningful.
    slots_T: int64, block * block_size + offset: where each new token's key and value go.
    logit_rows_R: int64, rows of T whose logits the caller wants, ascending.
    query_starts_list, context_lens_list: the same numbers as Python ints, so kernels that loop over
        sequences need no device synchronisation.
    """

    token_ids_T: torch.Tensor
    positions_T: torch.Tensor
    query_starts: torch.Tensor
    context_lens_S: torch.Tensor
    block_tables_SB: torch.Tensor
    slots_T: torch.Tensor
    logit_rows_R: torch.Tensor
    query_starts_list: list[int]
    context_lens_list: list[int]


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys and values of one layer: each [num_blocks, num_kv_heads, block_size, head_dim].

    Within a block one head's rows are contiguous, so a decode step streams them.
    """

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def block_size(self) -> int:
        return int(self.keys.shape[2])
