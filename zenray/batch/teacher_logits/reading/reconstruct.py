"""Records as distributions again: dense and near the teacher, or sparse and without bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from zenray.batch.teacher_logits.reading.mixture import row_weights, rows_of_entries
from zenray.batch.teacher_logits.reading.rows import take_rows
from zenray.engine.scoring import ScoredRows


def dense(rows: ScoredRows, prior_V: np.ndarray) -> torch.Tensor:
    """float32 [R, V], every row a distribution: the head as it was coded, the tail's mass spread over `prior_V` (see
    `tail_prior`) outside the head, normalised. Near the teacher in KL, but not without bias."""
    weights = row_weights(rows, prior_V)
    dense_RV = torch.outer(_float32(weights.tail_scales_R), _float32(weights.prior_V))
    places = torch.from_numpy(rows_of_entries(weights.counts_R)), torch.from_numpy(weights.ids_N.astype(np.int64))
    dense_RV[places] = _float32(weights.head_N)
    return dense_RV


def dense_chunks(rows: ScoredRows, prior_V: np.ndarray, chunk_rows: int) -> Iterator[torch.Tensor]:
    """`dense` a few rows at a time: a row of a large vocabulary is half a megabyte."""
    for start in range(0, rows.num_rows, chunk_rows):
        yield dense(take_rows(rows, start, start + chunk_rows), prior_V)


@dataclass(frozen=True, slots=True)
class SparseRows:
    """M entries of R rows: those of row r are `offsets[r]` to `offsets[r + 1]`.

    ids_M int64, probabilities_M float32, offsets int64 [R + 1]. A token may occur several times in a row: its
    probability is the sum. Rows do not sum to 1, on purpose: each entry's expectation is the teacher's probability.
    """

    ids_M: torch.Tensor
    probabilities_M: torch.Tensor
    offsets: torch.Tensor


def sparse(rows: ScoredRows) -> SparseRows:
    """The unbiased estimate of every row: the head as it was coded, and for each of the S draws from the tail its mass
    divided by S."""
    num_rows, num_samples = rows.tail_ids_RS.shape
    drawn_R = rows.tail_masses_R > 0 if num_samples else np.zeros(num_rows, bool)
    head_N = np.exp(rows.head_logprobs_N.astype(np.float64))
    share_D = np.repeat(rows.tail_masses_R[drawn_R].astype(np.float64) / max(1, num_samples), num_samples)
    rows_M = np.concatenate([rows_of_entries(rows.head_counts_R), np.repeat(np.flatnonzero(drawn_R), num_samples)])
    order_M = np.argsort(rows_M, kind="stable")
    ids_M = np.concatenate([rows.head_ids_N, rows.tail_ids_RS[drawn_R].reshape(-1)])[order_M]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows_M, minlength=num_rows))])
    return SparseRows(
        torch.from_numpy(ids_M.astype(np.int64)),
        _float32(np.concatenate([head_N, share_D])[order_M]),
        torch.from_numpy(offsets),
    )


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
