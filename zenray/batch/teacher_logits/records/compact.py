"""The compact format: a coded head and an unbiased sample of the tail.

Every probability in it (head entries, tail mass) lies on the grid of `codes`, rounded at random so that its
expectation is the teacher's. Drawing a few tail tokens in proportion to their probabilities keeps the expectation of
the tail as well: random sampling KD (Anshumann et al., arXiv 2503.16870) for the tail alone, where the head needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from zenray.batch.teacher_logits.records.checks import ids_of_planes
from zenray.batch.teacher_logits.records.codes import (
    ENTROPY_STEPS_PER_NAT,
    GOLD_STEPS_PER_NAT,
    ZERO_CODE,
    decode_fixed_point,
    decode_logprobs,
    decode_probabilities,
    encode_fixed_point,
    encode_probabilities,
    uniforms,
)
from zenray.batch.teacher_logits.records.planes import NUM_RANK_PLANES, from_planes, octets, to_planes
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.engine.scoring import ScoredRows, ScoreFormat
from zenray.errors import OutputDamaged

_COLUMNS = (
    "gold_logprobs",
    "entropies",
    "head_counts",
    "head_ranks",
    "head_codes",
    "tail_mass_codes",
    "tail_ranks",
)


@dataclass(frozen=True, slots=True)
class CompactFormat:
    """`compact-48` and `compact-24`: at most that many head entries."""

    max_head: int

    @property
    def name(self) -> str:
        return f"compact-{self.max_head}"

    @property
    def score_format(self) -> ScoreFormat:
        return ScoreFormat(max_head=self.max_head)

    @property
    def fields(self) -> tuple[pa.Field, ...]:
        return tuple(pa.field(name, pa.binary(), nullable=False) for name in _COLUMNS)

    def encode(self, rows: ScoredRows, vocabulary: Vocabulary, seed: int) -> dict[str, bytes]:
        num_entries, num_rows = len(rows.head_ids_N), rows.num_rows
        uniforms_M = uniforms(seed, num_entries + num_rows)
        head_codes_N = encode_probabilities(np.exp(rows.head_logprobs_N.astype(np.float64)), uniforms_M[:num_entries])
        drawn_R = (rows.tail_ids_RS >= 0).all(axis=1)
        mass_codes_R = encode_probabilities(np.where(drawn_R, rows.tail_masses_R, 0.0), uniforms_M[num_entries:])
        # Draws stand for nothing where there is no mass, and zeros cost nothing.
        tail_ranks_RS = np.where((mass_codes_R != ZERO_CODE)[:, None], vocabulary.ranks_V[rows.tail_ids_RS], 0)
        return {
            "gold_logprobs": to_planes(encode_fixed_point(-rows.gold_logprobs_R, GOLD_STEPS_PER_NAT), 2),
            "entropies": to_planes(encode_fixed_point(rows.entropies_R, ENTROPY_STEPS_PER_NAT), 2),
            "head_counts": rows.head_counts_R.astype(np.uint8).tobytes(),
            "head_ranks": to_planes(vocabulary.ranks_V[rows.head_ids_N], NUM_RANK_PLANES),
            "head_codes": head_codes_N.tobytes(),
            "tail_mass_codes": mass_codes_R.tobytes(),
            "tail_ranks": to_planes(tail_ranks_RS, NUM_RANK_PLANES),
        }

    def decode(self, values: Mapping[str, bytes], num_rows: int, vocabulary: Vocabulary) -> ScoredRows:
        head_counts_R = octets(values["head_counts"], num_rows).astype(np.int32)
        if num_rows and not (head_counts_R.min() >= 1 and head_counts_R.max() <= self.max_head):
            raise OutputDamaged(f"a head has other than 1 to {self.max_head} entries")
        num_entries, num_samples = int(head_counts_R.sum()), self.score_format.num_tail_samples
        mass_codes_R = octets(values["tail_mass_codes"], num_rows)
        tail_ids_RS = ids_of_planes(values["tail_ranks"], num_rows * num_samples, vocabulary)
        tail_ids_RS = np.sort(tail_ids_RS.reshape(num_rows, num_samples), axis=1)
        tail_ids_RS[mass_codes_R == ZERO_CODE] = -1
        return ScoredRows(
            first_position=0,
            gold_logprobs_R=-decode_fixed_point(from_planes(values["gold_logprobs"], 2, num_rows), GOLD_STEPS_PER_NAT),
            entropies_R=decode_fixed_point(from_planes(values["entropies"], 2, num_rows), ENTROPY_STEPS_PER_NAT),
            head_counts_R=head_counts_R,
            head_ids_N=ids_of_planes(values["head_ranks"], num_entries, vocabulary),
            head_logprobs_N=decode_logprobs(octets(values["head_codes"], num_entries)),
            tail_masses_R=decode_probabilities(mass_codes_R).astype(np.float32),
            tail_ids_RS=tail_ids_RS,
        )
