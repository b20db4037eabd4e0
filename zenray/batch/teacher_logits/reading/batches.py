"""Sequences as padded torch batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zenray.batch.teacher_logits.reading.reader import RecordedSequence
from zenray.batch.teacher_logits.reading.reconstruct import dense_chunks, sparse
from zenray.batch.teacher_logits.reading.tail_prior import tail_prior
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary

PADDING = -1
"""The segment id of positions that no token stands at."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sequence, and where it comes in its epoch: at `position` of stream `stream` of `num_streams`, one for each
    worker of each rank."""

    sequence: RecordedSequence
    stream: int
    num_streams: int
    position: int


@dataclass(frozen=True, slots=True)
class TeacherBatch:
    """B sequences padded to T tokens, and what the teacher says of the R tokens among them that have records.

    token_ids_BT, position_ids_BT: int64, 0 where padded; positions count within a segment, as the teacher read it.
    segment_ids_BT: int64, from 0 in every sequence, `PADDING` where padded. A token attends to those before it of its
        own segment.
    scored_BT: bool, where a token has a record.
    predictors_R: int64, rows of a student's logits [B * T, V] that predict those tokens, in their order: one before.
    ids_RK, probabilities_RK: int64 and float32, the sparse targets, without bias and not normalised, padded with
        probability 0.
    gold_logprobs_R, entropies_R: float32, of the teacher, nats.
    samples: what it is made of.
    """

    token_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    segment_ids_BT: torch.Tensor
    scored_BT: torch.Tensor
    predictors_R: torch.Tensor
    ids_RK: torch.Tensor
    probabilities_RK: torch.Tensor
    gold_logprobs_R: torch.Tensor
    entropies_R: torch.Tensor
    samples: tuple[Sample, ...]

    def dense_chunks(self, vocabulary: Vocabulary, chunk_rows: int) -> Iterator[torch.Tensor]:
        """The dense targets, float32 [at most `chunk_rows`, V], in the order of `predictors_R`; a chunk does not reach
        beyond its sequence."""
        for sample in self.samples:
            rows = sample.sequence.rows
            yield from dense_chunks(rows, tail_prior(rows, vocabulary), chunk_rows)


def collate(samples: Sequence[Sample]) -> TeacherBatch:
    """The `collate_fn` of a DataLoader."""
    sequences = [sample.sequence for sample in samples]
    shape = len(sequences), max(len(sequence.token_ids_T) for sequence in sequences)
    token_ids_BT, position_ids_BT = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    segment_ids_BT, scored_BT = np.full(shape, PADDING, np.int64), np.zeros(shape, bool)
    for index, sequence in enumerate(sequences):
        lengths = [len(segment.token_ids) for segment in sequence.segments]
        num_tokens = sum(lengths)
        token_ids_BT[index, :num_tokens] = sequence.token_ids_T
        position_ids_BT[index, :num_tokens] = np.concatenate([np.arange(length) for length in lengths])
        segment_ids_BT[index, :num_tokens] = np.repeat(np.arange(len(lengths)), lengths)
        scored_BT[index, sequence.scored_positions_R] = True
    ids_RK, probabilities_RK = _padded_targets(sequences)
    return TeacherBatch(
        token_ids_BT=torch.from_numpy(token_ids_BT),
        position_ids_BT=torch.from_numpy(position_ids_BT),
        segment_ids_BT=torch.from_numpy(segment_ids_BT),
        scored_BT=torch.from_numpy(scored_BT),
        predictors_R=torch.from_numpy(np.flatnonzero(scored_BT) - 1),
        ids_RK=ids_RK,
        probabilities_RK=probabilities_RK,
        gold_logprobs_R=torch.from_numpy(np.concatenate([each.rows.gold_logprobs_R for each in sequences])),
        entropies_R=torch.from_numpy(np.concatenate([each.rows.entropies_R for each in sequences])),
        samples=tuple(samples),
    )


def _padded_targets(sequences: Sequence[RecordedSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    found = [sparse(sequence.rows) for sequence in sequences]
    counts_R = torch.cat([each.offsets.diff() for each in found])
    inside_RK = torch.arange(int(counts_R.max())) < counts_R[:, None] if len(counts_R) else torch.empty((0, 0)).bool()
    ids_RK, probabilities_RK = torch.zeros(inside_RK.shape, dtype=torch.int64), torch.zeros(inside_RK.shape)
    ids_RK[inside_RK] = torch.cat([each.ids_M for each in found])
    probabilities_RK[inside_RK] = torch.cat([each.probabilities_M for each in found])
    return ids_RK, probabilities_RK
