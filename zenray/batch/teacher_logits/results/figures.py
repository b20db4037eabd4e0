"""The figures of a report, from the statistics that its rows carry and the footers of its files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from zenray.batch.rows import ERROR
from zenray.batch.teacher_logits.columns import (
    SEGMENT_FIRST_SCORED,
    SEGMENT_LANGUAGES,
    SEGMENT_LENGTHS,
    SEGMENT_MODES,
)
from zenray.batch.teacher_logits.results.statistics import (
    ENTROPY_EDGES,
    ENTROPY_HISTOGRAM,
    ENTROPY_SUMS,
    HEAD_EDGES,
    HEAD_ENTRIES,
    HEAD_HISTOGRAM,
    KL_EDGES,
    KL_HISTOGRAM,
    KL_MAX,
    KL_SUMS,
    NLL_SUMS,
    STATISTICS_FIELDS,
    TAIL_MASS_SUMS,
    quantile,
)

REPORT_COLUMNS = (
    *(ERROR, SEGMENT_LENGTHS, SEGMENT_FIRST_SCORED, SEGMENT_MODES, SEGMENT_LANGUAGES),
    *(each.name for each in STATISTICS_FIELDS),
)
"""All that a report reads of a shard."""


@dataclass(slots=True)
class Sums:
    """Of some records: how many, and what of them is told as means. Nats."""

    num_scored: int = 0
    kl: float = 0.0
    nll: float = 0.0
    entropy: float = 0.0
    tail_mass: float = 0.0
    head_entries: int = 0

    def add(self, num_scored: int, kl: float, nll: float, entropy: float, tail_mass: float, head_entries: int) -> None:
        self.num_scored += num_scored
        self.kl += kl
        self.nll += nll
        self.entropy += entropy
        self.tail_mass += tail_mass
        self.head_entries += head_entries

    def means(self) -> dict[str, Any]:
        """None of nothing."""
        of = self.num_scored
        return {
            "num_scored": of,
            "kl_mean_nats": self.kl / of if of else None,
            "negative_log_probability_mean_nats": self.nll / of if of else None,
            "entropy_mean_nats": self.entropy / of if of else None,
            "head_mass_mean": 1 - self.tail_mass / of if of else None,
            "head_entries_mean": self.head_entries / of if of else None,
        }


@dataclass(slots=True)
class Figures:
    """What rows add up to, one after the other."""

    num_sequences: int = 0
    num_segments: int = 0
    num_tokens: int = 0
    num_scored: int = 0
    kl_max: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    whole: Sums = field(default_factory=Sums)
    groups: defaultdict[tuple[str, str], Sums] = field(default_factory=lambda: defaultdict(Sums))
    kl_counts: np.ndarray = field(default_factory=lambda: np.zeros(len(KL_EDGES) + 1, np.int64))
    entropy_counts: np.ndarray = field(default_factory=lambda: np.zeros(len(ENTROPY_EDGES) + 1, np.int64))
    head_counts: np.ndarray = field(default_factory=lambda: np.zeros(len(HEAD_EDGES) + 1, np.int64))

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Figures:
        """Of rows with `REPORT_COLUMNS`."""
        made = cls()
        for record in records:
            made.add(record)
        return made

    def add(self, record: Mapping[str, Any]) -> None:
        self.num_sequences += 1
        if record[ERROR] is not None:
            self.errors[record[ERROR]] += 1
            return
        self.num_segments += len(record[SEGMENT_LENGTHS])
        self.num_tokens += sum(record[SEGMENT_LENGTHS])
        self.kl_max = max(self.kl_max, record[KL_MAX])
        self.kl_counts += record[KL_HISTOGRAM]
        self.entropy_counts += record[ENTROPY_HISTOGRAM]
        self.head_counts += record[HEAD_HISTOGRAM]
        sums = (KL_SUMS, NLL_SUMS, ENTROPY_SUMS, TAIL_MASS_SUMS, HEAD_ENTRIES)
        names = (SEGMENT_LENGTHS, SEGMENT_FIRST_SCORED, SEGMENT_LANGUAGES, SEGMENT_MODES, *sums)
        for length, first_scored, language, mode, *values in zip(*(record[name] for name in names), strict=True):
            self.num_scored += length - first_scored
            self.whole.add(length - first_scored, *values)
            self.groups[language, mode].add(length - first_scored, *values)

    def kl_quantile(self, share: float) -> float | None:
        return quantile(self.kl_counts, KL_EDGES, share) if self.num_scored else None

    def to_json(self, stored: Stored) -> dict[str, Any]:
        """For report.json: every figure of the report."""
        of = self.num_scored
        groups = sorted(self.groups.items(), key=lambda item: (-item[1].num_scored, item[0]))
        return {
            "sequences": {"num": self.num_sequences, "num_segments": self.num_segments},
            "errors": dict(sorted(self.errors.items())),
            "tokens": {"num": self.num_tokens, "num_scored": of, "num_context": self.num_tokens - of},
            "bytes": {
                "num": stored.num_bytes,
                "per_scored_token": stored.num_bytes / of if of else None,
                "per_scored_token_by_column": {
                    name: count / of for name, count in sorted(stored.by_column.items()) if of
                },
                "per_scored_token_by_companion": {
                    name: count / of for name, count in sorted(stored.by_companion.items()) if of
                },
            },
            "fidelity": {
                **self.whole.means(),
                **{f"kl_p{round(share * 100)}_nats": self.kl_quantile(share) for share in (0.5, 0.9, 0.99)},
                "kl_max_nats": self.kl_max,
            },
            "groups": [{"language": language, "mode": mode, **sums.means()} for (language, mode), sums in groups],
            "histograms": {
                "kl_nats": {"edges": KL_EDGES.tolist(), "counts": self.kl_counts.tolist()},
                "entropy_nats": {"edges": ENTROPY_EDGES.tolist(), "counts": self.entropy_counts.tolist()},
                "head_entries": {"edges": HEAD_EDGES.tolist(), "counts": self.head_counts.tolist()},
            },
        }


FOOTER = "footer"
"""Stands for what of a file is no column: its schema, and above all the vocabulary."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes on disk: of the shards by column, and of their companions."""

    by_column: Mapping[str, int]
    by_companion: Mapping[str, int]

    @property
    def num_bytes(self) -> int:
        """Of the shards alone, which is what a reader of records needs."""
        return sum(self.by_column.values())


def stored_in(shards: Iterable[Path], companions: Mapping[str, Iterable[Path]]) -> Stored:
    """Of files, as their footers and their sizes say."""
    by_column: Counter[str] = Counter()
    for path in shards:
        metadata = pq.read_metadata(path)
        of_columns = 0
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                by_column[chunk.path_in_schema.partition(".")[0]] += chunk.total_compressed_size
                of_columns += chunk.total_compressed_size
        by_column[FOOTER] += path.stat().st_size - of_columns
    sizes = {name: sum(path.stat().st_size for path in paths) for name, paths in companions.items()}
    return Stored(dict(by_column), sizes)
