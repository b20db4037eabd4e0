"""Every record format over the same exact distributions: bytes, divergences, bias."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from zenray.batch.output.shard import encode_shard
from zenray.batch.teacher_logits.records.planes import NUM_RANK_PLANES, to_planes
from zenray.batch.teacher_logits.records.sequence import TOKEN_RANKS
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.bench.record_formats import Coded, MeasuredFormat, Reading
from zenray.bench.record_pass import ExactRows
from zenray.bench.record_statistics import (
    NormEstimate,
    Teacher,
    divergences,
    kept_divergences,
    norm_of_mean,
    quantiles,
    sums_of,
)

SEQUENCES_PER_SHARD = 32
"""The job's own number."""
Parts = Callable[[], Iterator[ExactRows]]


def bytes_per_token(parts: Parts, measured: MeasuredFormat, vocabulary: Vocabulary) -> tuple[float, float]:
    """What a scored token takes in shards as the job writes them, and before Parquet compresses it: the records, and
    the sequences' tokens, which every dump needs."""
    waiting: list[dict[str, bytes]] = []
    num_rows = written = raw = 0
    for part in parts():
        num_rows += part.num_rows
        for row_id, tokens, rows in part.sequences():
            token_ranks = to_planes(vocabulary.ranks_V[part.token_ids_T[tokens]], NUM_RANK_PLANES)
            waiting.append({TOKEN_RANKS: token_ranks, **measured.code(part, row_id, rows).values})
            raw += sum(map(len, waiting[-1].values()))
            if len(waiting) == SEQUENCES_PER_SHARD:
                written += _shard_bytes(waiting)
                waiting.clear()
    return (written + (_shard_bytes(waiting) if waiting else 0)) / num_rows, raw / num_rows


def compare(parts: Parts, measured: MeasuredFormat, vocabulary: Vocabulary) -> dict[str, Any]:
    """A row of the report."""
    written, raw = bytes_per_token(parts, measured, vocabulary)
    found: dict[str, _Measured] = {}
    kept: list[np.ndarray] = []
    num_parts = 0
    for part in parts():
        num_parts += 1
        sums: dict[str, np.ndarray] = {}
        for row_id, _, rows in part.sequences():
            coded = measured.code(part, row_id, rows)
            places_K = np.arange(part.top_ids_RK.shape[1])
            chances_RK = np.exp(part.top_logprobs_RK[rows].astype(np.float64))
            kept.append(np.where(places_K < coded.num_kept_R[:, None], chances_RK, 0.0).sum(axis=1))
            for reading in coded.readings:
                _add_sums(sums, reading, part.directions_RJ[rows])
                measured_reading = found.setdefault(reading.name, _Measured())
                measured_reading.add_divergences(part, rows, coded, reading)
        for name, sums_JV in sums.items():
            found[name].differences.append((sums_JV - part.teacher_sums_JV).astype(np.float32))
    kept_R = np.concatenate(kept)
    return {
        "measure": "format",
        "format": measured.name,
        "bytes_per_token": written,
        "raw_bytes_per_token": raw,
        "mass_kept": float(kept_R.mean()),
        "readings": [
            {"reading": name, **each.as_dict(len(kept_R) / num_parts, measures_kept=bool(kept_R.any()))}
            for name, each in found.items()
        ],
    }


@dataclass(slots=True)
class _Measured:
    """What is gathered of a reading, part by part."""

    divergences: list[np.ndarray] = field(default_factory=list)
    kept_divergences: list[np.ndarray] = field(default_factory=list)
    differences: list[np.ndarray] = field(default_factory=list)
    num_same_top: int = 0

    def add_divergences(self, part: ExactRows, rows: slice, coded: Coded, reading: Reading) -> None:
        teacher = Teacher(
            part.top_ids_RK[rows],
            part.top_logprobs_RK[rows],
            part.rest_masses_R[rows],
            part.rest_negentropies_R[rows],
            np.zeros(len(coded.num_kept_R)) if reading.rest_logpriors_R is None else reading.rest_logpriors_R,
        )
        found = reading.found
        is_top_RK = (found.ids_RK == part.top_ids_RK[rows, :1]) & (found.probabilities_RK > 0)
        of_top_R = np.where(is_top_RK, found.probabilities_RK, 0.0).sum(axis=1)
        self.num_same_top += int((of_top_R >= found.probabilities_RK.max(axis=1)).sum())
        if reading.rest_logpriors_R is not None:
            self.divergences.append(divergences(teacher, coded.num_kept_R, found, reading.prior_V))
        if coded.num_kept_R.all():
            self.kept_divergences.append(kept_divergences(teacher, coded.num_kept_R, found))

    def as_dict(self, rows_per_part: float, *, measures_kept: bool) -> dict[str, Any]:
        differences_BJV = np.stack(self.differences) / np.float32(rows_per_part)
        of_bias_BV, of_student_BN = differences_BJV[:, 0], differences_BJV[:, 1:].reshape(len(differences_BJV), -1)
        num_rows = round(rows_per_part * len(self.differences))
        halves = of_bias_BV[::2].mean(axis=0), of_bias_BV[1::2].mean(axis=0)
        return {
            "kl": quantiles(np.concatenate(self.divergences)) if self.divergences else None,
            "kl_of_kept": quantiles(np.concatenate(self.kept_divergences)) if measures_kept else None,
            "same_top": self.num_same_top / num_rows,
            "bias": _norm(norm_of_mean(_gram(of_bias_BV))),
            "bias_l1": float(np.abs(of_bias_BV.mean(axis=0)).sum()),
            # Half the difference of two halves has the mean's noise and nothing of its bias.
            "bias_l1_noise": float(np.abs(halves[0] - halves[1]).sum() / 2),
            "student_bias": _norm(norm_of_mean(_gram(of_student_BN))),
        }


def _add_sums(sums: dict[str, np.ndarray], reading: Reading, directions_RJ: np.ndarray) -> None:
    for column in range(directions_RJ.shape[1]):
        sums_V = sums_of(reading.found, directions_RJ[:, column].astype(np.float64), reading.prior_V)
        sums_JV = sums.setdefault(reading.name, np.zeros((directions_RJ.shape[1], len(sums_V))))
        sums_JV[column] += sums_V


def _gram(means_BN: np.ndarray) -> np.ndarray:
    gram_BB: np.ndarray = (means_BN @ means_BN.T).astype(np.float64)
    return gram_BB


def _norm(estimate: NormEstimate) -> dict[str, float]:
    return {
        "measured": estimate.measured,
        "corrected": estimate.corrected,
        "corrected_squared": estimate.corrected_squared,
        "standard_error_squared": estimate.standard_error_squared,
        "upper": estimate.upper,
    }


def _shard_bytes(rows: Sequence[dict[str, bytes]]) -> int:
    table = pa.table({name: pa.array([row[name] for row in rows], pa.binary()) for name in rows[0]})
    return len(encode_shard(table, "0" * 64, 0, 0))
