"""Final states to records: the same whatever rows are done together, in memory that does not grow with the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zenray.engine import row_scorer
from zenray.engine.row_scorer import RowScorer
from zenray.engine.scoring import ScoredRows, ScoreFormat
from zenray.model.decoder import Decoder
from zenray.model.load import load_preset
from zenray.ops.build import KernelsUnavailable
from zenray.ops.native import kernels

FORMAT = ScoreFormat(max_head=6, head_mass=0.5, num_tail_samples=3)
NUM_ROWS = 23


@pytest.fixture(scope="module")
def compiled_decoder() -> Decoder:
    try:
        kernels()
    except KernelsUnavailable as error:
        pytest.skip(str(error))
    return load_preset("tiny", seed=1, dtype=torch.bfloat16).decoder


@pytest.fixture(scope="module")
def exact_decoder() -> Decoder:
    return load_preset("tiny", seed=1, dtype=torch.float64).decoder


def states_and_draws(decoder: Decoder) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    states_RD = torch.from_numpy(chance.normal(size=(NUM_ROWS, decoder.config.hidden_size)) * 4)
    targets_R = chance.integers(decoder.config.vocab_size, size=NUM_ROWS)
    return states_RD.to(decoder.dtype), targets_R, chance.random(NUM_ROWS)


def as_bytes(records: ScoredRows, rows: slice) -> list[bytes]:
    ends_R = records.head_counts_R.cumsum()
    starts_R = ends_R - records.head_counts_R
    start, stop, _ = rows.indices(records.num_rows)
    heads = slice(starts_R[start], ends_R[stop - 1])
    return [
        records.gold_logprobs_R[rows].tobytes(),
        records.entropies_R[rows].tobytes(),
        records.head_counts_R[rows].tobytes(),
        records.head_ids_N[heads].tobytes(),
        records.head_logprobs_N[heads].tobytes(),
        records.tail_masses_R[rows].tobytes(),
        records.tail_ids_RS[rows].tobytes(),
    ]


@pytest.mark.parametrize("chunk_rows", [1, 4, 22])
def test_records_do_not_depend_on_the_chunk_nor_on_the_rows_beside(compiled_decoder: Decoder, chunk_rows: int) -> None:
    states_RD, targets_R, uniforms_R = states_and_draws(compiled_decoder)
    whole = RowScorer(compiled_decoder).score(states_RD, targets_R, uniforms_R, FORMAT, 1)
    chunked = RowScorer(compiled_decoder, chunk_rows)
    assert as_bytes(chunked.score(states_RD, targets_R, uniforms_R, FORMAT, 1), slice(None)) == as_bytes(
        whole, slice(None)
    )
    part = slice(5, 12)  # and what an earlier call left in the buffer is nobody's
    assert as_bytes(
        chunked.score(states_RD[part], targets_R[part], uniforms_R[part], FORMAT, 1), slice(None)
    ) == as_bytes(whole, part)


def test_records_are_the_distributions_of_the_states(exact_decoder: Decoder) -> None:
    states_RD, targets_R, uniforms_R = states_and_draws(exact_decoder)
    records = RowScorer(exact_decoder, chunk_rows=7).score(states_RD, targets_R, uniforms_R, FORMAT, first_position=9)
    assert (records.first_position, records.num_rows) == (9, NUM_ROWS)
    logprobs_RV = torch.log_softmax(exact_decoder.head(states_RD), dim=1).numpy()
    np.testing.assert_allclose(records.gold_logprobs_R, logprobs_RV[np.arange(NUM_ROWS), targets_R], rtol=1e-6)
    np.testing.assert_allclose(records.entropies_R, -(np.exp(logprobs_RV) * logprobs_RV).sum(axis=1), rtol=1e-6)
    rows_N = np.repeat(np.arange(NUM_ROWS), records.head_counts_R)
    np.testing.assert_allclose(records.head_logprobs_N, logprobs_RV[rows_N, records.head_ids_N], rtol=1e-6)
    head_R = np.bincount(rows_N, np.exp(records.head_logprobs_N), minlength=NUM_ROWS)
    np.testing.assert_allclose(head_R + records.tail_masses_R, 1, rtol=1e-6)
    assert bool(((head_R >= FORMAT.head_mass - 1e-6) | (records.head_counts_R == FORMAT.max_head)).all())
    for name, kind in (("gold_logprobs_R", np.float32), ("head_ids_N", np.int32), ("tail_ids_RS", np.int32)):
        assert getattr(records, name).dtype == kind
    assert records.hidden == {}


def test_no_more_logits_exist_at_once_than_the_buffer_holds(
    compiled_decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    row_bytes = compiled_decoder.config.vocab_size * 4
    monkeypatch.setattr(row_scorer, "MAX_BUFFER_MIB", 1)
    buffers: list[tuple[int, int]] = []
    head = compiled_decoder.head

    def watched(states_RD: torch.Tensor, out_RV: torch.Tensor) -> torch.Tensor:
        buffers.append((out_RV.data_ptr(), out_RV.nbytes))
        return head(states_RD, out_RV)

    monkeypatch.setattr(compiled_decoder, "head", watched)
    scorer = RowScorer(compiled_decoder, chunk_rows=10_000)
    states_RD, targets_R, uniforms_R = states_and_draws(compiled_decoder)
    many = -(-(3 << 20) // (row_bytes * NUM_ROWS))
    records = scorer.score(
        states_RD.repeat(many, 1), np.tile(targets_R, many), np.tile(uniforms_R, many), FORMAT, first_position=1
    )
    assert records.num_rows == many * NUM_ROWS
    assert len(buffers) >= 3
    assert len({address for address, _ in buffers}) == 1
    assert max(num_bytes for _, num_bytes in buffers) <= 1 << 20
