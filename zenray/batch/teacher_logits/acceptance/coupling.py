"""Probability that a draft token is accepted when both models choose with the same Gumbel noise.

Two argmaxes of `log p + noise` and `log q + noise` agree on token i with probability 1 / sum_j max(p_j/p_i, q_j/q_i)
(Moulton & Jiang 2018, arXiv 1809.04052: the probability Jaccard index is the sum over i; for speculation Daliri et al.,
arXiv 2408.07978). At temperature 0 they agree where the two most probable tokens are one.

Shapes: R positions, K tokens of the teacher's head, padded with probability 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Agreement:
    """Bounds of P(both choose token k) for every token of the heads [R, K].

    The truth lies between them: the tokens outside the head are known by their mass alone, and how the two models'
    masses overlap there decides.
    """

    lower_RK: np.ndarray
    upper_RK: np.ndarray


def agreement(p_RK: np.ndarray, q_RK: np.ndarray, p_rest_R: np.ndarray, q_rest_R: np.ndarray) -> Agreement:
    """`p` are the teacher's probabilities, `q` the draft model's of the same tokens; `rest` what either has elsewhere.

    A token that either model excludes is never agreed on: 0. All are float64.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        p_ratio = np.where(p_RK > 0, 1 / p_RK, np.inf)
        q_ratio = np.where(q_RK > 0, 1 / q_RK, np.inf)
    agreed = np.isfinite(p_ratio) & np.isfinite(q_ratio)
    p_ratio, q_ratio = np.where(agreed, p_ratio, 0.0), np.where(agreed, q_ratio, 0.0)
    head_RK = np.maximum(p_RK[:, None, :] * p_ratio[:, :, None], q_RK[:, None, :] * q_ratio[:, :, None]).sum(-1)
    p_rest_RK, q_rest_RK = p_rest_R[:, None] * p_ratio, q_rest_R[:, None] * q_ratio

    def chance(rest_RK: np.ndarray) -> np.ndarray:
        return np.where(agreed, 1 / np.where(agreed, head_RK + rest_RK, 1.0), 0.0)

    # max(a_j, b_j) summed over the rest is at least the larger of the sums and at most both together.
    return Agreement(chance(p_rest_RK + q_rest_RK), chance(np.maximum(p_rest_RK, q_rest_RK)))


def acceptance(agreed: Agreement, p_rest_R: np.ndarray, q_rest_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of P(a draft token is accepted) [R]: over the heads, and at most what both have outside of them."""
    lower_R = agreed.lower_RK.sum(-1)
    return lower_R, np.minimum(1.0, agreed.upper_RK.sum(-1) + np.minimum(p_rest_R, q_rest_R))
