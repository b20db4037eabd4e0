"""What a document says of the unit-test job is what its figures say."""

from __future__ import annotations

from typing import Any

from zenray.bench.document import update_document

REPORT: dict[str, Any] = {
    "kind": "unit_tests",
    "created": "2026-01-02T03:04:05+00:00",
    "machine": {"processor": "P", "cores": 2},
    "model": {"name": "m", "weight_format": "int8"},
    "run": {"elapsed_s": 120.0, "tokens": 6000},
    "figures": {
        "functions": [["seen", 1000], ["chosen", 10], ["with kept tests", 5]],
        "tests": [["generated", 80], ["kept", 20]],
        "rejected": {"fails_on_reference": 40, "flaky": 20},
        "repositories": [
            {"repository": name, "num_functions": 5, "num_with_kept": kept, "num_candidates": 40, "num_kept": 4 * kept,
             "mutation_score": 0.5 if kept else None, "line_coverage": 0.75 if kept else None}
            for name, kept in (("cpython", 5), ("toolz", 0))
        ],
        "mutants": {"killed": 30, "made": 60},
        "means": {"mutation_score": 0.5, "agreement": None},
    },
    "recheck": {
        "tests": 20, "tests_passed": 19, "sampled": 3, "sampled_agreeing": 2, "problems": ["f: test_f: failed"],
        "figures": [{"name": "mutants killed", "recorded": 12, "found": 12}],
    },
}  # fmt: skip


def test_the_block_of_a_document_is_written_from_a_report() -> None:
    page = "# Page\n\n<!-- unit_tests:begin -->\nold\n<!-- unit_tests:end -->\n"
    page = update_document(page, REPORT)
    assert "old" not in page
    for line in (
        "| with kept tests | 5 | 50% |",
        "| kept | 20 | 25% |",
        "| cpython | 5 | 5 | 40 | 20 | 0.50 | 0.75 |",
        "| toolz | 5 | 0 | 40 | 0 | - | - |",
        "| mutants killed | 12 | 12 |",
        "- f: test_f: failed",
    ):
        assert line in page.splitlines()
    assert "10 functions of cpython and toolz" in page and "300 tokens per kept test" in page
    assert "fails on reference (40), flaky (20)" in page and "19 of 20 kept tests pass" in page
