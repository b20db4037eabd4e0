"""What is kept of a sequence for the report, while the teacher's own records are at hand.

What a record format loses (Kullback-Leibler divergences) can be told then and never again; the rest is kept beside it
so that a report reads a few columns and decodes nothing. Sums are kept by segment, so that they can be told apart by
language and mode; histograms by sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from zenray.engine.scoring import ScoredRows

KL_EDGES = np.array([float(f"{10 ** (step / 16 - 6):.6g}") for step in range(7 * 16 + 1)])
"""Nats; 16 bins a decade tell a quantile to 7 %. Bin 0 is below the first edge, the last one above the last. Of few
digits, to be the same on every machine."""
ENTROPY_EDGES = np.arange(1, 97) / 8
"""Nats; the entropy of 160,000 equally probable tokens is 12."""
HEAD_EDGES = np.arange(1, 65)
"""Entries: bin i holds heads of exactly i, the last one longer ones."""

KL_HISTOGRAM, ENTROPY_HISTOGRAM, HEAD_HISTOGRAM = "kl_histogram", "entropy_histogram", "head_size_histogram"
KL_MAX = "kl_max"
KL_SUMS, NLL_SUMS, ENTROPY_SUMS = "segment_kl_sums", "segment_nll_sums", "segment_entropy_sums"
TAIL_MASS_SUMS, HEAD_ENTRIES = "segment_tail_mass_sums", "segment_head_entries"

_DECIMALS = 6

_COUNTS, _SUMS = pa.list_(pa.int32()), pa.list_(pa.float64())

STATISTICS_FIELDS: tuple[pa.Field, ...] = (
    pa.field(KL_HISTOGRAM, _COUNTS),
    pa.field(KL_MAX, pa.float64()),
    pa.field(ENTROPY_HISTOGRAM, _COUNTS),
    pa.field(HEAD_HISTOGRAM, _COUNTS),
    pa.field(KL_SUMS, _SUMS),
    pa.field(NLL_SUMS, _SUMS),
    pa.field(ENTROPY_SUMS, _SUMS),
    pa.field(TAIL_MASS_SUMS, _SUMS),
    pa.field(HEAD_ENTRIES, _COUNTS),
)
"""Sums are in nats over a segment's records: of KL(teacher || what is read back), of the negative log-probability of
the tokens that stand there, of the teacher's entropy; and of the probability outside the heads. `kl_max` is the
sequence's."""


@dataclass(frozen=True, slots=True)
class ScoredSegment:
    """The records of a segment as the teacher gave them, as they are read back, and what that loses of each, in
    nats [R]."""

    exact: ScoredRows
    coded: ScoredRows
    kl_R: np.ndarray


def statistics_columns(segments: Sequence[ScoredSegment]) -> dict[str, Any]:
    """A value for each of `STATISTICS_FIELDS`, of a sequence's segments."""
    exact, coded = [each.exact for each in segments], [each.coded for each in segments]
    kl_R = np.concatenate([each.kl_R for each in segments])
    return {
        KL_HISTOGRAM: histogram(kl_R, KL_EDGES),
        KL_MAX: _rounded(kl_R.max(initial=0.0)),
        ENTROPY_HISTOGRAM: histogram(np.concatenate([each.entropies_R for each in exact]), ENTROPY_EDGES),
        HEAD_HISTOGRAM: histogram(np.concatenate([each.head_counts_R for each in coded]), HEAD_EDGES),
        KL_SUMS: [_sum(each.kl_R) for each in segments],
        NLL_SUMS: [-_sum(each.gold_logprobs_R) for each in exact],
        ENTROPY_SUMS: [_sum(each.entropies_R) for each in exact],
        TAIL_MASS_SUMS: [_sum(each.tail_masses_R) for each in coded],
        HEAD_ENTRIES: [int(each.head_counts_R.sum()) for each in coded],
    }


def histogram(values: np.ndarray, edges: np.ndarray) -> list[int]:
    """How many values lie between each edge and the next; one more bin than edges, a value at an edge above it."""
    bins = np.searchsorted(edges, values, side="right")
    counts: list[int] = np.bincount(bins, minlength=len(edges) + 1).tolist()
    return counts


def quantile(counts: np.ndarray, edges: np.ndarray, share: float) -> float:
    """The value that `share` of those counted do not exceed, logarithmically interpolated within its bin; for what
    lies beyond the edges, the nearest of them. NaN of nothing."""
    total = int(counts.sum())
    if not total:
        return float("nan")
    upto = np.cumsum(counts)
    at = int(np.searchsorted(upto, share * total, side="left"))
    if at == 0 or at == len(edges):
        return float(edges[min(at, len(edges) - 1)])
    within = (share * total - upto[at - 1]) / counts[at]
    return float(edges[at - 1] * (edges[at] / edges[at - 1]) ** within)


def _sum(values: np.ndarray) -> float:
    return _rounded(values.sum(dtype=np.float64))


def _rounded(nats: float) -> float:
    """Without the last digits: exponentials and logarithms of numpy differ in them from one kind of processor to the
    next, and a shard that is made again elsewhere must come out the same."""
    return round(float(nats), _DECIMALS)
