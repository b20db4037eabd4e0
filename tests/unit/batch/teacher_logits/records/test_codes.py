"""Probabilities in a byte each: nothing is lost on average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import steady
from zenray.batch.teacher_logits.records.codes import (
    GRID_K,
    ZERO_CODE,
    decode_logprobs,
    decode_probabilities,
    encode_probabilities,
    probability_cells,
    uniforms,
)
from zenray.batch.teacher_logits.records.scalars import (
    decode_entropies,
    decode_gold_logprobs,
    encode_entropies,
    encode_gold_logprobs,
)

UNIFORMS_OF_7 = [0.8720734548204873, 0.29536538151378355, 0.4200976785072422]

probabilities = st.one_of(
    st.floats(0.0, 1.0),
    st.floats(-60.0, 0.0).map(np.exp),
    st.sampled_from([*GRID_K, *np.nextafter(GRID_K, 0), *np.nextafter(GRID_K, 1)]),
)


def code_of(probability: float, uniform: float) -> int:
    return int(encode_probabilities(np.array([probability]), np.array([uniform]))[0])


@steady
@given(probabilities)
def test_the_mean_over_the_uniform_is_the_probability(probability: float) -> None:
    """Integrated, not sampled: the code changes once, at the chance of the upper grid point."""
    (code,), (chance,) = probability_cells(np.array([probability]))
    assert 0 <= chance <= 1
    below = np.nextafter(chance, 0) if chance else None
    if below is not None:
        assert code_of(probability, 0.0) == code_of(probability, below) == code
    if chance < 1:
        assert code_of(probability, chance) == code_of(probability, np.nextafter(1, 0)) == code + 1
    mean = chance * GRID_K[code] + (1 - chance) * GRID_K[code + 1]
    assert abs(mean - min(probability, 1.0)) < 1e-12


def test_what_rounding_leaves_above_one_is_one_and_no_probability_is_no_probability() -> None:
    assert code_of(1.0 + 1e-7, 0.999) == 0
    assert code_of(0.0, 0.0) == ZERO_CODE
    assert code_of(-1e-9, 0.0) == ZERO_CODE


def test_the_two_readings_of_a_code_agree() -> None:
    codes_N = np.arange(256, dtype=np.uint8)
    with np.errstate(divide="ignore"):
        assert np.allclose(np.log(decode_probabilities(codes_N)), decode_logprobs(codes_N), rtol=1e-6)


def test_uniforms_are_those_of_their_seed_for_ever() -> None:
    """Outputs already written were made with these."""
    assert uniforms(7, 3).tolist() == uniforms(7, 9)[:3].tolist() != uniforms(8, 3).tolist()
    assert uniforms(7, 3) == pytest.approx(UNIFORMS_OF_7, abs=0)
    drawn_N = uniforms(2**63 - 1, 10_000)
    assert drawn_N.min() >= 0 and drawn_N.max() < 1 and abs(drawn_N.mean() - 0.5) < 0.02


@steady
@given(st.lists(st.floats(0, 40, width=32), max_size=20))
def test_gold_logprobs_and_entropies_are_read_to_half_a_step(values: list[float]) -> None:
    values_R = np.array(values, np.float32)
    gold_R = decode_gold_logprobs(encode_gold_logprobs(-values_R), len(values))
    entropies_R = decode_entropies(encode_entropies(values_R), len(values))
    assert np.allclose(-gold_R, values_R.clip(max=65535 / 512), atol=0.5 / 512 + 1e-5)
    assert np.allclose(entropies_R, values_R.clip(max=65535 / 512), atol=0.5 / 512 + 1e-5)


def test_a_token_that_the_teacher_excludes_has_the_least_logprob() -> None:
    assert decode_gold_logprobs(encode_gold_logprobs(np.array([-np.inf], np.float32)), 1) == pytest.approx(
        [-65535 / 512]
    )
