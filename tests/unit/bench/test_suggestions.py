"""Gaps and the report about suggestions, on a small tree and without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zenray.bench.document import update_document
from zenray.bench.report import make_report
from zenray.bench.suggestion_completions import Completion, _key, recorded_completions
from zenray.bench.suggestion_gaps import GAP_KINDS, Gap, make_gaps
from zenray.bench.suggestions import measure_completions, measure_rules, measure_true_texts
from zenray.engine.request import FinishReason

FUNCTION = '''
def weigh_{0}(items, scale=1.0):
    """Weighs {0} items."""
    total = 0.0
    for item in items:
        if item.weight_{0} > {0}:
            total += item.weight_{0} * scale
    return round(total, {0})
'''


@pytest.fixture
def gaps(tmp_path: Path) -> list[Gap]:
    (tmp_path / "weights.py").write_text("".join(FUNCTION.format(number) for number in range(20)))
    (tmp_path / "weights.min.js").write_text("skipped")
    return make_gaps([tmp_path], ["python", "javascript"], 25)


def test_gaps_are_cut_out_of_the_files_and_the_same_each_time(gaps: list[Gap], tmp_path: Path) -> None:
    text = (tmp_path / "weights.py").read_text()
    assert len(gaps) == 25
    assert {gap.kind for gap in gaps} == set(GAP_KINDS)
    assert all(gap.before + gap.middle + gap.after == text and gap.middle.strip() for gap in gaps)
    assert make_gaps([tmp_path], ["python"], 25) == gaps
    assert make_gaps([tmp_path], ["python"], 10) == gaps[:10]
    assert make_gaps([tmp_path], ["python"], 25, seed=1) != gaps


def test_the_rules_end_the_true_text_where_the_suffix_begins(gaps: list[Gap]) -> None:
    rows = measure_rules(gaps)
    assert sum(row["gaps"] for row in rows) == len(gaps)
    assert sum(row.get("exact", 0) for row in rows) >= 23
    (row,) = measure_true_texts(gaps)
    assert row["left alone"] == len(gaps)


def test_recorded_completions_need_no_model(gaps: list[Gap], tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text(
        "".join(
            json.dumps({"key": _key("m", gap), "text": gap.middle, "finish_reason": "EOS", "num_tokens": 3}) + "\n"
            for gap in gaps
        )
    )
    completions = recorded_completions("m", gaps, record, lambda: None)
    assert completions == {gap: Completion(gap.middle, FinishReason.EOS, 3) for gap in gaps}


def test_a_completion_that_runs_into_the_suffix_parses_once_it_is_ended(gaps: list[Gap]) -> None:
    within = [gap for gap in gaps if gap.kind == "part of line"]
    run_on = {gap: Completion(gap.middle + gap.after[:80], FinishReason.LENGTH, 64) for gap in within}
    (row,) = measure_completions(run_on)
    assert row["raw"] < row["parsed"] == row["shown"] == row["ended"] == len(within)
    assert row["reasons"] == {"SUFFIX_MATCH": len(within)}
    assert row["exact_shown"] == len(within) and row["exact_raw"] == 0


def test_the_report_fills_its_block(gaps: list[Gap]) -> None:
    rows = [*measure_rules(gaps), *measure_true_texts(gaps)]
    rows += measure_completions({gap: Completion(gap.middle, FinishReason.EOS, 3) for gap in gaps})
    report = make_report(
        "suggestions",
        rows,
        prompts={"gaps": len(gaps), "seed": 0},
        settings={"model": "m", "completions": 25, "max_tokens": 64, "sources": ["lib/python3"]},
        bandwidth=None,
        foreign_cpu_share=None,
    )
    document = update_document("<!-- suggestions:begin -->\n<!-- suggestions:end -->\n", report)
    assert "| python | 25 | 100.0% |" in document
    assert "They ended by: EOS 25." in document
