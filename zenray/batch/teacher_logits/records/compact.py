"""The compact format: a coded head and an unbiased sample of the tail.

Every probability in it (head entries, tail mass) lies on the grid of `codes`, rounded at random so that its
expectation is the teacher's. Drawing a few tail tokens in proportion to their probabilities keeps the expectation of
the tail as well: random sampling KD (Anshumann et al., arXiv 2503.16870) for the tail alone, where the head needs none.

What lies where was chosen by bytes after zstd, on records of the 1.5B. The most probable token stands first, the others
by their codes, equal ones by rank; codes are differences along a head, and ranks of equal codes as well. That takes
a tenth off heads whose entries stand in the teacher's order with plain codes. Draws are sorted by rank, as differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from zenray.batch.teacher_logits.records.codes import (
    ZERO_CODE,
    decode_logprobs,
    decode_probabilities,
    encode_probabilities,
    uniforms,
)
from zenray.batch.teacher_logits.records.planes import (
    NUM_RANK_PLANES,
    from_plane_columns,
    octets,
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

LEAST_PROBABILITY = 1 / 3500
"""Of a head entry: it costs two bytes, and at that probability buys about 0.002 nats."""
NUM_TAIL_SAMPLES = 4

_COLUMNS = (
    "gold_logprobs",
    "entropies",
    "head_counts",
    *plane_columns("head_ranks", NUM_RANK_PLANES),
    "head_codes",
    "tail_mass_codes",
    *plane_columns("tail_ranks", NUM_RANK_PLANES),
)


@dataclass(frozen=True, slots=True)
class CompactFormat:
    """`compact-255`: at most 255 head entries. What ends most heads is `LEAST_PROBABILITY`."""

    max_head: int

    @property
    def name(self) -> str:
        return f"compact-{self.max_head}"

    @property
    def score_format(self) -> ScoreFormat:
        return ScoreFormat(self.max_head, 1.0, NUM_TAIL_SAMPLES, LEAST_PROBABILITY)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        return tuple(pa.field(name, pa.binary(), nullable=False) for name in _COLUMNS)

    def encode(self, rows: ScoredRows, vocabulary: Vocabulary, seed: int) -> dict[str, bytes]:
        num_rows = rows.num_rows
        uniforms_M = uniforms(seed, num_rows + len(rows.head_ids_N))
        mass_codes_R = encode_probabilities(rows.tail_masses_R, uniforms_M[:num_rows])
        probabilities_N = np.exp(rows.head_logprobs_N.astype(np.float64))
        head_codes_N = encode_probabilities(probabilities_N, uniforms_M[num_rows:])
        head_ranks_N = vocabulary.ranks_V[rows.head_ids_N]
        first_N = first_of_rows(rows.head_counts_R)
        order_N = np.lexsort((head_ranks_N, head_codes_N, ~first_N, np.cumsum(first_N)))
        head_ranks_N, head_codes_N = head_ranks_N[order_N], head_codes_N[order_N]
        head_steps_N = to_steps(head_ranks_N, _first_of_ties(head_codes_N, first_N))
        # Draws stand for nothing where there is no mass, and zeros cost nothing.
        drawn_R1 = (mass_codes_R != ZERO_CODE)[:, None]
        tail_ranks_RS = np.sort(np.where(drawn_R1, vocabulary.ranks_V[rows.tail_ids_RS], 0), axis=1)
        tail_steps_SR = np.diff(tail_ranks_RS, axis=1, prepend=0).T
        return {
            "gold_logprobs": encode_gold_logprobs(rows.gold_logprobs_R),
            "entropies": encode_entropies(rows.entropies_R),
            "head_counts": rows.head_counts_R.astype(np.uint8).tobytes(),
            **to_plane_columns("head_ranks", head_steps_N, NUM_RANK_PLANES),
            "head_codes": to_steps(head_codes_N, first_N).astype(np.uint8).tobytes(),
            "tail_mass_codes": mass_codes_R.tobytes(),
            **to_plane_columns("tail_ranks", tail_steps_SR.reshape(-1), NUM_RANK_PLANES),
        }

    def decode(self, values: Mapping[str, bytes], num_rows: int, vocabulary: Vocabulary) -> ScoredRows:
        head_counts_R = octets(values["head_counts"], num_rows).astype(np.int32)
        if num_rows and not (head_counts_R.min() >= 1 and head_counts_R.max() <= self.max_head):
            raise OutputDamaged(f"a head has other than 1 to {self.max_head} entries")
        num_entries, num_samples = int(head_counts_R.sum()), NUM_TAIL_SAMPLES
        mass_codes_R = octets(values["tail_mass_codes"], num_rows)
        steps_SR = from_plane_columns("tail_ranks", values, NUM_RANK_PLANES, num_samples * num_rows)
        tail_ranks_RS = np.cumsum(steps_SR.reshape(num_samples, num_rows).T, axis=1)
        tail_ids_RS = np.sort(vocabulary.ids_at(tail_ranks_RS), axis=1)
        tail_ids_RS[mass_codes_R == ZERO_CODE] = -1
        first_N = first_of_rows(head_counts_R)
        head_codes_N = from_steps(octets(values["head_codes"], num_entries), first_N).astype(np.uint8)
        head_steps_N = from_plane_columns("head_ranks", values, NUM_RANK_PLANES, num_entries)
        head_ranks_N = from_steps(head_steps_N, _first_of_ties(head_codes_N, first_N))
        return ScoredRows(
            first_position=0,
            gold_logprobs_R=decode_gold_logprobs(values["gold_logprobs"], num_rows),
            entropies_R=decode_entropies(values["entropies"], num_rows),
            head_counts_R=head_counts_R,
            head_ids_N=vocabulary.ids_at(head_ranks_N),
            head_logprobs_N=decode_logprobs(head_codes_N),
            tail_masses_R=decode_probabilities(mass_codes_R).astype(np.float32),
            tail_ids_RS=tail_ids_RS,
        )


def to_steps(values_N: np.ndarray, first_N: np.ndarray) -> np.ndarray:
    """int64 [N]: the first value of each run as it is, every other less the one before it."""
    values_N = values_N.astype(np.int64)
    steps_N: np.ndarray = np.where(first_N, values_N, np.diff(values_N, prepend=0))
    return steps_N


def from_steps(steps_N: np.ndarray, first_N: np.ndarray) -> np.ndarray:
    """int64 [N]: the values again."""
    sums_N = np.cumsum(steps_N, dtype=np.int64)
    values_N: np.ndarray = sums_N - (sums_N - steps_N)[first_N][np.cumsum(first_N) - 1]
    return values_N


def first_of_rows(counts_R: np.ndarray) -> np.ndarray:
    """bool [N]: which entries begin a row, of rows that all have some."""
    first_N = np.zeros(counts_R.sum(), bool)
    first_N[np.cumsum(counts_R) - counts_R] = True
    return first_N


def _first_of_ties(codes_N: np.ndarray, first_N: np.ndarray) -> np.ndarray:
    """bool [N]: which entries begin a run of equal codes behind a row's first entry, which is in none."""
    second_N = np.append(False, first_N)[:-1]
    is_first_N: np.ndarray = first_N | second_N | (np.diff(codes_N, prepend=np.uint8(0)) != 0)
    return is_first_N
