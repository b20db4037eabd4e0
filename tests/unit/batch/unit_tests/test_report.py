"""A report tells of every function and every test once, and its bytes follow from what it tells."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.unit_tests.model import Skipped, SkipReason, Verdict
from zenray.batch.unit_tests.results.funnel import (
    NOT_VALIDATED,
    Outcome,
    funnel_of_functions,
    funnel_of_tests,
    outcome_of,
    rejections,
    yields,
)
from zenray.batch.unit_tests.results.report import choose_examples, write_report

SHARES = st.none() | st.floats(0, 1)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """A function that was given up, does not run alone, or was validated."""
    error = draw(st.none() | st.just("generate: prompt too long"))
    runs = error is None and draw(st.booleans())
    kinds = [verdict.value for verdict in Verdict] if runs else [NOT_VALIDATED]
    verdicts = draw(st.dictionaries(st.sampled_from(kinds), st.integers(1, 5))) if error is None else {}
    kept = verdicts.get("kept", 0) > 0
    mutants = draw(st.integers(0, 20))
    killed = draw(st.integers(0, mutants)) if kept else 0
    return Outcome(
        row_id=draw(st.uuids()).hex,
        qualified_name=draw(st.text(max_size=8)),
        repository=draw(st.sampled_from(["cpython", "toolz"])),
        path="a.py",
        error=error,
        runs=runs,
        verdicts=verdicts,
        rejected_texts=draw(
            st.dictionaries(
                st.tuples(st.sampled_from(["test", "implementation"]), st.sampled_from(["copy", "x is not defined"])),
                st.integers(1, 3),
            )
        ),
        num_implementations=2,
        mutation_score=killed / mutants if kept and mutants else None,
        line_coverage=draw(SHARES) if kept else None,
        branch_coverage=draw(SHARES) if kept else None,
        agreement=draw(SHARES) if kept else None,
        num_mutants=mutants,
        num_mutants_killed=killed,
        num_generated_tokens=draw(st.integers(0, 999)),
    )


SKIPPED = st.dictionaries(st.sampled_from([reason.value for reason in SkipReason]), st.integers(0, 50))


@settings(max_examples=50, deadline=None)
@given(st.lists(outcomes(), max_size=8), SKIPPED)
def test_funnels_only_narrow_and_lose_nothing(functions: list[Outcome], skipped: dict[str, int]) -> None:
    for funnel in (funnel_of_functions(functions, skipped), funnel_of_tests(functions)):
        counts = [count for _, count in funnel]
        assert counts == sorted(counts, reverse=True) and counts[-1] >= 0
    assert funnel_of_functions(functions, skipped)[0][1] == len(functions) + sum(skipped.values())
    assert funnel_of_functions(functions, skipped)[-1][1] == sum(outcome.num_kept > 0 for outcome in functions)
    generated, kept = funnel_of_tests(functions)[0][1], funnel_of_tests(functions)[-1][1]
    assert kept == sum(outcome.num_kept for outcome in functions)
    assert generated - kept == sum(rejections(functions).values())
    assert sum(each.num_kept for each in yields(functions)) == kept


@settings(max_examples=50, deadline=None)
@given(st.lists(outcomes(), max_size=8))
def test_no_function_is_an_example_twice(functions: list[Outcome]) -> None:
    shown = [outcome.row_id for group in choose_examples(functions).values() for outcome in group]
    assert len(shown) == len(set(shown))
    kept = {outcome.row_id for outcome in functions if outcome.num_kept}
    assert set(shown) <= kept


def record(place: int, kept: bool) -> dict[str, Any]:
    """As much of a row as the report looks at, with what could break a page."""
    shares = dict.fromkeys(("mutation_score", "line_coverage", "branch_coverage"), 0.75 if kept else None)
    return {
        "row_id": f"{place:032x}",
        "error": None,
        "qualified_name": f"less<{place}>&more",
        "provenance": {"repository": "</script><b>toolz", "revision": "1", "path": "a&b.py"},
        "source": "def f(a, b):\n    return a < b > '</pre>'\n",
        "runs_on_reference": True,
        "tests": [{"verdict": "kept" if kept else "flaky", "kept": kept, "source": "1 < 2", "killed_mutants": ["m"]}],
        "rejected_texts": [{"kind": "test", "reason": "copy", "text": ""}],
        "implementations": [{"agrees": False, "module_source": "<i>"}],
        "num_mutants": 8,
        "num_mutants_killed": 6,
        "surviving_mutants": ["3.4-compare"],
        "agreement": 0.0 if kept else None,
        "num_generated_tokens": 100,
        **shares,
    }


JOB = {
    "model": {"name": "<model>", "weight_format": "int8", "sha256": "ab" * 32},
    "inputs": [{"name": "toolz", "revision": "1.0"}],
    "seed": 3,
    "job_version": 1,
}
LEFT_OUT = [
    Skipped("f", "toolz", "a.py", SkipReason.TRIVIAL, "two lines"),
    Skipped("g", "toolz", "b.py", SkipReason.NESTED),
]


def written(folder: Path, records: list[dict[str, Any]]) -> dict[str, bytes]:
    folder.mkdir()
    write_report(folder, JOB, lambda: records, LEFT_OUT)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_report_is_whole_by_itself_and_the_same_every_time(tmp_path: Path) -> None:
    records = [record(place, kept=place % 3 > 0) for place in range(9)]
    once, again = written(tmp_path / "once", records), written(tmp_path / "again", records)
    assert once == again
    assert set(once) == {"report.html", "report.png", "figures.json", "skipped.parquet"}
    page = once["report.html"].decode()
    assert "http" not in page and "<script" not in page and "<b>toolz" not in page and "<i>" not in page
    assert page.count("data:image/png;base64,") == 2  # For light and for dark.
    assert "less&lt;1&gt;&amp;more" in page
    rows = pq.read_table(tmp_path / "once" / "skipped.parquet").to_pylist()
    assert Counter(row["reason"] for row in rows) == {"trivial": 1, "nested": 1}


def test_a_job_that_keeps_nothing_has_a_report_too(tmp_path: Path) -> None:
    assert b"0 kept for 0 functions" in written(tmp_path / "none", [record(1, kept=False)])["report.html"]
    assert b"0 kept for 0 functions" in written(tmp_path / "empty", [])["report.html"]


def test_an_outcome_counts_what_the_record_lists() -> None:
    outcome = outcome_of(record(1, kept=True))
    assert (outcome.num_kept, outcome.num_candidates, outcome.rejected_texts) == (1, 1, {("test", "copy"): 1})
