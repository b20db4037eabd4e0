"""What leaves the heads joins the tails, and no token's expectation changes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import VOCAB_SIZE, random_rows, steady
from zenray.batch.teacher_logits.records.cut import cut_heads
from zenray.engine.scoring import ScoredRows, ScoreFormat

seeds = st.integers(0, 10_000)


def estimates(rows: ScoredRows) -> np.ndarray:
    """[R, V]: the head, and for each draw its share of the tail's mass."""
    found_RV = np.zeros((rows.num_rows, VOCAB_SIZE))
    rows_N = np.repeat(np.arange(rows.num_rows), rows.head_counts_R)
    found_RV[rows_N, rows.head_ids_N] = np.exp(rows.head_logprobs_N.astype(np.float64))
    num_samples = rows.tail_ids_RS.shape[1]
    for row, (mass, ids_S) in enumerate(zip(rows.tail_masses_R.astype(np.float64), rows.tail_ids_RS, strict=True)):
        np.add.at(found_RV[row], ids_S[ids_S >= 0], mass / num_samples)
    return found_RV


@steady
@given(seeds, st.sampled_from([0.003, 0.02, 0.3, 2.0]), st.integers(1, 5))
def test_the_mean_over_the_uniform_is_what_stood_there(seed: int, least: float, num_samples: int) -> None:
    """Integrated, not sampled: between the quantiles where a draw changes, the estimate is constant."""
    rows = random_rows(seed, 1, ScoreFormat(max_head=20, num_tail_samples=num_samples))
    wanted_N = np.exp(rows.head_logprobs_N) >= least
    before_V = estimates(rows)[0]
    moved_V = before_V.copy()
    kept_N = wanted_N | (np.arange(len(wanted_N)) == 0)
    moved_V[rows.head_ids_N[kept_N]] = 0
    changes = (np.cumsum(moved_V) / moved_V.sum() * num_samples % 1) if moved_V.sum() else []
    bounds = np.unique(np.concatenate([[0.0, 1.0], np.clip(changes, 0, 1)]))
    mean_V = np.zeros(VOCAB_SIZE)
    for low, high in pairwise(bounds):
        cut = cut_heads(rows, wanted_N, np.array([(low + high) / 2]))
        mean_V += (high - low) * estimates(cut)[0]
    assert np.allclose(mean_V, before_V, atol=1e-7)  # Masses are float32.


@steady
@given(seeds)
def test_rows_are_cut_independently_of_each_other(seed: int) -> None:
    rows = random_rows(seed, 6, ScoreFormat(max_head=20))
    wanted_N = np.exp(rows.head_logprobs_N) >= 0.02
    uniforms_R = np.random.default_rng(seed).random(6)
    cut = cut_heads(rows, wanted_N, uniforms_R)
    ends = np.cumsum(rows.head_counts_R)
    starts = ends - rows.head_counts_R
    single_RV = []
    for row in range(6):
        part = slice(starts[row], ends[row])
        alone = ScoredRows(
            first_position=0,
            gold_logprobs_R=rows.gold_logprobs_R[[row]],
            entropies_R=rows.entropies_R[[row]],
            head_counts_R=rows.head_counts_R[[row]],
            head_ids_N=rows.head_ids_N[part],
            head_logprobs_N=rows.head_logprobs_N[part],
            tail_masses_R=rows.tail_masses_R[[row]],
            tail_ids_RS=rows.tail_ids_RS[[row]],
        )
        single_RV.append(estimates(cut_heads(alone, wanted_N[part], uniforms_R[[row]]))[0])
    assert np.allclose(estimates(cut), single_RV, atol=1e-12)
    assert (np.diff(cut.tail_ids_RS, axis=1) >= 0).all()


def test_nothing_unwanted_nothing_changed() -> None:
    rows = random_rows(3, 5, ScoreFormat(max_head=20))
    cut = cut_heads(rows, np.ones(len(rows.head_ids_N), bool), np.zeros(5))
    assert np.array_equal(cut.tail_ids_RS, rows.tail_ids_RS) and np.array_equal(cut.head_ids_N, rows.head_ids_N)
    assert np.array_equal(cut.tail_masses_R, rows.tail_masses_R)


def test_a_row_keeps_its_first_entry_whatever_is_wanted() -> None:
    rows = random_rows(3, 5, ScoreFormat(max_head=20))
    cut = cut_heads(rows, np.zeros(len(rows.head_ids_N), bool), np.zeros(5))
    assert cut.head_counts_R.tolist() == [1] * 5
    assert np.allclose(np.exp(cut.head_logprobs_N) + cut.tail_masses_R, 1, atol=1e-5)
