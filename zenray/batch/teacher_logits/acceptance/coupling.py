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
    agreed = (p_RK > 0) & (q_RK > 0)
    p_ratio, q_ratio = (np.where(agreed, 1 / np.where(agreed, each_RK, 1.0), 0.0) for each_RK in (p_RK, q_RK))
    head_RK = _largest_parts(p_RK, q_RK, p_ratio, q_ratio)
    p_rest_RK, q_rest_RK = p_rest_R[:, None] * p_ratio, q_rest_R[:, None] * q_ratio

    def chance(rest_RK: np.ndarray) -> np.ndarray:
        return np.where(agreed, 1 / np.where(agreed, head_RK + rest_RK, 1.0), 0.0)

    # max(a_j, b_j) summed over the rest is at least the larger of the sums and at most both together.
    return Agreement(chance(p_rest_RK + q_rest_RK), chance(np.maximum(p_rest_RK, q_rest_RK)))


def _largest_parts(p_RK: np.ndarray, q_RK: np.ndarray, p_ratio: np.ndarray, q_ratio: np.ndarray) -> np.ndarray:
    """Sum over j of max(p_j * p_ratio_k, q_j * q_ratio_k), for every k, by sorting instead of by pairs.

    The first is the larger one for the j that p prefers to q at least as much as it prefers k.
    """
    order_RK = np.argsort(-p_RK / np.maximum(q_RK, np.finfo(float).tiny), axis=-1)
    p_sorted, q_sorted = np.take_along_axis(p_RK, order_RK, -1), np.take_along_axis(q_RK, order_RK, -1)
    p_until, q_until = np.cumsum(p_sorted, -1), np.cumsum(q_sorted, -1)
    p_part = p_until * np.take_along_axis(p_ratio, order_RK, -1)
    q_part = np.maximum(0.0, q_until[:, -1:] - q_until) * np.take_along_axis(q_ratio, order_RK, -1)
    result_RK = np.empty_like(p_RK)
    np.put_along_axis(result_RK, order_RK, p_part + q_part, -1)
    return result_RK


def acceptance(agreed: Agreement, p_rest_R: np.ndarray, q_rest_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of P(a draft token is accepted) [R]: over the heads, and at most what both have outside of them."""
    lower_R = agreed.lower_RK.sum(-1)
    return lower_R, np.minimum(1.0, agreed.upper_RK.sum(-1) + np.minimum(p_rest_R, q_rest_R))
