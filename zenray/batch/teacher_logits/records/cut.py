"""Moves what is improbable from the heads of records to their tails.

A head that reaches 0.9975 has, where the teacher is sure, a score of entries that hardly matter, and an entry costs
two bytes whatever it says. Cut at a probability, heads can be longer where the teacher is unsure, at the same bytes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zenray.engine.scoring import ScoredRows


def cut_heads(rows: ScoredRows, wanted_N: np.ndarray, uniforms_R: np.ndarray) -> ScoredRows:
    """Records with those head entries alone that are wanted (bool [N]), and each row's first one.

    The others join the tail: its mass grows by theirs, and its S draws are drawn anew, from them and from the draws
    there were, of which each stands for 1/S of the old tail. The sampling is that of `ScoreFormat`, with `uniforms_R`
    (in [0, 1)) for u, so that every token's expectation stays what it was.
    """
    num_rows, num_samples = rows.tail_ids_RS.shape
    rows_N = np.repeat(np.arange(num_rows), rows.head_counts_R)
    kept_N = wanted_N.copy()
    kept_N[np.cumsum(rows.head_counts_R) - rows.head_counts_R] = True
    probabilities_N = np.exp(rows.head_logprobs_N.astype(np.float64))
    masses_R = rows.tail_masses_R + np.bincount(rows_N[~kept_N], probabilities_N[~kept_N], minlength=num_rows)
    tail_ids_RS = rows.tail_ids_RS.copy()
    if num_samples:
        drawn_RS = (rows.tail_ids_RS >= 0) & (np.bincount(rows_N[~kept_N], minlength=num_rows) > 0)[:, None]
        shares_RS = np.broadcast_to((rows.tail_masses_R.astype(np.float64) / num_samples)[:, None], drawn_RS.shape)
        atom_rows_A = np.concatenate([rows_N[~kept_N], np.nonzero(drawn_RS)[0]])
        atom_ids_A = np.concatenate([rows.head_ids_N[~kept_N], rows.tail_ids_RS[drawn_RS]])
        atom_masses_A = np.concatenate([probabilities_N[~kept_N], shares_RS[drawn_RS]])
        changed_C, drawn_CS = _draw(atom_rows_A, atom_ids_A, atom_masses_A, uniforms_R, num_samples)
        tail_ids_RS[changed_C] = drawn_CS
    return replace(
        rows,
        head_counts_R=np.bincount(rows_N[kept_N], minlength=num_rows).astype(np.int32),
        head_ids_N=rows.head_ids_N[kept_N],
        head_logprobs_N=rows.head_logprobs_N[kept_N],
        tail_masses_R=masses_R.astype(np.float32),
        tail_ids_RS=tail_ids_RS,
    )


def _draw(
    rows_A: np.ndarray, ids_A: np.ndarray, masses_A: np.ndarray, uniforms_R: np.ndarray, num_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have atoms, and for each the ids of its draws in proportion to their masses, ascending."""
    order_A = np.lexsort((ids_A, rows_A))
    rows_A, ids_A, masses_A = rows_A[order_A], ids_A[order_A], masses_A[order_A]
    changed_C, first_C, count_C = np.unique(rows_A, return_index=True, return_counts=True)
    totals_C = np.bincount(rows_A, masses_A, minlength=len(uniforms_R))[changed_C]
    before_A = np.cumsum(masses_A) - masses_A
    ends_A = (before_A + masses_A - np.repeat(before_A[first_C], count_C)) / np.repeat(totals_C, count_C)
    # One search over all rows: row c's quantiles lie in [c, c + 1).
    keys_A = np.repeat(np.arange(len(changed_C)), count_C) + ends_A
    quantiles_CS = (np.arange(num_samples) + uniforms_R[changed_C, None]) / num_samples
    found_CS = np.searchsorted(keys_A, np.arange(len(changed_C))[:, None] + quantiles_CS, side="right")
    last_C = first_C + count_C - 1
    return changed_C, ids_A[np.clip(found_CS, first_C[:, None], last_C[:, None])]
