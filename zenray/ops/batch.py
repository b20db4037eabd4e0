"""The layout of one forward pass over many sequences, shared by engine, model and kernels.

Shapes: T tokens of this step over all sequences, S sequences, B blocks per table row (padded),
R rows whose logits are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
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
class Span:
    """New tokens of one sequence: they stand behind `start` others, and `block_ids` hold all of them."""

    token_ids: Sequence[int]
    start: int
    block_ids: Sequence[int]


def lay_out(
    spans: Sequence[Span], logit_rows: Sequence[int], block_size: int, device: torch.device | str = "cpu"
) -> StepBatch:
    """The step that computes these spans, one after another. `logit_rows` index their tokens laid end to end."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    query_starts = [0]
    context_lens: list[int] = []
    for span in spans:
        end = span.start + len(span.token_ids)
        token_ids += span.token_ids
        positions += range(span.start, end)
        slots += [
            span.block_ids[position // block_size] * block_size + position % block_size
            for position in range(span.start, end)
        ]
        query_starts.append(len(token_ids))
        context_lens.append(end)
    width = max(len(span.block_ids) for span in spans)
    tables = [[*span.block_ids, *[0] * (width - len(span.block_ids))] for span in spans]
    return StepBatch(
        token_ids_T=torch.tensor(token_ids, dtype=torch.int64, device=device),
        positions_T=torch.tensor(positions, dtype=torch.int64, device=device),
        query_starts=torch.tensor(query_starts, dtype=torch.int32, device=device),
        context_lens_S=torch.tensor(context_lens, dtype=torch.int32, device=device),
        block_tables_SB=torch.tensor(tables, dtype=torch.int32, device=device),
        slots_T=torch.tensor(slots, dtype=torch.int64, device=device),
        logit_rows_R=torch.tensor(logit_rows, dtype=torch.int64, device=device),
        query_starts_list=query_starts,
        context_lens_list=context_lens,
    )


SERIAL_ELEMENTS = 32_768
"""Up to so many elements torch works on the calling thread. Beyond, it wakes threads of its own, which then spin for
some 8 ms and keep the kernels' threads from a core."""


def select_rows(x_TD: torch.Tensor, rows: Sequence[int] | torch.Tensor) -> torch.Tensor:
    """A copy of `rows` of a matrix: x_TD[rows], on the calling thread."""
    rows_R = torch.as_tensor(rows, dtype=torch.int64, device=x_TD.device)
    out_RD = x_TD.new_empty(len(rows_R), x_TD.shape[1])
    at_once = max(1, SERIAL_ELEMENTS // x_TD.shape[1])
    for out, part in zip(torch.split(out_RD, at_once), torch.split(rows_R, at_once), strict=True):
        torch.index_select(x_TD, 0, part, out=out)
    return out_RD


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
