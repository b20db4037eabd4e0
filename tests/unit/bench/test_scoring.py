"""The benchmark of scoring: every side passes the same tokens, and the table says what was wanted of which row."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from zenray.bench.document import update_document
from zenray.bench.scoring import Plan, measure, requests
from zenray.bench.scoring_report import Side, Speed, scoring_markdown, scoring_rows
from zenray.engine.request import Priority


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    config = {"model": {"name": "m", "weight_format": "mixed"}, "engine": {"batch_step_tokens": 64}}
    return {
        "kind": "scoring",
        "created": "2026-01-02T03:04",
        "machine": {"processor": "p", "threads": 2},
        "foreign_cpu_share": 0.01,
        "settings": {
            "config": config,
            "plan": {"tokens": 4096, "rounds": 3},
            "format": {"max_head": 48, "head_mass": 0.9975, "num_tail_samples": 4},
        },
        "results": rows,
    }


def test_windows_are_the_same_for_every_side_and_only_what_is_asked_of_them_differs() -> None:
    raw, whole, overlapped = (list(requests(range(100), 32, side)) for side in Side.of_window(32))
    assert [r.prompt_token_ids for r in raw] == [tuple(range(start, start + 32)) for start in (0, 32, 64)]
    for asked in (raw, whole, overlapped):
        assert [r.prompt_token_ids for r in asked] == [r.prompt_token_ids for r in raw]
        assert {(r.priority, r.limits.max_tokens) for r in asked} == {(Priority.BATCH, 0)}
    assert raw[0].scoring is None
    assert whole[0].scoring is not None and whole[0].scoring.first_scored == 1
    assert overlapped[0].scoring is not None and overlapped[0].scoring.first_scored == 4


def test_an_engine_is_measured_by_what_passes_through_it(make_engine) -> None:  # type: ignore[no-untyped-def]
    engine = make_engine(prefix_cache=False)
    rows, digest = measure(engine, Plan((16, 32), tokens=64, rounds=2), Console(quiet=True))
    assert [(row["window"], row["overlap"]) for row in rows[:-1]] == [(16, 0), (16, 2), (32, 0), (32, 4)]
    assert all(row["ratio"]["count"] == 2 and row["scored_tokens_per_s"]["minimum"] > 0 for row in rows[:-1])
    assert len(digest) == 64
    assert not engine.has_work
    assert engine.load().prompt_tokens == 16 + 16 + 2 * 2 * 3 * 64  # the warm-up, then rounds x windows x sides


@pytest.mark.parametrize(("scored", "verdict"), [([190.0, 180.0, 179.0], "met"), ([190.0, 178.0, 179.0], "missed")])
def test_only_the_default_case_is_judged_and_by_its_median(scored: list[float], verdict: str) -> None:
    raw, whole, overlapped = Side.of_window(4096)
    short = Side.of_window(512)
    rates = {raw: [200.0] * 3, whole: [150.0] * 3, overlapped: scored, short[0]: [100.0] * 3, short[1]: [99.0] * 3}
    speeds = {side: [Speed(rate, 1e3 / rate) for rate in values] for side, values in rates.items()}
    text = scoring_markdown(report(scoring_rows(speeds, 1000.0, 1050.0)))
    lines = {line.split(" | ")[0] + "/" + line.split(" | ")[1]: line for line in text.splitlines() if "0.9" in line}
    assert f"≥ 0.9 | {verdict} |" in lines["| 4096/512"]
    assert text.count("met") + text.count("missed") == 1
    assert "| 0.750 |" in text
    assert "0.990 [0.990 to 0.990]" in lines["| 512/0"]
    assert "50 MiB more" in text
    document = "<!-- scoring:begin -->\n<!-- scoring:end -->\n"
    assert text in update_document(document, report(scoring_rows(speeds, 1000.0, 1050.0)))
