from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.bench.document import merge_peer_reports, overhead_table, peer_tables, replace_block, update_document
from zenray.bench.statistics import Distribution
from zenray.errors import ConfigError

DOCUMENT = "# Title\n\n<!-- peers:begin -->\nold\nlines\n<!-- peers:end -->\n\nAfter.\n"


def test_a_block_is_replaced_and_nothing_else() -> None:
    assert (
        replace_block(DOCUMENT, "peers", "\nnew\n")
        == "# Title\n\n<!-- peers:begin -->\nnew\n<!-- peers:end -->\n\nAfter.\n"
    )


@given(st.text(alphabet=st.characters(exclude_characters="\r"), max_size=80).filter(lambda text: "peers:" not in text))
def test_writing_again_changes_nothing(body: str) -> None:
    once = replace_block(DOCUMENT, "peers", body)
    assert replace_block(once, "peers", body) == once
    assert replace_block(once, "peers", "old\nlines") == DOCUMENT


def test_an_empty_block_can_be_filled() -> None:
    assert "x" in replace_block("<!-- a:begin -->\n<!-- a:end -->", "a", "x")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<!-- peers:begin -->\nno end",
        "<!-- peers:end -->\n<!-- peers:begin -->",
        DOCUMENT + DOCUMENT,
        DOCUMENT.replace("lines", "<!-- peers:begin -->"),
        "said <!-- peers:begin -->\n<!-- peers:end -->",
    ],
)
def test_a_document_without_exactly_one_block_is_refused(document: str) -> None:
    with pytest.raises(ConfigError, match="peers:begin"):
        replace_block(document, "peers", "x")


def comparison(
    ratios: list[float], wanted: float | None, more_is_better: bool = True, on_every_prompt: bool = False
) -> dict[str, Any]:
    return {
        "what": "decode", "wanted": wanted, "more_is_better": more_is_better, "on_every_prompt": on_every_prompt,
        "unit": "tok/s",
        "ours": asdict(Distribution.of([80.0])), "peer": asdict(Distribution.of([70.0])),
        "ratio": asdict(Distribution.of(ratios)),
    }  # fmt: skip


def report(**fields: Any) -> dict[str, Any]:
    return {
        "created": "2026-01-02T03:04:05+00:00", "rounds": 3, "max_tokens": 64, "samples": 12, "disturbed_samples": 0,
        "max_foreign_share": 0.1, "versions": ["a 1", "b 2"], "comparisons": [], "measurements": [], "agreement": [],
        "machine": {"processor": "A CPU", "threads": 2, "read_gb_per_s": 40.2}, **fields,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "ending"),
    [
        (comparison([1.2, 1.1, 1.3], 1.1), "| 1.20 [1.10 to 1.30] | ≥ 1.1 | met |"),
        (comparison([1.0, 1.05, 1.3], 1.1), "| 1.05 [1.00 to 1.30] | ≥ 1.1 | missed |"),
        (comparison([0.04], 0.15, more_is_better=False), "| 0.04 [0.04 to 0.04] | ≤ 0.15 | met |"),
        (comparison([0.2], 0.15, more_is_better=False), "| ≤ 0.15 | missed |"),
        (comparison([], 1.1), "| not measured | ≥ 1.1 | |"),
        (comparison([1.5], None), "| 1.50 [1.50 to 1.50] |  |  |"),
        (comparison([0.9, 1.2, 1.3], 0.95, on_every_prompt=True), "| ≥ 0.95 always | missed |"),
        (comparison([0.96, 1.2, 1.3], 0.95, on_every_prompt=True), "| ≥ 0.95 always | met |"),
    ],
)
def test_a_ratio_is_judged_by_its_median_or_its_worst_round(row: dict[str, Any], ending: str) -> None:
    (line,) = [line for line in peer_tables(report(comparisons=[row])).splitlines() if line.startswith("| decode")]
    assert line.endswith(ending)


def test_the_tables_name_machine_versions_and_what_was_left_out() -> None:
    agreement = {
        "ours": "zenray", "peer": "other", "same_start": 0.75,
        "common_characters": asdict(Distribution.of([100])), "characters": asdict(Distribution.of([200])),
    }  # fmt: skip
    measured = {
        "label": "zenray",
        "measure": "decode",
        "unit": "tok/s",
        "value": asdict(Distribution.of([1.0, 2.0, 300.0])),
    }
    text = peer_tables(report(agreement=[agreement], measurements=[measured], disturbed_samples=2))
    assert "2026-01-02 on A CPU, 2 threads, 40 GB/s" in text
    assert "| zenray | decode | 2.00 | 1.00 to 300 | tok/s | 3 |" in text
    assert "zenray and other: 100 of 200, 75% of prompts start alike" in text
    assert "Versions: a 1, b 2." in text
    assert "2 of 12 samples were left out" in text


def test_answers_of_natural_length_are_said_to_be() -> None:
    row = {"label": "a", "measure": "edit", "unit": "tok/s", "value": asdict(Distribution.of([1.0]))}
    assert "fresh 128, infill 64, edit 256" in peer_tables(report(measurements=[row]))
    assert "answers end" not in peer_tables(report(measurements=[{**row, "measure": "decode"}]))


def test_reports_of_groups_become_one() -> None:
    def row(label: str, value: float) -> dict[str, Any]:
        return {"label": label, "measure": "decode", "unit": "tok/s", "value": asdict(Distribution.of([value]))}

    first = report(measurements=[row("a", 1.0), row("b", 2.0)], comparisons=[comparison([1.0], 1.0)], versions=["x 1"])
    second = report(measurements=[row("b", 3.0), row("c", 4.0)], comparisons=[comparison([2.0], 1.0)], rounds=9)
    both = merge_peer_reports(first, second)
    assert [(each["label"], each["value"]["p50"]) for each in both["measurements"]] == [("a", 1), ("b", 3), ("c", 4)]
    assert [each["ratio"]["p50"] for each in both["comparisons"]] == [2.0]
    assert both["versions"] == ["a 1", "b 2", "x 1"] and both["rounds"] == 9
    assert "| c | decode | 4.00" in peer_tables(both)


def path_row(path: str, ttft_ms: float) -> dict[str, Any]:
    value = asdict(Distribution.of([ttft_ms]))
    return {"measure": "path", "path": path, "ttft_ms": value, "itl_ms": value, "tokens_per_s": value}


OVERHEAD = {
    "schema": "zenray.bench/1", "kind": "overhead", "created": "2026-01-02T03:04:05+00:00",
    "settings": {"config": {"model": {"name": "a-model", "weight_format": "mixed"}}},
    "results": [
        path_row("direct", 50.0),
        path_row("served", 53.0),
        {"measure": "added", "ttft_ms": asdict(Distribution.of([3.0])), "itl_p50_difference_ms": 0.25},
        {"measure": "memory", "resident_mib": 900.4, "weights_mib": 500, "kv_budget_mib": 100, "other_mib": 300.4},
    ],
}  # fmt: skip


def test_the_overhead_table() -> None:
    text = overhead_table(OVERHEAD)
    assert "a-model mixed" in text
    assert "| served | 53.00 ms | 53.00 ms | 53.00 ms | 53.00 ms | 53.0 |" in text
    assert "first token: p50 3.00 ms" in text and "chunk: 0.25 ms" in text
    assert "900 MiB resident, of which weights 500, KV budget 100, everything else 300 MiB" in text


def test_each_report_finds_its_block() -> None:
    both = DOCUMENT + "<!-- overhead:begin -->\n<!-- overhead:end -->\n"
    text = update_document(update_document(both, OVERHEAD), {**report(), "schema": "zenray.peers/1"})
    assert "a-model mixed" in text and "2026-01-02 on A CPU" in text and "After." in text
    with pytest.raises(ConfigError, match="have a block"):
        update_document(both, {"kind": "engine"})


def test_the_shipped_document_has_the_blocks() -> None:
    document = (Path(__file__).parents[3] / "docs" / "benchmarks.md").read_text()
    for name in ("peers", "overhead"):
        assert replace_block(document, name, "x") != document
