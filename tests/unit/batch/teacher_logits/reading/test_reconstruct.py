"""Records as distributions: near the teacher, or right on average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import (
    VOCAB_SIZE,
    random_logits,
    random_rows,
    random_vocabulary,
    rows_of,
    steady,
)
from zenray.batch.teacher_logits.reading.fidelity import kl_estimate
from zenray.batch.teacher_logits.reading.reconstruct import dense, dense_chunks, sparse
from zenray.batch.teacher_logits.reading.rows import take_rows
from zenray.batch.teacher_logits.reading.tail_prior import tail_prior
from zenray.batch.teacher_logits.records.codes import ZERO_CODE, decode_logprobs
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.engine.scoring import ScoredRows

names, seeds = st.sampled_from(["compact-24", "compact-48", "top-20"]), st.integers(0, 10_000)


def read_rows(name: str, seed: int, num_rows: int) -> tuple[ScoredRows, np.ndarray]:
    """Records as they are read, and the prior of their tails."""
    record_format, vocabulary = parse_format(name), random_vocabulary(seed)
    exact = random_rows(seed, num_rows, record_format.score_format)
    read = record_format.decode(record_format.encode(exact, vocabulary, seed), num_rows, vocabulary)
    return read, tail_prior(read, vocabulary)


@steady
@given(names, seeds, st.integers(1, 6))
def test_dense_rows_are_distributions_with_the_head_as_it_was_coded(name: str, seed: int, num_rows: int) -> None:
    rows, prior_V = read_rows(name, seed, num_rows)
    dense_RV = dense(rows, prior_V)
    assert dense_RV.shape == (num_rows, VOCAB_SIZE) and dense_RV.dtype == torch.float32
    assert torch.allclose(dense_RV.sum(1), torch.ones(num_rows), atol=1e-5)
    assert (dense_RV > 0).all()
    ends = np.cumsum(rows.head_counts_R)
    for row, (end, count) in enumerate(zip(ends, rows.head_counts_R, strict=True)):
        head_N = np.exp(rows.head_logprobs_N[end - count : end].astype(np.float64))
        total = head_N.sum() + rows.tail_masses_R[row]
        assert dense_RV[row].numpy()[rows.head_ids_N[end - count : end]] == pytest.approx(head_N / total, rel=1e-5)
        outside_V = np.ones(VOCAB_SIZE, bool)
        outside_V[rows.head_ids_N[end - count : end]] = False
        shares_V = dense_RV[row].numpy()[outside_V] / prior_V[outside_V]  # In proportion to the prior.
        assert shares_V == pytest.approx(np.full(outside_V.sum(), shares_V[0]), rel=1e-4)


@steady
@given(seeds, st.integers(1, 7))
def test_chunks_are_the_whole(seed: int, chunk_rows: int) -> None:
    rows, prior_V = read_rows("compact-48", seed, 5)
    assert torch.equal(torch.cat(list(dense_chunks(rows, prior_V, chunk_rows))), dense(rows, prior_V))


@steady
@given(names, seeds, st.integers(0, 6))
def test_sparse_rows_are_the_head_and_a_share_of_the_tail_for_every_draw(name: str, seed: int, num_rows: int) -> None:
    rows, _ = read_rows(name, seed, num_rows)
    found = sparse(rows)
    assert len(found.offsets) == num_rows + 1 and found.offsets[-1] == len(found.ids_M)
    for row in range(num_rows):
        part = slice(int(found.offsets[row]), int(found.offsets[row + 1]))
        got_V = np.bincount(found.ids_M[part], found.probabilities_M[part], minlength=VOCAB_SIZE)
        alone = take_rows(rows, row, row + 1)
        expected_V = np.bincount(alone.head_ids_N, np.exp(alone.head_logprobs_N), minlength=VOCAB_SIZE)
        if alone.tail_masses_R[0] > 0:
            for token_id in alone.tail_ids_RS[0]:
                expected_V[token_id] += alone.tail_masses_R[0] / 4
        assert got_V == pytest.approx(expected_V, rel=1e-5)


def test_whole_records_are_right_on_average() -> None:
    """From the teacher's draw to what a student reads, over many seeds and quantiles: within five standard errors."""
    num_redraws = 4000
    logits_V = random_logits(2, 1)[0] * 2
    p_V = np.exp(logits_V - np.logaddexp.reduce(logits_V))
    record_format, vocabulary = parse_format("compact-24"), random_vocabulary(1)
    uniforms_R = (np.arange(num_redraws) + 0.5) / num_redraws
    exact = rows_of(np.tile(logits_V, (num_redraws, 1)), np.zeros(num_redraws), uniforms_R, record_format.score_format)
    read = record_format.decode(record_format.encode(exact, vocabulary, 11), num_redraws, vocabulary)
    found = sparse(read)
    rows_M = torch.repeat_interleave(torch.arange(num_redraws), found.offsets.diff())
    estimates_RV = torch.zeros(num_redraws, VOCAB_SIZE)
    estimates_RV.index_put_((rows_M, found.ids_M), found.probabilities_M, accumulate=True)
    means_V, errors_V = estimates_RV.double().mean(0).numpy(), estimates_RV.double().std(0).numpy() / num_redraws**0.5
    assert (p_V > 1 / 1500).sum() < VOCAB_SIZE * 0.9  # Some are in the tail, some in the head.
    assert (np.abs(means_V - p_V) <= 5 * errors_V + 1e-6).all()


@settings(steady, max_examples=15)
@given(st.sampled_from(["compact-24", "compact-48"]), seeds)
def test_the_divergence_is_estimated_without_bias(name: str, seed: int) -> None:
    """The mean over the teacher's draws, of one record, is the divergence of the reconstruction from the full rows."""
    num_redraws = 2048
    record_format, vocabulary = parse_format(name), random_vocabulary(seed)
    logits_V = random_logits(seed, 1)[0]
    logp_V = logits_V - np.logaddexp.reduce(logits_V)
    uniforms_R = (np.arange(num_redraws) + 0.5) / num_redraws
    exact = rows_of(np.tile(logits_V, (num_redraws, 1)), np.zeros(num_redraws), uniforms_R, record_format.score_format)
    first = take_rows(exact, 0, 1)
    read = record_format.decode(record_format.encode(first, vocabulary, seed), 1, vocabulary)
    prior_V = tail_prior(read, vocabulary)
    divergence = (np.exp(logp_V) * (logp_V - np.log(dense(read, prior_V)[0].double().numpy()))).sum()
    repeated = replace(
        read,
        gold_logprobs_R=np.tile(read.gold_logprobs_R, num_redraws),
        entropies_R=np.tile(read.entropies_R, num_redraws),
        head_counts_R=np.tile(read.head_counts_R, num_redraws),
        head_ids_N=np.tile(read.head_ids_N, num_redraws),
        head_logprobs_N=np.tile(read.head_logprobs_N, num_redraws),
        tail_masses_R=np.tile(read.tail_masses_R, num_redraws),
        tail_ids_RS=np.tile(read.tail_ids_RS, (num_redraws, 1)),
    )
    assert kl_estimate(exact, repeated, prior_V).mean() == pytest.approx(divergence, abs=2e-3, rel=3e-3)


def test_a_divergence_without_draws_is_no_number_where_there_is_a_tail() -> None:
    exact = random_rows(1, 3, replace(parse_format("compact-24").score_format, num_tail_samples=0))
    assert (
        np.isnan(kl_estimate(exact, exact, random_vocabulary(1).prior_V)).tolist() == (exact.tail_masses_R > 0).tolist()
    )


def test_the_prior_knows_what_the_same_sequence_deems_possible() -> None:
    rows, prior_V = read_rows("compact-48", 1, 6)
    vocabulary = random_vocabulary(1)
    assert prior_V.sum() == pytest.approx(1) and prior_V.min() > 0
    in_heads_V = np.isin(np.arange(VOCAB_SIZE), rows.head_ids_N)
    assert (prior_V[~in_heads_V] < vocabulary.prior_V[~in_heads_V]).all()
    nothing = take_rows(rows, 0, 0)
    assert tail_prior(nothing, vocabulary) == pytest.approx(vocabulary.prior_V)


def test_entries_and_tails_that_were_coded_as_nothing_have_a_little_in_dense_rows() -> None:
    rows, prior_V = read_rows("compact-48", 1, 1)
    logprobs_N = rows.head_logprobs_N.copy()
    logprobs_N[1:] = decode_logprobs(np.full(len(logprobs_N) - 1, ZERO_CODE, np.uint8))
    empty = replace(rows, head_logprobs_N=logprobs_N, tail_masses_R=np.zeros(1, np.float32))
    dense_RV = dense(empty, prior_V)
    assert (dense_RV > 0).all() and torch.allclose(dense_RV.sum(1), torch.ones(1))
    assert len(sparse(empty).ids_M) == len(logprobs_N)
