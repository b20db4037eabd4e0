"""Draws that are functions of a seed and a position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zenray.engine.noise import gumbel, uniform

COUNT = 20_000


@pytest.fixture(scope="module")
def uniforms() -> np.ndarray:
    return np.array([uniform(7, position) for position in range(COUNT)])


def test_a_draw_is_the_same_whenever_it_is_asked_for_and_differs_by_seed_and_position() -> None:
    drawn = {(seed, position): uniform(seed, position) for seed in (0, 1, 2**63) for position in range(50)}
    assert len(set(drawn.values())) == len(drawn)
    assert all(uniform(*at) == value for at, value in drawn.items())


def test_draws_are_uniform_in_the_half_open_unit_interval(uniforms: np.ndarray) -> None:
    assert 0 <= uniforms.min() < 1e-3 and 1 - 1e-3 < uniforms.max() < 1
    counts = np.histogram(uniforms, bins=20, range=(0, 1))[0]
    chi_squared = ((counts - COUNT / 20) ** 2 / (COUNT / 20)).sum()
    assert chi_squared < 43.8  # the 99.9% quantile of 19 degrees of freedom


def test_draws_tell_nothing_of_each_other_or_of_the_noise_that_chooses_tokens(uniforms: np.ndarray) -> None:
    five_standard_errors = 5 / np.sqrt(COUNT)
    assert abs(np.corrcoef(uniforms[1:], uniforms[:-1])[0, 1]) < five_standard_errors
    others = np.array([uniform(8, position) for position in range(COUNT)])
    assert abs(np.corrcoef(uniforms, others)[0, 1]) < five_standard_errors
    noise_PT = np.stack([gumbel(7, position, torch.arange(3)).numpy() for position in range(COUNT)])
    for noise_P in noise_PT.T:
        assert abs(np.corrcoef(uniforms, noise_P)[0, 1]) < five_standard_errors
