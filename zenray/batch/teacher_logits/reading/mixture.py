"""The dense reconstruction, entry by entry: a head as it was coded, and the prior's share of what is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zenray.engine.scoring import ScoredRows

LEAST_TAIL_MASS = 1e-7
"""What any tail has at least, so that no token is impossible: less than a record can tell from nothing."""


@dataclass(frozen=True, slots=True)
class RowWeights:
    """R distributions over V tokens: entry n of the heads has probability `head_N[n]` (float64), every token outside
    its row's head the prior's times `tail_scales_R` (float64). A row sums to 1.

    Entries that were coded as 0 count as outside, and no tail is without mass: nothing has probability 0.
    """

    prior_V: np.ndarray
    counts_R: np.ndarray
    ids_N: np.ndarray
    head_N: np.ndarray
    tail_scales_R: np.ndarray

    def log_at(self, rows_M: np.ndarray, ids_M: np.ndarray) -> np.ndarray:
        """float64 [M]: log-probs of single tokens in single rows."""
        size = len(self.prior_V)
        keys_N = rows_of_entries(self.counts_R) * size + self.ids_N
        order_N = np.argsort(keys_N)
        keys_M = rows_M * size + ids_M
        found_M = np.minimum(np.searchsorted(keys_N, keys_M, sorter=order_N), max(0, len(keys_N) - 1))
        result_M: np.ndarray = np.log(self.prior_V[ids_M]) + np.log(self.tail_scales_R[rows_M])
        if len(keys_N):
            entries_M = order_N[found_M]
            inside_M = keys_N[entries_M] == keys_M
            result_M[inside_M] = np.log(self.head_N[entries_M[inside_M]])
        return result_M


def row_weights(rows: ScoredRows, prior_V: np.ndarray) -> RowWeights:
    """The reconstruction of `rows` (coded ones) with the tail spread over `prior_V` (float64 [V], positive)."""
    probabilities_N = np.exp(rows.head_logprobs_N.astype(np.float64))
    inside_N = probabilities_N > 0
    rows_N = rows_of_entries(rows.head_counts_R)[inside_N]
    counts_R = np.bincount(rows_N, minlength=rows.num_rows)
    ids_N, probabilities_N = rows.head_ids_N[inside_N], probabilities_N[inside_N]
    # At least what is left of the prior in rounding, for heads that have nearly all of it.
    prior_left_R = np.maximum(1.0 - row_sums(prior_V[ids_N], counts_R), 1e-12)
    masses_R = np.maximum(rows.tail_masses_R.astype(np.float64), LEAST_TAIL_MASS)
    totals_R = row_sums(probabilities_N, counts_R) + masses_R
    return RowWeights(
        prior_V=prior_V,
        counts_R=counts_R,
        ids_N=ids_N,
        head_N=probabilities_N / np.repeat(totals_R, counts_R),
        tail_scales_R=masses_R / totals_R / prior_left_R,
    )


def rows_of_entries(counts_R: np.ndarray) -> np.ndarray:
    """int64 [N]: the row of each entry, of the entries of each row."""
    rows_N: np.ndarray = np.repeat(np.arange(len(counts_R)), counts_R)
    return rows_N


def row_sums(values_N: np.ndarray, counts_R: np.ndarray) -> np.ndarray:
    """float64 [R]: of each row's entries."""
    return np.bincount(rows_of_entries(counts_R), values_N, minlength=len(counts_R))
