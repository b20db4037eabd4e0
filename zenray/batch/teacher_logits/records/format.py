"""The one interface of record formats: what a verifier is asked for, and what becomes of it on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa

from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.engine.scoring import ScoredRows, ScoreFormat


class RecordFormat(Protocol):
    """How the records of one sequence are written. All randomness comes from the seed given to `encode`."""

    @property
    def name(self) -> str:
        """As a user writes it, `compact-48` or `top-50`; `parse_format` reads it."""
        ...

    @property
    def score_format(self) -> ScoreFormat:
        """What verifiers are asked for."""
        ...

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        """Its columns: one binary value a sequence each."""
        ...

    def encode(self, rows: ScoredRows, vocabulary: Vocabulary, seed: int) -> dict[str, bytes]:
        """A value for every field."""
        ...

    def decode(self, values: Mapping[str, bytes], num_rows: int, vocabulary: Vocabulary) -> ScoredRows:
        """The records as they were written: coded numbers in place of exact ones, positions counted from 0.

        Raises OutputDamaged for values that no `encode` gives.
        """
        ...
