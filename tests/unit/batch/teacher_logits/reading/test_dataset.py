"""A dump under training: every sequence once an epoch, wherever it is read, and on from where a run stopped."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.unit.batch.teacher_logits.records_examples import VOCAB_SIZE, steady, write_dump
from zenray.batch.teacher_logits.reading import dataset as dataset_module
from zenray.batch.teacher_logits.reading.batches import PADDING, TeacherBatch, collate
from zenray.batch.teacher_logits.reading.dataset import TeacherLogitsDataset
from zenray.batch.teacher_logits.reading.loss import sparse_cross_entropy
from zenray.batch.teacher_logits.reading.order import epoch_order
from zenray.batch.teacher_logits.reading.reader import RecordReader
from zenray.errors import InvalidRequest

NUM_SEQUENCES, ERRORS = 17, (4,)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dump") / "out"
    write_dump(folder, NUM_SEQUENCES, 3, with_error=ERRORS)
    return folder


def row_ids(batch: TeacherBatch) -> list[str]:
    return [sample.sequence.row_id for sample in batch.samples]


def batches(dataset: TeacherLogitsDataset, num_workers: int = 0) -> Iterator[TeacherBatch]:
    return iter(DataLoader(dataset, batch_size=2, num_workers=num_workers, collate_fn=collate))


@steady
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(0, 2**62),
    st.integers(0, 3),
    st.integers(1, 7),
    st.integers(1, 12),
)
def test_streams_share_all_places_and_differ_by_a_row_at_most(
    sizes: list[int], seed: int, epoch: int, num_streams: int, buffer_size: int
) -> None:
    shards = list(enumerate(sizes))
    orders = [epoch_order(shards, seed, epoch, each, num_streams, buffer_size) for each in range(num_streams)]
    assert sorted(chain(*orders)) == [(shard, row) for shard, size in shards for row in range(size)]
    assert max(map(len, orders)) - min(map(len, orders)) <= 1
    assert orders[0] == epoch_order(shards, seed, epoch, 0, num_streams, buffer_size)


def test_seed_and_epoch_choose_the_order_and_the_buffer_bounds_how_far_a_row_moves_up() -> None:
    shards = [(0, 50), (1, 50)]
    orders = [tuple(epoch_order(shards, seed, epoch, 0, 1, 10)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    stored = epoch_order(shards, 0, 0, 0, 1, 1)
    assert sorted(stored[:50]) == stored[:50] and sorted(stored[50:]) == stored[50:]
    for place, moved in enumerate(orders[0]):
        assert stored.index(moved) - place < 10


@pytest.mark.parametrize(("num_ranks", "num_workers"), [(1, 0), (3, 0), (2, 2)])
def test_every_sequence_comes_once_over_ranks_and_workers(output: Path, num_ranks: int, num_workers: int) -> None:
    found = []
    for rank in range(num_ranks):
        dataset = TeacherLogitsDataset(output, seed=1, buffer_size=4, rank=rank, num_ranks=num_ranks)
        found += [row_id for batch in batches(dataset, num_workers) for row_id in row_ids(batch)]
    assert sorted(found) == sorted(sequence.row_id for sequence in RecordReader(output))
    assert len(found) == NUM_SEQUENCES - len(ERRORS)


@pytest.mark.parametrize("stop", [0, 1, 3, 8])
def test_a_run_goes_on_with_the_samples_it_has_not_trained_on(output: Path, stop: int) -> None:
    """In the order in which it would have, from nothing but the state as JSON."""
    dataset = TeacherLogitsDataset(output, seed=1, buffer_size=5)
    dataset.set_epoch(3)
    whole = [row_ids(batch) for batch in batches(dataset)]
    for batch, _ in zip(batches(dataset), range(stop), strict=False):
        dataset.mark_trained(batch)
    state = json.loads(json.dumps(dataset.state_dict()))
    resumed = TeacherLogitsDataset(output, seed=1, buffer_size=5)
    resumed.load_state_dict(state)
    assert [row_ids(batch) for batch in batches(resumed)] == whole[stop:]
    assert resumed.state_dict() == state
    resumed.set_epoch(4)
    following = [row_id for batch in batches(resumed) for row_id in row_ids(batch)]
    assert sorted(following) == sorted(chain(*whole)) and following != list(chain(*whole))


@pytest.mark.parametrize("stop", [3, 4])
def test_what_workers_read_ahead_is_not_taken_for_trained_on(output: Path, stop: int) -> None:
    """And the worker whose turn it was goes first."""
    dataset = TeacherLogitsDataset(output, seed=1, buffer_size=5)
    whole = [row_ids(batch) for batch in batches(dataset, num_workers=2)]
    for batch, _ in zip(batches(dataset, num_workers=2), range(stop), strict=False):
        dataset.mark_trained(batch)
    resumed = TeacherLogitsDataset(output, seed=1, buffer_size=5)
    resumed.load_state_dict(dataset.state_dict())
    assert [row_ids(batch) for batch in batches(resumed, num_workers=2)] == whole[stop:]
    with pytest.raises(InvalidRequest, match="num_workers is 1; allowed: 2, as when the state was saved"):
        list(resumed)
    with pytest.raises(RuntimeError, match="num_workers is 1; allowed: 2, as when the state was saved"):
        list(batches(resumed, num_workers=1))


def test_a_state_of_another_order_is_refused(output: Path) -> None:
    state = TeacherLogitsDataset(output, seed=1).state_dict()
    for other in (TeacherLogitsDataset(output, seed=2), TeacherLogitsDataset(output, seed=1, num_ranks=2)):
        with pytest.raises(InvalidRequest, match="state is"):
            other.load_state_dict(state)
    for wrong in ({"rank": 1}, {"rank": -1}, {"buffer_size": 0}):
        with pytest.raises(InvalidRequest, match=next(iter(wrong))):
            TeacherLogitsDataset(output, **wrong)


def test_a_batch_has_every_token_and_target_at_its_place(output: Path) -> None:
    dataset = TeacherLogitsDataset(output, seed=1)
    batch = next(iter(DataLoader(dataset, batch_size=6, collate_fn=collate)))
    predicted, row = batch.token_ids_BT.flatten()[batch.predictors_R + 1], 0
    assert len(batch.scored_BT.nonzero()) == len(batch.predictors_R) == len(batch.ids_RK)
    for index, sample in enumerate(batch.samples):
        sequence = sample.sequence
        length = len(sequence.token_ids_T)
        assert batch.token_ids_BT[index, :length].tolist() == sequence.token_ids_T.tolist()
        assert (batch.segment_ids_BT[index, length:] == PADDING).all()
        for number, (segment, rows) in enumerate(sequence.by_segment()):
            at = batch.segment_ids_BT[index] == number
            assert batch.token_ids_BT[index, at].tolist() == list(segment.token_ids)
            assert batch.position_ids_BT[index, at].tolist() == list(range(len(segment.token_ids)))
            assert batch.scored_BT[index, at].tolist() == [
                each >= segment.first_scored for each in range(len(segment.token_ids))
            ]
            assert predicted[row : row + rows.num_rows].tolist() == list(segment.token_ids[segment.first_scored :])
            assert batch.entropies_R[row : row + rows.num_rows].tolist() == rows.entropies_R.tolist()
            row += rows.num_rows
    assert row == len(batch.predictors_R)


def test_dense_targets_are_those_of_the_sparse_ones_rows(output: Path) -> None:
    dataset = TeacherLogitsDataset(output, seed=1)
    batch = next(batches(dataset))
    dense_RV = torch.cat(list(batch.dense_chunks(dataset.vocabulary, 3)))
    sparse_RV = torch.zeros_like(dense_RV).scatter_add(1, batch.ids_RK, batch.probabilities_RK)
    assert dense_RV.shape == (len(batch.predictors_R), VOCAB_SIZE)
    sure_R = sparse_RV.amax(1) > 0.5
    assert 10 < sure_R.sum() < len(sure_R)
    assert torch.equal(dense_RV.argmax(1)[sure_R], sparse_RV.argmax(1)[sure_R])
    assert sparse_RV.sum(1).mean() == pytest.approx(1.0, abs=0.05)


def test_the_losss_gradient_is_the_students_probabilities_less_the_targets() -> None:
    torch.manual_seed(0)
    logits_RV = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    ids_RK = torch.randint(0, 12, (5, 7))  # Some of them twice.
    p_RK = torch.rand(5, 7)
    p_RK[:, 5:] = 0
    loss_R = sparse_cross_entropy(logits_RV, ids_RK, p_RK)
    target_RV = torch.zeros(5, 12, dtype=torch.float64).scatter_add(1, ids_RK, p_RK.double())
    assert torch.allclose(loss_R.double(), -(target_RV * torch.log_softmax(logits_RV, 1)).sum(1), atol=1e-5)
    (gradient_RV,) = torch.autograd.grad(loss_R.sum(), logits_RV)
    expected_RV = target_RV.sum(1, keepdim=True) * torch.softmax(logits_RV, 1) - target_RV
    assert torch.allclose(gradient_RV, expected_RV, atol=1e-5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_documented_training_loop_learns(output: Path, num_workers: int) -> None:
    """As it stands in the module's docstring, with a student that knows one distribution for all."""

    class Student(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits_V = torch.nn.Parameter(torch.zeros(VOCAB_SIZE))

        def forward(self, ids_BT: torch.Tensor, positions_BT: torch.Tensor, attend_BTT: torch.Tensor) -> torch.Tensor:
            assert attend_BTT.shape == (*ids_BT.shape, ids_BT.shape[1]) and positions_BT.shape == ids_BT.shape
            return self.logits_V.expand(*ids_BT.shape, VOCAB_SIZE)

    (example,) = re.findall(r"```python\n(.*?)```", inspect.getdoc(dataset_module) or "", re.DOTALL)
    student = Student()
    names = {
        "output": output,
        "num_workers": num_workers,
        "student": student,
        "optimizer": torch.optim.SGD(student.parameters(), lr=1.0),
        "TeacherLogitsDataset": TeacherLogitsDataset,
        "DataLoader": DataLoader,
        "collate": collate,
        "sparse_cross_entropy": sparse_cross_entropy,
        "torch": torch,
    }
    exec(example, names)
    every = collate(list(TeacherLogitsDataset(output)))
    before, after = (
        sparse_cross_entropy(logits_V.expand(len(every.ids_RK), -1), every.ids_RK, every.probabilities_RK).mean()
        for logits_V in (torch.zeros(VOCAB_SIZE), student.logits_V)
    )
    assert after < before - 0.01
    assert names["checkpoint"]["data"]["epoch"] == 1
    assert np.isfinite(names["loss"].item())
