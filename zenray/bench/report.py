"""The report of a benchmark: one JSON document, the same shape whatever was measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from zenray.bench.bandwidth import Bandwidth
from zenray.bench.machine import describe_machine

SCHEMA = "zenray.bench/1"
ReportKind = Literal[
    "engine",
    "serving",
    "overhead",
    "speculative",
    "expert-transports",
    "indexing",
    "infilling",
    "aggregation",
    "suggestions",
    "coserving",
    "scoring",
    "records",
    "acceptance",
]


def make_report(
    kind: ReportKind,
    results: list[dict[str, Any]],
    *,
    prompts: dict[str, Any],
    settings: dict[str, Any],
    bandwidth: Bandwidth | None,
    foreign_cpu_share: float | None,
) -> dict[str, Any]:
    """A JSON-ready document. `prompts` identifies by a hash what was timed; `results` holds one object per
    measured row. `foreign_cpu_share` says what part of the cores other processes used meanwhile, so that a
    disturbed run is known for one; None where that cannot be told."""
    machine = describe_machine(bandwidth.num_threads if bandwidth else 0)
    machine["read_gb_per_s"] = bandwidth.gb_per_s if bandwidth else None
    return {
        "schema": SCHEMA,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "foreign_cpu_share": foreign_cpu_share if foreign_cpu_share is None else round(foreign_cpu_share, 3),
        "prompts": prompts,
        "settings": settings,
        "results": [_rounded(result) for result in results],
    }


def merge_rows(
    old: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """`new` and the rows of `old` that it does not measure again, told apart by `keys`; rows keep their first place."""
    return list({tuple(str(row[key]) for key in keys): row for row in (*old, *new)}.values())


def write_report(report: dict[str, Any], path: Path) -> None:
    """Writes the JSON, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _rounded(value: Any) -> Any:
    """Numbers to six significant digits: a float's other ten are noise to a reader and to a diff."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
