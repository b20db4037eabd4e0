"""The statistics behind the tables of record formats: what is off is found, what is not is not accused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.bench.record_statistics import (
    Reconstruction,
    Teacher,
    bands,
    divergences,
    expected_largest_z,
    kept_divergences,
    norm_of_mean,
    sums_of,
    z_scores,
)

SIZE, TOP = 300, 24


def random_distributions(seed: int, num_rows: int, spread: float) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, spread, (num_rows, SIZE))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def teacher_of(exact_RV: np.ndarray, prior_V: np.ndarray) -> Teacher:
    ids_RK = np.argsort(-exact_RV, axis=1)[:, :TOP]
    rest_RV = exact_RV.copy()
    np.put_along_axis(rest_RV, ids_RK, 0.0, axis=1)
    logs_RV = np.log(exact_RV)
    return Teacher(
        ids_RK,
        np.take_along_axis(logs_RV, ids_RK, axis=1),
        rest_RV.sum(axis=1),
        (rest_RV * logs_RV).sum(axis=1),
        rest_RV @ np.log(prior_V),
    )


def dense(found: Reconstruction, prior_V: np.ndarray) -> np.ndarray:
    """The reconstruction in full, the slow way."""
    full_RV = np.zeros((len(found.rest_R), SIZE))
    for row, (ids, values) in enumerate(zip(found.ids_RK, found.probabilities_RK, strict=True)):
        outside_V = prior_V.copy()
        for token, value in zip(ids, values, strict=True):
            if value > 0:
                full_RV[row, token] += value
                outside_V[token] = 0.0
        full_RV[row] += found.rest_R[row] * outside_V / outside_V.sum()
    return full_RV


def coarse(teacher: Teacher, num_kept_R: np.ndarray, seed: int) -> Reconstruction:
    """A head of some entries, each a little off."""
    noise = np.random.default_rng(seed).uniform(0.8, 1.2, teacher.ids_RK.shape)
    kept = np.where(np.arange(TOP) < num_kept_R[:, None], np.exp(teacher.logprobs_RK) * noise, 0.0)
    kept /= np.maximum(1.0, 1.05 * kept.sum(axis=1, keepdims=True))
    rest_R = 1.0 - kept.sum(axis=1)
    # In whatever order a format has them.
    order_RK = np.argsort(np.where(kept > 0, -teacher.ids_RK, 1), axis=1, kind="stable")
    ids_RK, kept = (np.take_along_axis(each, order_RK, axis=1) for each in (teacher.ids_RK, kept))
    return Reconstruction(ids_RK, kept, rest_R)


def test_other_tokens_than_the_most_probable_are_not_taken_for_them() -> None:
    prior_V = np.full(SIZE, 1 / SIZE)
    teacher = teacher_of(random_distributions(0, 1, 2.0), prior_V)
    other = Reconstruction(teacher.ids_RK[:, ::-1], np.full((1, TOP), 0.01), np.array([0.5]))
    with pytest.raises(ValueError, match="most probable"):
        divergences(teacher, np.array([3]), other, prior_V)


@given(st.integers(0, 10_000), st.floats(0.5, 4.0))
def test_divergences_from_sums_are_those_of_full_distributions(seed: int, spread: float) -> None:
    prior_V = random_distributions(seed + 1, 1, 1.0)[0]
    exact_RV = random_distributions(seed, 6, spread)
    teacher, num_kept_R = teacher_of(exact_RV, prior_V), np.array([1, 2, 5, 10, TOP - 1, TOP])
    found = coarse(teacher, num_kept_R, seed)
    full_RV = dense(found, prior_V)
    expected_R = (exact_RV * np.log(exact_RV / full_RV)).sum(axis=1)
    np.testing.assert_allclose(divergences(teacher, num_kept_R, found, prior_V), expected_R, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10_000))
def test_divergences_over_kept_tokens_do_not_see_the_others(seed: int) -> None:
    prior_V = random_distributions(seed + 1, 1, 1.0)[0]
    exact_RV = random_distributions(seed, 3, 2.0)
    teacher, num_kept_R = teacher_of(exact_RV, prior_V), np.array([3, 10, TOP])
    found = coarse(teacher, num_kept_R, seed)
    for row, kept in enumerate(num_kept_R):
        ids = teacher.ids_RK[row, :kept]
        given_ = np.array([found.probabilities_RK[row][found.ids_RK[row] == token][0] for token in ids])
        told = exact_RV[row, ids]
        told, given_ = told / told.sum(), given_ / given_.sum()
        expected = (told * np.log(told / given_)).sum()
        assert kept_divergences(teacher, num_kept_R, found)[row] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(st.integers(0, 10_000))
def test_weighted_sums_are_those_of_full_distributions(seed: int) -> None:
    prior_V = random_distributions(seed + 1, 1, 1.0)[0]
    teacher = teacher_of(random_distributions(seed, 5, 2.0), prior_V)
    found = coarse(teacher, np.array([1, 4, 9, 16, TOP]), seed)
    weights_R = np.random.default_rng(seed).normal(size=5)
    np.testing.assert_allclose(sums_of(found, weights_R, prior_V), weights_R @ dense(found, prior_V), atol=1e-12)


def test_a_token_that_is_drawn_twice_counts_twice() -> None:
    found = Reconstruction(np.array([[3, 3, 7]]), np.array([[0.25, 0.25, 0.5]]), np.zeros(1))
    sums_V = sums_of(found, np.ones(1), np.full(SIZE, 1 / SIZE))
    assert sums_V[3] == sums_V[7] == 0.5 and sums_V.sum() == pytest.approx(1.0)


def batch_means(bias_V: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1.0, (16, len(bias_V)))
    return bias_V + noise


def test_a_bias_below_its_noise_is_found_and_noise_alone_is_not_taken_for_one() -> None:
    bias_V = np.full(5000, 0.1)  # Of length 7, where the mean's noise has length 18.
    accused = 0
    for seed in range(20):
        means_BV, noise_BV = batch_means(bias_V, seed), batch_means(np.zeros(5000), 100 + seed)
        biased, unbiased = norm_of_mean(means_BV @ means_BV.T), norm_of_mean(noise_BV @ noise_BV.T)
        assert biased.measured > 15 and unbiased.measured > 15
        assert biased.corrected == pytest.approx(np.linalg.norm(bias_V), rel=0.25)
        assert biased.corrected_squared > 3 * biased.standard_error_squared
        accused += abs(unbiased.corrected_squared) > 3 * unbiased.standard_error_squared
    assert accused <= 1


def test_without_noise_the_length_is_exact() -> None:
    means_BV = np.tile(np.array([3.0, 4.0]), (5, 1))
    estimate = norm_of_mean(means_BV @ means_BV.T)
    assert (estimate.measured, estimate.corrected) == pytest.approx((5.0, 5.0))
    assert estimate.standard_error_squared == pytest.approx(0.0, abs=1e-9)


def test_redraws_around_the_exact_value_are_within_their_errors_and_others_are_not() -> None:
    chance, exact_F = np.random.default_rng(3), np.linspace(-1, 1, 64)
    drawn_MF = exact_F + chance.normal(0, 0.2, (200, 64))
    honest = np.abs(z_scores(drawn_MF, exact_F))
    assert honest.max() < 1.5 * expected_largest_z(64)
    assert 0.7 < np.sqrt((honest**2).mean()) < 1.3
    shifted = drawn_MF.copy()
    shifted[:, 5] += 0.1
    assert np.abs(z_scores(shifted, exact_F)).argmax() == 5 and np.abs(z_scores(shifted, exact_F)).max() > 4


def test_what_never_varies_is_judged_by_being_right() -> None:
    scores = z_scores(np.tile([1.0, 1.0], (10, 1)), np.array([1.0, 0.9]))
    assert scores[0] == 0 and np.isinf(scores[1])


def test_the_largest_of_many_normals() -> None:
    chance = np.random.default_rng(0)
    for num in (1, 16, 128):
        simulated = np.abs(chance.normal(size=(4000, num))).max(axis=1).mean()
        assert expected_largest_z(num) == pytest.approx(simulated, rel=0.02)


def test_bands_go_by_frequency() -> None:
    assert bands(np.array([5, 100, 7, 0]), [1, 3]).tolist() == [1, 0, 1, 2]
