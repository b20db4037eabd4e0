"""The dense format: the K most probable tokens of every position, as most published dumps have them. It drops the tail,
so what is trained on it is biased; it is here to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from zenray.batch.teacher_logits.records.planes import (
    NUM_RANK_PLANES,
    from_plane_columns,
    plane_columns,
    to_plane_columns,
)
from zenray.batch.teacher_logits.records.scalars import (
    decode_entropies,
    decode_gold_logprobs,
    encode_entropies,
    encode_gold_logprobs,
)
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.engine.scoring import ScoredRows, ScoreFormat
from zenray.errors import OutputDamaged

_COLUMNS = (
    "gold_logprobs",
    "entropies",
    *plane_columns("head_ranks", NUM_RANK_PLANES),
    *plane_columns("head_logprobs", 2),
)


@dataclass(frozen=True, slots=True)
class DenseFormat:
    """`top-K`: exactly K entries a row, log-probs as float16. No randomness; what is outside the head is known by its
    mass alone."""

    k: int

    @property
    def name(self) -> str:
        return f"top-{self.k}"

    @property
    def score_format(self) -> ScoreFormat:
        return ScoreFormat(max_head=self.k, head_mass=1.0, num_tail_samples=0)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        return tuple(pa.field(name, pa.binary(), nullable=False) for name in _COLUMNS)

    def encode(self, rows: ScoredRows, vocabulary: Vocabulary, seed: int) -> dict[str, bytes]:
        if (rows.head_counts_R != self._width(vocabulary)).any():
            raise ValueError(f"{self.name} has {self.k} entries a row; allowed: rows scored with its `score_format`")
        return {
            "gold_logprobs": encode_gold_logprobs(rows.gold_logprobs_R),
            "entropies": encode_entropies(rows.entropies_R),
            **to_plane_columns("head_ranks", vocabulary.ranks_V[rows.head_ids_N], NUM_RANK_PLANES),
            **to_plane_columns("head_logprobs", rows.head_logprobs_N.astype(np.float16).view(np.uint16), 2),
        }

    def decode(self, values: Mapping[str, bytes], num_rows: int, vocabulary: Vocabulary) -> ScoredRows:
        width = self._width(vocabulary)
        num_entries = num_rows * width
        bits_N = from_plane_columns("head_logprobs", values, 2, num_entries).astype(np.uint16)
        head_logprobs_N = bits_N.view(np.float16).astype(np.float32)
        if not (head_logprobs_N <= 0).all():  # Neither NaN.
            raise OutputDamaged("a log-prob above 0")
        head_mass_R = np.exp(head_logprobs_N.astype(np.float64)).reshape(num_rows, width).sum(axis=1)
        return ScoredRows(
            first_position=0,
            gold_logprobs_R=decode_gold_logprobs(values["gold_logprobs"], num_rows),
            entropies_R=decode_entropies(values["entropies"], num_rows),
            head_counts_R=np.full(num_rows, width, np.int32),
            head_ids_N=vocabulary.ids_at(from_plane_columns("head_ranks", values, NUM_RANK_PLANES, num_entries)),
            head_logprobs_N=head_logprobs_N,
            tail_masses_R=np.maximum(0.0, 1.0 - head_mass_R).astype(np.float32),
            tail_ids_RS=np.empty((num_rows, 0), np.int32),
        )

    def _width(self, vocabulary: Vocabulary) -> int:
        return min(self.k, vocabulary.size)
