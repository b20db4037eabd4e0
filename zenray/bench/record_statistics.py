"""What a reconstruction of distributions is off by: divergences, and the bias of a student's mean gradient. Pure.

Shapes: R rows, K entries kept, V vocabulary, B batches of rows, M redraws, F statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Distributions that are known at some ids, and elsewhere in proportion to one prior.

    ids_RK: int, each id once in a row; probabilities_RK: 0 where an entry is none, and whatever id stands there.
    rest_R: what all other ids have together, over the prior outside the ids. Rows need not sum to 1: what a student's
    loss is multiplied with is a measure like any other.
    """

    ids_RK: np.ndarray
    probabilities_RK: np.ndarray
    rest_R: np.ndarray


@dataclass(frozen=True, slots=True)
class Teacher:
    """What exact distributions are at the top (in the order of their probabilities), and of all others the sums of
    p, p log p and p log prior."""

    ids_RK: np.ndarray
    logprobs_RK: np.ndarray
    rest_masses_R: np.ndarray
    rest_negentropies_R: np.ndarray
    rest_logpriors_R: np.ndarray


def in_order_of(teacher: Teacher, num_kept_R: np.ndarray, found: Reconstruction) -> np.ndarray:
    """float64 [R, K]: the probabilities of a row's first `num_kept_R` entries, in the teacher's order; 0 behind. Raises
    ValueError where they are not of the teacher's first ones."""
    is_kept_RK = np.arange(num_kept_R.max(initial=0)) < num_kept_R[:, None]
    rows_N, width = np.nonzero(is_kept_RK)[0], is_kept_RK.shape[1]
    wanted_N, ids_N = teacher.ids_RK[:, :width][is_kept_RK], found.ids_RK[:, :width][is_kept_RK]
    wanted_order_N, order_N = np.lexsort((wanted_N, rows_N)), np.lexsort((ids_N, rows_N))
    if not np.array_equal(wanted_N[wanted_order_N], ids_N[order_N]):
        raise ValueError("a reconstruction keeps other tokens than the most probable ones")
    probabilities_N = np.empty(len(ids_N))
    probabilities_N[wanted_order_N] = found.probabilities_RK[:, :width][is_kept_RK][order_N]
    ordered_RK = np.zeros(is_kept_RK.shape)
    ordered_RK[is_kept_RK] = probabilities_N
    return ordered_RK


def divergences(teacher: Teacher, num_kept_R: np.ndarray, found: Reconstruction, prior_V: np.ndarray) -> np.ndarray:
    """KL(teacher || reconstruction) in nats [R], where the first `num_kept_R` of a row's top are what it has first, in
    any order. Raises ValueError where it has others."""
    kept_probabilities_RK = in_order_of(teacher, num_kept_R, found)
    width = kept_probabilities_RK.shape[1]
    places_K = np.arange(teacher.ids_RK.shape[1])
    is_kept_RK = places_K < num_kept_R[:, None]
    logs_RK = teacher.logprobs_RK.astype(np.float64)
    chances_RK = np.exp(logs_RK)
    prior_RK = prior_V[teacher.ids_RK]
    with np.errstate(divide="ignore"):
        found_logs_RK = np.log(kept_probabilities_RK)
    kept_R = np.where(is_kept_RK[:, :width], chances_RK[:, :width] * (logs_RK[:, :width] - found_logs_RK), 0).sum(
        axis=1
    )
    # The tail: p log p - p log prior, and the one factor that the prior is scaled by.
    others_RK = np.where(is_kept_RK, 0.0, chances_RK)
    mass_R = others_RK.sum(axis=1) + teacher.rest_masses_R
    tail_R = (others_RK * (logs_RK - np.log(prior_RK))).sum(axis=1)
    tail_R = tail_R + teacher.rest_negentropies_R - teacher.rest_logpriors_R
    outside_R = 1.0 - np.where(is_kept_RK, prior_RK, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale_R = np.where(mass_R > 0, mass_R * (np.log(found.rest_R) - np.log(outside_R)), 0.0)
    divergences_R: np.ndarray = kept_R + tail_R - scale_R
    return divergences_R


def kept_divergences(teacher: Teacher, num_kept_R: np.ndarray, found: Reconstruction) -> np.ndarray:
    """KL in nats [R] between what both give the kept tokens, each made to sum to 1 over them: what a student that is
    told nothing of all others can be said to be taught. Arguments as for `divergences`."""
    found_RK = in_order_of(teacher, num_kept_R, found)
    is_kept_RK = np.arange(found_RK.shape[1]) < num_kept_R[:, None]
    logs_RK = teacher.logprobs_RK[:, : found_RK.shape[1]].astype(np.float64)
    chances_RK = np.where(is_kept_RK, np.exp(logs_RK), 0.0)
    chances_R, found_R = chances_RK.sum(axis=1), found_RK.sum(axis=1)
    with np.errstate(divide="ignore"):
        ratios_RK = np.where(is_kept_RK, logs_RK - np.log(found_RK), 0.0)
    divergences_R: np.ndarray = (chances_RK * ratios_RK).sum(axis=1) / chances_R - np.log(chances_R / found_R)
    return divergences_R


def sums_of(found: Reconstruction, weights_R: np.ndarray, prior_V: np.ndarray) -> np.ndarray:
    """The sum over rows of a weight times the reconstruction, float64 [V]."""
    is_kept_RK = found.probabilities_RK > 0
    prior_RK = np.where(is_kept_RK, prior_V[found.ids_RK], 0.0)
    scale_R = weights_R * found.rest_R / (1.0 - prior_RK.sum(axis=1))
    at_ids_RK = weights_R[:, None] * found.probabilities_RK - scale_R[:, None] * prior_RK
    at_ids_V = np.bincount(found.ids_RK.ravel(), at_ids_RK.ravel(), minlength=len(prior_V))
    sums_V: np.ndarray = at_ids_V + scale_R.sum() * prior_V
    return sums_V


@dataclass(frozen=True, slots=True)
class NormEstimate:
    """The length of a mean over batches: as measured, which noise makes longer; and free of what independent batches do
    not share, with a standard error by the jackknife over batches. `corrected_squared` may be negative where there is
    nothing but noise."""

    measured: float
    corrected_squared: float
    standard_error_squared: float

    @property
    def corrected(self) -> float:
        return float(np.sqrt(max(0.0, self.corrected_squared)))

    @property
    def upper(self) -> float:
        """Two standard errors above, as a length."""
        return float(np.sqrt(max(0.0, self.corrected_squared + 2 * self.standard_error_squared)))


def norm_of_mean(gram_BB: np.ndarray) -> NormEstimate:
    """Of the inner products of B batch means, at least 3. Products of different batches have the square of the true
    mean for expectation; those of a batch with itself its noise as well (a U-statistic)."""
    num_batches = len(gram_BB)
    whole, own_B, with_all_B = gram_BB.sum(), np.diag(gram_BB), gram_BB.sum(axis=1)
    corrected = (whole - own_B.sum()) / (num_batches * (num_batches - 1))
    # Leaving batch b out takes its row and its column away.
    left_B = whole - 2 * with_all_B + own_B - (own_B.sum() - own_B)
    left_B = left_B / ((num_batches - 1) * (num_batches - 2))
    variance = (num_batches - 1) / num_batches * ((left_B - left_B.mean()) ** 2).sum()
    return NormEstimate(float(np.sqrt(whole)) / num_batches, float(corrected), float(np.sqrt(variance)))


def z_scores(drawn_MF: np.ndarray, exact_F: np.ndarray) -> np.ndarray:
    """(mean of redraws - exact) in standard errors of that mean; 0 where nothing varies and nothing is off."""
    num_redraws = len(drawn_MF)
    off_F = drawn_MF.mean(axis=0) - exact_F
    errors_F = drawn_MF.std(axis=0, ddof=1) / np.sqrt(num_redraws)
    is_rounding_F = np.abs(off_F) <= 1e-6 * np.maximum(1.0, np.abs(exact_F))
    with np.errstate(divide="ignore", invalid="ignore"):
        scores_F: np.ndarray = np.where(is_rounding_F & (errors_F <= 1e-6), 0.0, off_F / errors_F)
    return scores_F


def expected_largest_z(num_statistics: int) -> float:
    """The mean of the largest of as many absolute values of independent standard normals, by integration."""
    from math import erf, sqrt

    at = np.linspace(0, 8, 8001)
    below = np.array([erf(x / sqrt(2)) for x in at]) ** num_statistics
    return float(np.trapezoid(1 - below, at))


def quantiles(values: np.ndarray) -> dict[str, float]:
    """What tables show of a number that every row has."""
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {
        "mean": float(values.mean()),
        "p50": float(p50),
        "p90": float(p90),
        "p99": float(p99),
        "max": float(values.max()),
    }


def bands(counts_V: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """Which band of the vocabulary a token is in, most frequent first, by where its rank falls between `edges`: int
    [V]."""
    ranks_V = np.empty(len(counts_V), np.int64)
    ranks_V[np.argsort(-counts_V, kind="stable")] = np.arange(len(counts_V))
    return np.searchsorted(np.asarray(edges), ranks_V, side="right")
