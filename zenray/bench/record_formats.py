"""Record formats side by side: ours by their own code, others as they were published.

- top-K: the K most probable tokens, log-probs in float16.
- DistillKit (Goddard and Atkins, Arcee AI, 2024, https://github.com/arcee-ai/distillkit): the K most probable, ids
  packed bit by bit; the first log-probs exact, all others (or their differences) by a least-squares fit over the place.
- Random sampling KD (Anshumann et al., arXiv 2503.16870): N tokens drawn from the whole distribution; how often each.

Shapes: R rows, K entries kept, N draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from zenray.batch.teacher_logits.reading.mixture import row_weights
from zenray.batch.teacher_logits.reading.tail_prior import tail_prior
from zenray.batch.teacher_logits.records.dense import DenseFormat
from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.batch.teacher_logits.records.planes import to_planes
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.bench.record_pass import ExactRows, code_rows, record_seed
from zenray.bench.record_statistics import Reconstruction
from zenray.engine.scoring import ScoredRows


@dataclass(frozen=True, slots=True)
class Reading:
    """Distributions as a student gets them. What is not at an id is spread over `prior_V`; `rest_logpriors_R` is its
    sum in `Teacher`, None where the reading gives other tokens nothing, so that its divergence is infinite."""

    name: str
    found: Reconstruction
    prior_V: np.ndarray
    rest_logpriors_R: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Coded:
    """Records of a sequence: columns as they are stored, how many of the most probable tokens are known (none where
    it is others), and what a student makes of them."""

    values: dict[str, bytes]
    num_kept_R: np.ndarray
    readings: tuple[Reading, ...]


class MeasuredFormat(Protocol):
    @property
    def name(self) -> str: ...

    def code(self, part: ExactRows, row_id: str, rows: slice) -> Coded:
        """Writes and reads the records of some rows of a part, which are one sequence."""
        ...


@dataclass(frozen=True, slots=True)
class Priors:
    """Those of the pass, in its order."""

    vocabulary: Vocabulary
    columns: dict[str, int]

    def column(self, part: ExactRows, rows: slice, name: str) -> np.ndarray:
        sums_R: np.ndarray = part.rest_logpriors_RP[rows, self.columns[name]]
        return sums_R


@dataclass(frozen=True, slots=True)
class OurFormat:
    """`index` is its place among the formats of the pass."""

    record_format: RecordFormat
    index: int
    priors: Priors
    other: Vocabulary
    """Counted in other texts."""

    @property
    def name(self) -> str:
        return self.record_format.name

    def code(self, part: ExactRows, row_id: str, rows: slice) -> Coded:
        exact, seed, vocabulary = part.scored(rows, self.index), record_seed(row_id), self.priors.vocabulary
        values = self.record_format.encode(exact, vocabulary, seed)
        read = self.record_format.decode(values, exact.num_rows, vocabulary)
        near_V = tail_prior(read, vocabulary)
        own_R, other_R = (self.priors.column(part, rows, name) for name in ("own", "other"))
        # Over other texts' counts only the prior changes: ranks are the job's.
        readings = (
            Reading("dense", dense_of(read, near_V), near_V, part.rest_tail_priors_RF[rows, self.index]),
            Reading("dense, the job's unigrams", dense_of(read, vocabulary.prior_V), vocabulary.prior_V, own_R),
            Reading("dense, other texts' unigrams", dense_of(read, self.other.prior_V), self.other.prior_V, other_R),
            Reading("sparse", sparse_of(read), vocabulary.prior_V),
        )
        return Coded(values, read.head_counts_R.astype(np.int64), readings)


@dataclass(frozen=True, slots=True)
class TopFormat:
    k: int
    priors: Priors

    @property
    def name(self) -> str:
        return f"top-{self.k}"

    def code(self, part: ExactRows, row_id: str, rows: slice) -> Coded:
        own, exact = DenseFormat(self.k), top_rows(part, rows, self.k)
        values = own.encode(exact, self.priors.vocabulary, 0)
        read = code_rows(exact, own, self.priors.vocabulary, 0)
        logprobs_RK = read.head_logprobs_N.reshape(-1, self.k).astype(np.float64)
        ids_RK = read.head_ids_N.reshape(-1, self.k)
        return Coded(values, *_kept_readings(ids_RK, logprobs_RK, part, rows, self.priors, "own"))


@dataclass(frozen=True, slots=True)
class DistillKitFormat:
    """`terms` are powers of the place, 0.5 the square root. `exact_bits` 16 is bfloat16, 32 float32."""

    name: str
    k: int
    exact_k: int
    exact_bits: int
    terms: tuple[float, ...]
    has_differences: bool
    priors: Priors

    def code(self, part: ExactRows, row_id: str, rows: slice) -> Coded:
        ids_RK = part.top_ids_RK[rows, : self.k]
        packed, coefficients_RT, read_RK = self.compress(part.top_logprobs_RK[rows, : self.k])
        values = {"ids": pack_bits(ids_RK, _bits_of(self.priors.vocabulary.size)), "exact": packed}
        values["coefficients"] = coefficients_RT.tobytes()
        return Coded(values, *_kept_readings(ids_RK, read_RK, part, rows, self.priors, "uniform"))

    def compress(self, logprobs_RK: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray]:
        """The exact ones as bytes, float32 coefficients [R, T], and the float64 log-probs [R, K] made of both."""
        coded_RK = logprobs_RK.astype(np.float32)
        if self.has_differences:
            coded_RK = np.diff(coded_RK, axis=1, prepend=np.float32(0))
        exact_RK = torch.from_numpy(np.ascontiguousarray(coded_RK[:, : self.exact_k]))
        exact_RK = exact_RK.to(torch.bfloat16 if self.exact_bits == 16 else torch.float32)
        places = np.arange(self.k - self.exact_k, dtype=np.float64)
        basis_KT = np.stack([places**term for term in self.terms], axis=1)
        coefficients_RT = (coded_RK[:, self.exact_k :] @ np.linalg.pinv(basis_KT).T).astype(np.float32)
        fitted_RK = coefficients_RT.astype(np.float64) @ basis_KT.T
        read_RK = np.concatenate([exact_RK.double().numpy(), fitted_RK], axis=1)
        if self.has_differences:
            read_RK = read_RK.cumsum(axis=1)
        return exact_RK.view(torch.uint8).numpy().tobytes(), coefficients_RT, read_RK


def published(priors: Priors) -> tuple[DistillKitFormat, ...]:
    """The configurations of DistillKit's README: the one recommended for new captures, the budget pick, and that of
    the released Qwen3-235B dump."""
    powers = (0.0, 1.0, 2.0, 3.0, 4.0, 0.5)
    return (
        DistillKitFormat("DistillKit recommended", 128, 16, 16, powers, False, priors),
        DistillKitFormat("DistillKit budget", 50, 1, 16, (0.0, 1.0, 0.5), False, priors),
        DistillKitFormat("DistillKit Qwen3-235B", 128, 32, 32, (0.0, 1.0, 2.0), True, priors),
    )


@dataclass(frozen=True, slots=True)
class SampledFormat:
    """Each draw stands for 1/N. Three bytes hold an id (18 bits) and how often it was drawn, as published; where that
    may be more than 63 times, a plane of its own has the rest of the number."""

    num_draws: int
    priors: Priors

    @property
    def name(self) -> str:
        return f"RS-KD, {self.num_draws} draws"

    def code(self, part: ExactRows, row_id: str, rows: slice) -> Coded:
        draws_RN = np.sort(part.draws_RN[rows, : self.num_draws], axis=1)
        is_new_RN = np.diff(draws_RN, axis=1, prepend=-1) != 0
        places_RN = np.arange(self.num_draws)
        # A run of equal draws counts at its first place.
        next_RN = np.where(is_new_RN, places_RN, self.num_draws)[:, ::-1]
        ends_RN = np.minimum.accumulate(np.concatenate([np.full_like(next_RN[:, :1], self.num_draws), next_RN], 1), 1)
        times_RN = np.where(is_new_RN, ends_RN[:, -2::-1] - places_RN, 0)
        times_N = times_RN[is_new_RN]
        packed_N = (draws_RN[is_new_RN].astype(np.int64) << 6) | (times_N & 63)
        values = {"entries": to_planes(packed_N, 3), "counts": to_planes(is_new_RN.sum(axis=1), 2)}
        if self.num_draws > 63:
            values["times"] = to_planes(times_N >> 6, 1)
        found = Reconstruction(draws_RN, times_RN / self.num_draws, np.zeros(len(draws_RN)))
        reading = Reading("sparse", found, self.priors.vocabulary.prior_V)
        return Coded(values, np.zeros(len(draws_RN), np.int64), (reading,))


def top_rows(part: ExactRows, rows: slice, k: int) -> ScoredRows:
    """What a verifier answers for `top-K`."""
    exact, num_rows = part.scored(rows, 0), len(part.gold_ids_R[rows])
    return replace(
        exact,
        head_counts_R=np.full(num_rows, k, np.int32),
        head_ids_N=part.top_ids_RK[rows, :k].reshape(-1),
        head_logprobs_N=part.top_logprobs_RK[rows, :k].reshape(-1),
        tail_ids_RS=np.empty((num_rows, 0), np.int32),
    )


def dense_of(read: ScoredRows, prior_V: np.ndarray) -> Reconstruction:
    """The reader's own dense reconstruction."""
    weights = row_weights(read, prior_V)
    ids_RK, heads_RK = padded(weights.counts_R, weights.ids_N, weights.head_N)
    return Reconstruction(ids_RK, heads_RK, 1.0 - heads_RK.sum(axis=1))


def sparse_of(read: ScoredRows) -> Reconstruction:
    """The reader's unbiased one: a token drawn from the tail is an entry of its own for every draw."""
    probabilities_N = np.exp(read.head_logprobs_N.astype(np.float64))
    ids_RK, heads_RK = padded(read.head_counts_R, read.head_ids_N, probabilities_N)
    num_samples = read.tail_ids_RS.shape[1]
    shares_RS = np.where(read.tail_ids_RS >= 0, read.tail_masses_R[:, None] / max(1, num_samples), 0.0)
    ids_RM = np.concatenate([ids_RK, np.maximum(read.tail_ids_RS, 0)], axis=1)
    return Reconstruction(ids_RM, np.concatenate([heads_RK, shares_RS], axis=1), np.zeros(len(ids_RM)))


def padded(counts_R: np.ndarray, ids_N: np.ndarray, values_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Entries of rows of different length as [R, K], with id 0 and value 0 behind."""
    width = int(counts_R.max(initial=1))
    is_entry_RK = np.arange(width) < counts_R[:, None]
    ids_RK, values_RK = np.zeros(is_entry_RK.shape, np.int64), np.zeros(is_entry_RK.shape)
    ids_RK[is_entry_RK], values_RK[is_entry_RK] = ids_N, values_N
    return ids_RK, values_RK


def pack_bits(values_RK: np.ndarray, num_bits: int) -> bytes:
    """Each row's values end to end, highest bit first, a row a whole number of bytes."""
    bits_RKB = (values_RK[:, :, None].astype(np.int64) >> np.arange(num_bits - 1, -1, -1)) & 1
    return np.packbits(bits_RKB.reshape(len(values_RK), -1).astype(np.uint8), axis=1).tobytes()


def _bits_of(vocab_size: int) -> int:
    return (vocab_size - 1).bit_length()


_LEAST_OF_OTHERS = 1e-8
"""What DistillKit leaves every token that is not kept, at least."""


def _kept_readings(
    ids_RK: np.ndarray, logprobs_RK: np.ndarray, part: ExactRows, rows: slice, priors: Priors, prior: str
) -> tuple[np.ndarray, tuple[Reading, ...]]:
    """Of log-probs that stand for nothing but the most probable: with the rest over a prior, and without it."""
    size = priors.vocabulary.size
    prior_V = priors.vocabulary.prior_V if prior == "own" else np.full(size, 1 / size)
    kept_RK = np.exp(logprobs_RK)
    totals_R = kept_RK.sum(axis=1)
    rest_R = np.maximum(1.0 - totals_R, _LEAST_OF_OTHERS * (size - ids_RK.shape[1]))
    whole_R = totals_R + rest_R
    spread = Reconstruction(ids_RK, kept_RK / whole_R[:, None], rest_R / whole_R)
    alone = Reconstruction(ids_RK, kept_RK / totals_R[:, None], np.zeros(len(ids_RK)))
    name = "rest over unigrams" if prior == "own" else "rest over all alike"
    readings = (
        Reading(name, spread, prior_V, priors.column(part, rows, prior)),
        Reading("renormalised", alone, prior_V),
    )
    return np.full(len(ids_RK), ids_RK.shape[1]), readings
