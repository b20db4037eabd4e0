"""What scoring asks of the engine and gets back: the model's distributions over given tokens, reduced where they arise.

A record stands for the distribution of the token at one position given all tokens before it. The row of logits it is
made of never leaves the device: the head (the most probable tokens) is kept as it is, what is left (the tail) by its
mass and a few draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

MAX_HEAD = 1024
MAX_TAIL_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class ScoreFormat:
    """What is kept of a distribution.

    The head is the smallest set of most probable tokens whose mass reaches `head_mass`, at most `max_head` of them
    (always `max_head` where `head_mass` is 1), without those less probable than `least_probability` but for the first:
    where the teacher is sure, entries that hardly matter would fill it. `num_tail_samples` tokens are drawn from the
    tail in proportion to their probabilities, by systematic sampling over ascending ids: sample i stands at the
    (i + u) / n quantile of the tail, u uniform in [0, 1) and the same for all (Madow 1949). Each then stands for 1/n of
    the tail's mass, and the expectation of that is the tail itself.
    """

    max_head: int = 48
    head_mass: float = 0.9975
    num_tail_samples: int = 4
    least_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Scoring:
    """Makes a request one to score its prompt, not to continue it.

    Positions from `first_scored` (1 at least: nothing predicts position 0) to the prompt's end get records. The draw
    at a position is a function of the request's seed and the position, whatever the batch, the chunks or the cache.
    `hidden_layers` are numbered as in transformers: 0 is the embeddings, L the residual stream behind layer L, and
    the number of layers the final norm's output.
    """

    format: ScoreFormat = field(default_factory=ScoreFormat)
    first_scored: int = 1
    hidden_layers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HiddenRows:
    """Hidden states [R, D] as int8 times one float32 scale [R] a row: the states that the records' distributions were
    computed from, so row r belongs to position `first_position + r - 1`."""

    values_RD: np.ndarray
    scales_R: np.ndarray


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Records of R consecutive positions from `first_position` on. N = sum of `head_counts_R`, S samples a row.

    gold_logprobs_R, entropies_R: float32, nats; of the token that stands there, and of the whole distribution.
    head_counts_R: int32; head_ids_N: int32 and head_logprobs_N: float32, row after row, most probable first (the lower
        id first among equals).
    tail_masses_R: float32, the mass outside the head, summed over the tail itself.
    tail_ids_RS: int32, ascending in a row, a token once for every draw that fell on it; all -1 where the tail has no
        mass.
    hidden: by layer, where it was asked for.
    """

    first_position: int
    gold_logprobs_R: np.ndarray
    entropies_R: np.ndarray
    head_counts_R: np.ndarray
    head_ids_N: np.ndarray
    head_logprobs_N: np.ndarray
    tail_masses_R: np.ndarray
    tail_ids_RS: np.ndarray
    hidden: Mapping[int, HiddenRows] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.gold_logprobs_R)

    @property
    def end_position(self) -> int:
        return self.first_position + self.num_rows


def join_rows(parts: Sequence[ScoredRows]) -> ScoredRows:
    """One run of records of several that follow each other. Raises ValueError where they do not."""
    for before, after in pairwise(parts):
        if after.first_position != before.end_position:
            raise ValueError(f"records go on at position {after.first_position}, not at {before.end_position}")
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return ScoredRows(
        first_position=parts[0].first_position,
        gold_logprobs_R=joined("gold_logprobs_R"),
        entropies_R=joined("entropies_R"),
        head_counts_R=joined("head_counts_R"),
        head_ids_N=joined("head_ids_N"),
        head_logprobs_N=joined("head_logprobs_N"),
        tail_masses_R=joined("tail_masses_R"),
        tail_ids_RS=joined("tail_ids_RS"),
        hidden={
            layer: HiddenRows(
                np.concatenate([part.hidden[layer].values_RD for part in parts]),
                np.concatenate([part.hidden[layer].scales_R for part in parts]),
            )
            for layer in parts[0].hidden
        },
    )


def split_rows(rows: ScoredRows, runs: Sequence[tuple[int, int]]) -> list[ScoredRows]:
    """The same records in runs, each given by its first position and how many rows it has. Views, no copies."""
    row_ends = np.cumsum([0, *(num_rows for _, num_rows in runs)]).tolist()
    assert row_ends[-1] == rows.num_rows, "every record is in one run"
    entry_ends = np.concatenate([[0], np.cumsum(rows.head_counts_R, dtype=np.int64)])[row_ends].tolist()
    parts = []
    for (first_position, _), of_rows, of_entries in zip(
        runs, map(slice, row_ends, row_ends[1:]), map(slice, entry_ends, entry_ends[1:]), strict=True
    ):
        part = ScoredRows(
            first_position=first_position,
            gold_logprobs_R=rows.gold_logprobs_R[of_rows],
            entropies_R=rows.entropies_R[of_rows],
            head_counts_R=rows.head_counts_R[of_rows],
            head_ids_N=rows.head_ids_N[of_entries],
            head_logprobs_N=rows.head_logprobs_N[of_entries],
            tail_masses_R=rows.tail_masses_R[of_rows],
            tail_ids_RS=rows.tail_ids_RS[of_rows],
            hidden={
                layer: HiddenRows(states.values_RD[of_rows], states.scales_R[of_rows])
                for layer, states in rows.hidden.items()
            },
        )
        parts.append(part)
    return parts
