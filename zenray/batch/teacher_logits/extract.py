"""The stage that asks the teacher: a planned row becomes one with records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zenray.api.validate_scoring import MAX_RECORD_BYTES, max_record_bytes
from zenray.batch.job import Generator
from zenray.batch.rows import Row, derive_seed
from zenray.batch.teacher_logits.codec import from_row
from zenray.batch.teacher_logits.model import PackedSequence, Segment
from zenray.batch.teacher_logits.reading.fidelity import kl_estimate
from zenray.batch.teacher_logits.reading.tail_prior import tail_prior
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.sequence import encode_hidden, encode_sequence
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.batch.teacher_logits.results.record import scored_row
from zenray.batch.teacher_logits.results.statistics import ScoredSegment
from zenray.engine.request import GenerateRequest, Priority
from zenray.engine.scoring import ScoredRows, Scoring, join_rows, split_rows
from zenray.errors import InvalidRequest

_FEWEST_TAIL_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class ExtractPlan:
    """What of the job a worker needs. `vocabulary` as `Vocabulary.to_bytes` gives it."""

    job_seed: int
    window_tokens: int
    format_name: str
    hidden_layers: tuple[int, ...]
    vocabulary: bytes


class ExtractStage:
    """A `zenray.batch.job.Stage`. All segments of a row are asked for at once; what becomes of them is a function of
    the row, the plan and the teacher."""

    def __init__(self, plan: ExtractPlan) -> None:
        self._plan = plan
        self._format = parse_format(plan.format_name)
        kept = self._format.score_format
        # Draws from the tail tell what a format that keeps none of it loses.
        self._asked = replace(kept, num_tail_samples=max(kept.num_tail_samples, _FEWEST_TAIL_SAMPLES))
        self._vocabulary = Vocabulary.from_bytes(plan.vocabulary)
        self._generator: Generator | None = None

    async def open(self, generator: Generator | None) -> None:
        """Raises InvalidRequest for layers that the teacher does not have, a head longer than its vocabulary, and
        windows with more records than a request may ask for: of the whole job, not of every row."""
        assert generator is not None, "the plan of this stage asks for the model"
        scoring = Scoring(self._asked, 1, self._plan.hidden_layers)
        found = await generator.score((0, 0), scoring, seed=0)
        width = next((states.values_RD.shape[1] for states in found.hidden.values()), 0)
        longest = GenerateRequest.to_score("", [0] * self._plan.window_tokens, scoring, 0, Priority.BATCH)
        if (num_bytes := max_record_bytes(longest, width)) > MAX_RECORD_BYTES:
            raise InvalidRequest.of(
                "window_tokens",
                self._plan.window_tokens,
                f"fewer tokens: a request may have {MAX_RECORD_BYTES:,} bytes of records, these in {self._format.name} "
                f"with {len(scoring.hidden_layers)} hidden layers up to {num_bytes:,}",
            )
        self._generator = generator

    async def process(self, row: Row) -> Row:
        """Raises InvalidRequest for what the teacher cannot score, which becomes the row's error."""
        sequence = from_row(row)
        answers = await asyncio.gather(
            *(self._score(sequence.row_id, index, each) for index, each in enumerate(sequence.segments)),
            return_exceptions=True,
        )
        parts = []
        for answer in answers:  # Of several errors the first segment's: which came first is chance.
            if isinstance(answer, BaseException):
                raise answer
            parts.append(answer)
        # On a thread: the answers of other rows go on arriving meanwhile.
        return await asyncio.to_thread(self._encoded, sequence, parts)

    async def close(self) -> None:
        self._generator = None

    async def _score(self, row_id: str, index: int, segment: Segment) -> ScoredRows:
        assert self._generator is not None, "open comes first"
        scoring = Scoring(self._asked, segment.first_scored, self._plan.hidden_layers)
        seed = derive_seed(self._plan.job_seed, row_id, "score", index)
        rows = await self._generator.score(segment.token_ids, scoring, seed)
        assert rows.first_position == segment.first_scored and rows.num_rows == segment.num_scored, "whole answers only"
        return rows

    def _encoded(self, sequence: PackedSequence, parts: Sequence[ScoredRows]) -> Row:
        rows = _end_to_end(parts)
        token_ids_T = np.concatenate([np.asarray(segment.token_ids) for segment in sequence.segments])
        seed = derive_seed(self._plan.job_seed, sequence.row_id, "encode")
        values = encode_sequence(sequence.row_id, token_ids_T, rows, self._format, self._vocabulary, seed)
        decoded = self._format.decode(values, rows.num_rows, self._vocabulary)
        kl_R = kl_estimate(rows, decoded, tail_prior(decoded, self._vocabulary))
        coded = split_rows(decoded, [(part.first_position, part.num_rows) for part in parts])
        ends = np.cumsum([part.num_rows for part in parts])
        segments = list(map(ScoredSegment, parts, coded, np.split(kl_R, ends[:-1])))
        hidden = encode_hidden(sequence.row_id, rows.hidden) if self._plan.hidden_layers else None
        return scored_row(sequence, values, segments, hidden)


def _end_to_end(parts: Sequence[ScoredRows]) -> ScoredRows:
    """The records of several segments as one run."""
    placed, at = [], 0
    for part in parts:
        placed.append(replace(part, first_position=at))
        at += part.num_rows
    return join_rows(placed)
