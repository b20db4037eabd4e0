"""How far what is read is from the teacher, for every token, without a full row of probabilities."""

from __future__ import annotations

import numpy as np

from zenray.batch.teacher_logits.reading.mixture import row_sums, row_weights, rows_of_entries
from zenray.engine.scoring import ScoredRows


def kl_estimate(exact: ScoredRows, coded: ScoredRows, prior_V: np.ndarray) -> np.ndarray:
    """float64 [R], nats: KL(teacher || dense reconstruction of `coded`) at each position, without bias.

    `exact` are the records as the teacher gave them, `coded` what is read of them. With p the teacher and q the
    reconstruction, KL = -H(p) - sum p log q: the entropy is in the record, the sum over the head is exact, and the one
    over the tail is the mean of log q at the tail's draws times its mass. A single value may be below 0; its
    expectation over the draws is the divergence. Rows that were not drawn from (no tail samples) leave the tail's
    cross term out where it has mass: NaN.
    """
    weights = row_weights(coded, prior_V)
    rows_N = rows_of_entries(exact.head_counts_R)
    cross_N = np.exp(exact.head_logprobs_N.astype(np.float64)) * weights.log_at(rows_N, exact.head_ids_N)
    cross_R = row_sums(cross_N, exact.head_counts_R)
    num_rows, num_samples = exact.tail_ids_RS.shape
    masses_R = exact.tail_masses_R.astype(np.float64)
    if num_samples:
        rows_M = np.repeat(np.arange(num_rows), num_samples)
        logs_RS = weights.log_at(rows_M, exact.tail_ids_RS.reshape(-1)).reshape(num_rows, num_samples)
        cross_R = cross_R + np.where(masses_R > 0, masses_R * logs_RS.mean(axis=1), 0.0)
    else:
        cross_R = np.where(masses_R > 0, np.nan, cross_R)
    divergence_R: np.ndarray = -exact.entropies_R.astype(np.float64) - cross_R
    return divergence_R
