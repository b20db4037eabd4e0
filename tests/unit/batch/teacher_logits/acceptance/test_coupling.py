"""What the formulas say is what happens: against noise that is drawn, and against rounds that are walked one by one."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.teacher_logits.acceptance.coupling import acceptance, agreement
from zenray.batch.teacher_logits.acceptance.rounds import Rounds, follow_rounds
from zenray.engine.noise import gumbel

VOCAB = 12
DRAWS = 4_000


def distribution(seed: int, sharpness: float) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=VOCAB) * sharpness
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def drawn_agreement(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """How often both argmaxes fall on each token under the engine's own noise."""
    ids = torch.arange(VOCAB)
    counts = np.zeros(VOCAB)
    for position in range(DRAWS):
        noise = gumbel(11, position, ids).numpy()
        first, second = np.argmax(np.log(p) + noise), np.argmax(np.log(q) + noise)
        counts[first] += first == second
    return counts / DRAWS


def test_the_engine_agrees_as_often_as_the_formula_says() -> None:
    p, q = distribution(1, 1.5), distribution(2, 1.0)
    nothing = np.zeros(1)
    exact = agreement(p[None], q[None], nothing, nothing)
    assert np.array_equal(exact.lower_RK, exact.upper_RK)
    error = np.sqrt(exact.lower_RK[0] * (1 - exact.lower_RK[0]) / DRAWS)
    assert np.all(np.abs(drawn_agreement(p, q) - exact.lower_RK[0]) <= 4 * error)


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.floats(0.1, 6), st.integers(1, VOCAB))
def test_a_head_bounds_what_the_whole_distributions_give(first: int, second: int, sharpness: float, kept: int) -> None:
    p, q = distribution(first, sharpness), distribution(second, 1.5)
    nothing = np.zeros(1)
    (whole,), _ = acceptance(agreement(p[None], q[None], nothing, nothing), nothing, nothing)
    head = np.argsort(-p)[:kept]
    p_rest, q_rest = np.array([1 - p[head].sum()]).clip(0), np.array([1 - q[head].sum()]).clip(0)
    (lower,), (upper,) = acceptance(agreement(p[None, head], q[None, head], p_rest, q_rest), p_rest, q_rest)
    assert lower - 1e-9 <= whole <= upper + 1e-9
    overlap = np.minimum(p, q).sum()  # No coupling accepts more, and this one at least that over 2 - that.
    assert overlap / (2 - overlap) - 1e-9 <= whole <= overlap + 1e-9


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.floats(0.1, 9), st.sets(st.integers(0, VOCAB - 1)))
def test_sorting_finds_what_pairs_say(first: int, second: int, sharpness: float, excluded: set[int]) -> None:
    p, q = distribution(first, sharpness), distribution(second, sharpness)
    p[list(excluded)] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        pairs = np.maximum(p[None, :] / p[:, None], q[None, :] / q[:, None]).sum(-1)
    nothing = np.zeros(1)
    (found,) = agreement(p[None], q[None], nothing, nothing).lower_RK
    assert np.allclose(found, np.where(p > 0, 1 / pairs, 0.0))


def test_equal_models_always_agree_and_strangers_never() -> None:
    p = distribution(3, 2.0)[None]
    nothing, apart = np.zeros(1), np.zeros_like(p)
    (same,), _ = acceptance(agreement(p, p, nothing, nothing), nothing, nothing)
    assert abs(same - 1) < 1e-12
    elsewhere = np.ones(1)
    assert acceptance(agreement(p, apart, nothing, elsewhere), nothing, elsewhere)[1] == [0.0]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30), st.integers(1, 8))
def test_rounds_are_those_a_greedy_speculator_would_walk(text: list[tuple[bool, bool]], gamma: int) -> None:
    """Each position: whether the draft's choice is the teacher's, and whether the text's token is."""
    matches, follows = [match for match, _ in text], [follow for _, follow in text]
    walked = Rounds.none(gamma)
    start = 0
    while start < len(text):
        place = 0
        while place < gamma and start + place < len(text):
            walked.weights[place] += 1
            walked.accepted[place] += matches[start + place]
            if not (matches[start + place] and follows[start + place]):
                break
            place += 1
        start += place + 1
    carried = np.array([match and follow for match, follow in text], dtype=float)
    found = follow_rounds(np.array(matches, dtype=float), carried, gamma)
    assert np.array_equal(found.weights, walked.weights) and np.array_equal(found.accepted, walked.accepted)


def test_a_constant_rate_gives_the_geometric_series() -> None:
    rate = np.full(1000, 0.8)
    rounds = follow_rounds(rate, rate, gamma=8)
    assert np.allclose(rounds.rates, 0.8)
    assert np.isclose(rounds.tokens_per_round, (1 - 0.8**9) / 0.2)
