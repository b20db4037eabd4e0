"""The bench of transports: its calls are well-formed, its numbers reach the document."""

from __future__ import annotations

from typing import Any

import pytest

from zenray.bench.document import replace_block
from zenray.bench.expert_transports import NUM_TOKENS, TRANSPORTS, as_markdown, round_trips


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zenray.bench.expert_transports.TRANSPORTS", {"in-process": None})
        results = round_trips(rounds=1, calls=2, work_us=0)
    return {
        "created": "2026-01-01T00:00:00",
        "machine": {"cores": 2},
        "foreign_cpu_share": 0.01,
        "settings": {"rounds": 1, "calls": 2, "work_us": 0.0},
        "results": results,
    }


def test_every_size_is_timed_after_a_warm_up(report: dict[str, Any]) -> None:
    assert [row["tokens"] for row in report["results"]] == list(NUM_TOKENS)
    assert all(row["pairs"] == 2 * row["tokens"] for row in report["results"])
    assert all(row["us"]["count"] == 2 and row["us"]["minimum"] > 0 for row in report["results"])


def test_the_table_takes_its_place_in_a_document(report: dict[str, Any]) -> None:
    document = "before\n<!-- expert-transports:begin -->\n<!-- expert-transports:end -->\nafter\n"
    rows = [{**row, "transport": name} for row in report["results"] for name in TRANSPORTS]
    written = replace_block(document, "expert-transports", as_markdown({**report, "results": rows}))
    assert "| tokens | pairs | in-process | unix | tcp | gloo |" in written
    assert written.count("\n| 512 | 1024 | ") == 1
