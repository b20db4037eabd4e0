"""What a teacher says at every position, exactly: the reference that record formats are measured against.

The distributions are never stored. What of them any format can be judged by is: the most probable tokens as they are,
sums over all others, and sums of whole distributions over many rows. A part is one file and a few thousand rows; a pass
that was stopped goes on with the next.

Shapes: R rows of a part, Q sequences, V vocabulary, K tokens kept of a row, P priors, F formats, S samples of a tail,
N draws, J directions of the student's final state, D its width, X rows kept whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from zenray.batch.rows import derive_seed
from zenray.batch.teacher_logits.model import PackedSequence
from zenray.batch.teacher_logits.reading.tail_prior import tail_prior
from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.engine.noise import uniform
from zenray.engine.row_scorer import summaries
from zenray.engine.scoring import ScoredRows
from zenray.model.decoder import Decoder
from zenray.model.evaluate import BLOCK_SIZE, step_batch

NUM_KEPT = 256
"""Tokens kept of each row: as many as the widest format has."""
NUM_DRAWS = 1024
ENTROPY_EDGES = (0.01, 0.1, 0.3, 1.0, 2.0, 3.0, 4.0)
"""Nats, between the strata that rows kept whole are taken from, equally many of each."""
_KEPT_OF_STRATUM = 2
_STEP_TOKENS = 256
_CHUNK_ROWS = 64
JOB_SEED = 0
"""Of which the tail's draws are functions, as in a job."""


@dataclass(frozen=True, slots=True)
class ExactRows:
    """The rows of a part, in the order of their sequences.

    num_tokens_Q, num_scored_Q: int32, a sequence's tokens and those of them that are rows.
    gold_ids_R: int32, the token that stands there. entropies_R: float64, nats.
    top_ids_RK, top_logprobs_RK: int32 and float32, most probable first.
    rest_masses_R, rest_negentropies_R, rest_logpriors_RP: float64, over all other tokens v: the sums of p(v),
        p(v) log p(v) and p(v) log prior(v). Kept apart from the top so that nothing cancels where they are small.
    rest_tail_priors_RF: as rest_logpriors_RP, of the prior that a reader makes of a format's records of the sequence.
    head_counts_RF, tail_masses_RF, tail_ids_RFS: what a verifier answers, for every format.
    draws_RN: int32, drawn from the whole distribution with replacement.
    directions_RJ: float32, the student's final state along fixed random directions; the first column is 1.
    teacher_sums_JV: float32, the sum over rows of a direction times the distribution.
    whole_R: int64, the rows kept whole. whole_logits_XV, whole_student_XV: float32, their logits and the student's
        log-probs.
    """

    token_ids_T: np.ndarray
    row_ids_Q: np.ndarray
    num_tokens_Q: np.ndarray
    num_scored_Q: np.ndarray
    languages_R: np.ndarray
    gold_ids_R: np.ndarray
    gold_logprobs_R: np.ndarray
    entropies_R: np.ndarray
    top_ids_RK: np.ndarray
    top_logprobs_RK: np.ndarray
    rest_masses_R: np.ndarray
    rest_negentropies_R: np.ndarray
    rest_logpriors_RP: np.ndarray
    rest_tail_priors_RF: np.ndarray
    head_counts_RF: np.ndarray
    tail_masses_RF: np.ndarray
    tail_ids_RFS: np.ndarray
    draws_RN: np.ndarray
    directions_RJ: np.ndarray
    teacher_sums_JV: np.ndarray
    whole_R: np.ndarray
    whole_logits_XV: np.ndarray
    whole_student_XV: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.gold_ids_R)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{each.name: getattr(self, each.name) for each in fields(self)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> ExactRows:
        with np.load(path) as found:
            return cls(**{each.name: found[each.name] for each in fields(cls)})

    def sequences(self) -> Iterator[tuple[str, slice, slice]]:
        """The row id of each sequence, its tokens and its rows."""
        tokens, rows = 0, 0
        for row_id, num_tokens, num_rows in zip(self.row_ids_Q, self.num_tokens_Q, self.num_scored_Q, strict=True):
            yield str(row_id), slice(tokens, tokens + num_tokens), slice(rows, rows + num_rows)
            tokens, rows = tokens + num_tokens, rows + num_rows

    def scored(self, rows: slice, format_index: int) -> ScoredRows:
        """What verifiers answer for some rows, for one of the pass's formats."""
        return scored_rows({name: getattr(self, name)[rows] for name in _OF_RECORDS}, format_index)


_OF_RECORDS = (
    "gold_logprobs_R",
    "entropies_R",
    "top_ids_RK",
    "top_logprobs_RK",
    "head_counts_RF",
    "tail_masses_RF",
    "tail_ids_RFS",
)


def scored_rows(arrays: Mapping[str, np.ndarray], format_index: int) -> ScoredRows:
    """Of the arrays of `ExactRows` that are named so: a head is the first entries of the top."""
    counts_R = arrays["head_counts_RF"][:, format_index]
    in_head_RK = np.arange(arrays["top_ids_RK"].shape[1]) < counts_R[:, None]
    return ScoredRows(
        first_position=0,
        gold_logprobs_R=arrays["gold_logprobs_R"],
        entropies_R=arrays["entropies_R"].astype(np.float32),
        head_counts_R=counts_R,
        head_ids_N=arrays["top_ids_RK"][in_head_RK],
        head_logprobs_N=arrays["top_logprobs_RK"][in_head_RK],
        tail_masses_R=arrays["tail_masses_RF"][:, format_index],
        tail_ids_RS=arrays["tail_ids_RFS"][:, format_index],
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """Who is asked and what is kept. `formats` all draw equally many samples of tails; their records are encoded and
    read again, because what a reader takes for a tail is made of them. `other_priors_VP`: further priors, positive."""

    teacher: Decoder
    student: Decoder
    vocabulary: Vocabulary
    formats: Sequence[RecordFormat]
    other_priors_VP: np.ndarray
    num_directions: int

    def part(self, sequences: Sequence[PackedSequence], index: int, done: Callable[[int], None]) -> ExactRows:
        """The exact rows of some sequences; `index` tells parts apart where something is drawn, `done` hears how many
        rows each sequence gave."""
        rows = _Rows(self, index)
        for sequence in sequences:
            rows.add(sequence)
            done(sequence.num_scored)
        return rows.finish(sequences)


def code_rows(rows: ScoredRows, record_format: RecordFormat, vocabulary: Vocabulary, seed: int) -> ScoredRows:
    """What is read of records that were written."""
    return record_format.decode(record_format.encode(rows, vocabulary, seed), rows.num_rows, vocabulary)


def record_seed(row_id: str) -> int:
    """Of what is drawn when a sequence is encoded."""
    return derive_seed(JOB_SEED, row_id, "encode")


@dataclass(frozen=True, slots=True)
class _States:
    """Where the rows of a sequence come from, those of its segments end to end."""

    teacher_RD: torch.Tensor
    student_RD: torch.Tensor
    targets_R: torch.Tensor
    uniforms_R: torch.Tensor

    def chunks(self) -> Iterator[_States]:
        for at in range(0, len(self.targets_R), _CHUNK_ROWS):
            yield _States(*(getattr(self, each.name)[at : at + _CHUNK_ROWS] for each in fields(self)))


class _Rows:
    """A part that is being made."""

    def __init__(self, reference: Reference, index: int) -> None:
        self._reference = reference
        vocab_size = reference.teacher.config.vocab_size
        self._chance = torch.Generator().manual_seed(index)
        self._priors_VP = np.column_stack([reference.vocabulary.prior_V, reference.other_priors_VP])
        width = reference.student.config.hidden_size
        directions_DJ = torch.randn(width, reference.num_directions, generator=torch.Generator().manual_seed(0))
        self._directions_DJ = directions_DJ / np.sqrt(reference.num_directions)
        self._sums_JV = torch.zeros(1 + reference.num_directions, vocab_size)
        self._logits_RV = torch.empty(_CHUNK_ROWS, vocab_size)
        self._chances_RV = torch.empty(_CHUNK_ROWS, vocab_size)
        self._cumulated_RV = torch.empty(_CHUNK_ROWS, vocab_size, dtype=torch.float64)
        self._parts: dict[str, list[np.ndarray]] = {}
        self._left_of_stratum = np.full(len(ENTROPY_EDGES) + 1, _KEPT_OF_STRATUM)
        self._num_rows = 0

    @torch.inference_mode()
    def add(self, sequence: PackedSequence) -> None:
        states, logpriors_VP = self._states(sequence), torch.from_numpy(np.log(self._priors_VP)).float()
        begin = len(self._parts.get("top_ids_RK", ()))
        for chunk in states.chunks():
            self._chunk(chunk, logpriors_VP)
        ids_RK, scored = torch.from_numpy(np.concatenate(self._parts["top_ids_RK"][begin:])).long(), self._scored(begin)
        priors_VF = np.column_stack([self._tail_prior(sequence, place, rows) for place, rows in enumerate(scored)])
        self._second_look(states, ids_RK, torch.from_numpy(np.log(priors_VF)).float())

    def _states(self, sequence: PackedSequence) -> _States:
        reference, found = self._reference, []
        for number, segment in enumerate(sequence.segments):
            ids, first = segment.token_ids, segment.first_scored
            seed = derive_seed(JOB_SEED, sequence.row_id, "score", number)
            # The state at position t makes the distribution of the token at t + 1.
            states = [final_states(decoder, ids)[first - 1 : -1] for decoder in (reference.teacher, reference.student)]
            uniforms = [uniform(seed, position) for position in range(first, len(ids))]
            found.append((*states, torch.tensor(ids[first:]), torch.tensor(uniforms, dtype=torch.float64)))
        return _States(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _chunk(self, states: _States, logpriors_VP: torch.Tensor) -> None:
        reference, targets_R, uniforms_R = self._reference, states.targets_R, states.uniforms_R
        count, ops = len(targets_R), reference.teacher.ops
        logits_RV = reference.teacher.head(states.teacher_RD, self._logits_RV[:count])
        chances_RV = torch.softmax(logits_RV, dim=1, out=self._chances_RV[:count])
        top = ops.summarise(logits_RV, targets_R, uniforms_R, NUM_KEPT, 1.0, 0)
        top_ids_RK = top.head_ids_RK.long()
        # log-softmax where it is wanted: logits less one number a row.
        log_totals_R1 = logits_RV.gather(1, top_ids_RK[:, :1]) - chances_RV.gather(1, top_ids_RK[:, :1]).log()
        top_logprobs_RK = logits_RV.gather(1, top_ids_RK) - log_totals_R1
        directions_RJ = torch.cat([torch.ones(count, 1), states.student_RD.float() @ self._directions_DJ], dim=1)
        self._sums_JV.addmm_(directions_RJ.T, chances_RV)
        cumulated_RV = torch.cumsum(chances_RV, dim=1, dtype=torch.float64, out=self._cumulated_RV[:count])
        points_RN = torch.rand(count, NUM_DRAWS, generator=self._chance, dtype=torch.float64) * cumulated_RV[:, -1:]
        chances_RV.scatter_(1, top_ids_RK, 0.0)
        rest_masses_R = chances_RV.double().sum(dim=1)
        rest_negentropies_R = torch.linalg.vecdot(chances_RV, logits_RV).double() - log_totals_R1[:, 0] * rest_masses_R
        top_RK = top_logprobs_RK.double()
        entropies_R = -(top_RK.exp() * top_RK).sum(dim=1) - rest_negentropies_R
        formats = [summaries(ops, logits_RV, targets_R, uniforms_R, each.score_format) for each in reference.formats]
        self._keep_whole(logits_RV, states.student_RD, entropies_R.numpy())
        self._append(
            gold_ids_R=targets_R.int(),
            gold_logprobs_R=(logits_RV.gather(1, targets_R[:, None]) - log_totals_R1)[:, 0],
            entropies_R=entropies_R,
            top_ids_RK=top.head_ids_RK,
            top_logprobs_RK=top_logprobs_RK,
            rest_masses_R=rest_masses_R,
            rest_negentropies_R=rest_negentropies_R,
            rest_logpriors_RP=(chances_RV @ logpriors_VP).double(),
            head_counts_RF=torch.stack([each.head_counts_R for each in formats], dim=1),
            tail_masses_RF=torch.stack([each.tail_masses_R for each in formats], dim=1),
            tail_ids_RFS=torch.stack([each.tail_ids_RS for each in formats], dim=1),
            draws_RN=torch.searchsorted(cumulated_RV, points_RN, right=True).clamp_(max=logits_RV.shape[1] - 1).int(),
            directions_RJ=directions_RJ,
        )
        self._num_rows += count

    def _keep_whole(self, logits_RV: torch.Tensor, student_RD: torch.Tensor, entropies_R: np.ndarray) -> None:
        """At most one row of a stratum and chunk, so that they come from different places."""
        strata_R = np.searchsorted(ENTROPY_EDGES, entropies_R, side="right")
        for stratum, row in zip(*np.unique(strata_R, return_index=True), strict=True):
            if self._left_of_stratum[stratum]:
                self._left_of_stratum[stratum] -= 1
                student_1V = torch.log_softmax(self._reference.student.head(student_RD[row : row + 1]), dim=1)
                self._append(
                    whole_R=torch.tensor([self._num_rows + row]),
                    whole_logits_XV=logits_RV[row : row + 1].clone(),
                    whole_student_XV=student_1V,
                )

    def _scored(self, begin: int) -> list[ScoredRows]:
        """The rows of the sequence whose chunks stand from `begin` on, as each format has them."""
        of = {name: np.concatenate(self._parts[name][begin:]) for name in _OF_RECORDS}
        return [scored_rows(of, place) for place in range(len(self._reference.formats))]

    def _tail_prior(self, sequence: PackedSequence, place: int, rows: ScoredRows) -> np.ndarray:
        vocabulary = self._reference.vocabulary
        coded = code_rows(rows, self._reference.formats[place], vocabulary, record_seed(sequence.row_id))
        return tail_prior(coded, vocabulary)

    def _second_look(self, states: _States, ids_RK: torch.Tensor, logpriors_VF: torch.Tensor) -> None:
        """The sums that wait for what the whole sequence's heads are."""
        for chunk, chunk_ids_RK in zip(states.chunks(), torch.split(ids_RK, _CHUNK_ROWS), strict=True):
            logits_RV = self._reference.teacher.head(chunk.teacher_RD, self._logits_RV[: len(chunk_ids_RK)])
            chances_RV = torch.softmax(logits_RV, dim=1, out=self._chances_RV[: len(chunk_ids_RK)])
            chances_RV.scatter_(1, chunk_ids_RK, 0.0)
            self._append(rest_tail_priors_RF=(chances_RV @ logpriors_VF).double())

    def _append(self, **values: torch.Tensor) -> None:
        for name, value in values.items():
            self._parts.setdefault(name, []).append(value.numpy())

    def finish(self, sequences: Sequence[PackedSequence]) -> ExactRows:
        segments = [segment for each in sequences for segment in each.segments]
        return ExactRows(
            **{name: np.concatenate(parts) for name, parts in self._parts.items()},
            token_ids_T=np.concatenate([np.asarray(each.token_ids, np.int32) for each in segments]),
            row_ids_Q=np.array([each.row_id for each in sequences]),
            num_tokens_Q=np.array([each.num_tokens for each in sequences], np.int32),
            num_scored_Q=np.array([each.num_scored for each in sequences], np.int32),
            languages_R=np.array(
                [s.language for each in sequences for s in each.segments for _ in range(s.num_scored)]
            ),
            teacher_sums_JV=self._sums_JV.numpy(),
        )


def final_states(decoder: Decoder, token_ids: Sequence[int]) -> torch.Tensor:
    """The final norm's output [T, D] of a text."""
    caches = decoder.new_caches(-(-len(token_ids) // BLOCK_SIZE), BLOCK_SIZE)
    steps = (
        step_batch([(token_ids[start : start + _STEP_TOKENS], start)], max_tokens=len(token_ids))
        for start in range(0, len(token_ids), _STEP_TOKENS)
    )
    return torch.cat([decoder.states(step, caches).final_RD for step in steps])
