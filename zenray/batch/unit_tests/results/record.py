"""The job's record: one Parquet row per function, with every candidate, every reason and every score.

Nothing is filtered away: who trains on the record chooses by its scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from zenray.batch.rows import ERROR, ROW_ID, Row
from zenray.batch.unit_tests.codec import from_row
from zenray.batch.unit_tests.model import (
    CANDIDATES,
    FUNCTION,
    MODEL,
    PROMPT_STYLE,
    SUITE,
    Candidates,
    CandidateTest,
    SuiteScores,
    TestScores,
    Verdict,
)

_STRINGS = pa.list_(pa.string())

_PROVENANCE = pa.struct(
    {
        "repository": pa.string(),
        "revision": pa.string(),
        "path": pa.string(),
        "start_line": pa.int32(),
        "end_line": pa.int32(),
        "licence_file": pa.string(),
    }
)
_TEST = pa.struct(
    {
        "test_id": pa.string(),
        "name": pa.string(),
        "source": pa.string(),
        "kept": pa.bool_(),
        "verdict": pa.string(),
        "detail": pa.string(),
        "reference_passes": pa.int32(),
        "fails_on_stub": pa.bool_(),
        "killed_mutants": _STRINGS,
        "covered_lines": pa.list_(pa.int32()),
        "covered_branches": pa.list_(pa.struct({"from_line": pa.int32(), "to_line": pa.int32()})),
        "passing_implementations": _STRINGS,
    }
)
_IMPLEMENTATION = pa.struct({"implementation_id": pa.string(), "module_source": pa.string(), "agrees": pa.bool_()})
_REJECTED = pa.struct({"kind": pa.string(), "reason": pa.string(), "text": pa.string()})
_MODEL = pa.struct({"name": pa.string(), "sha256": pa.string(), "weight_format": pa.string()})

SCHEMA = pa.schema(
    {
        ROW_ID: pa.string(),
        ERROR: pa.string(),
        "qualified_name": pa.string(),
        "import_name": pa.string(),
        "call_name": pa.string(),
        "signature": pa.string(),
        "docstring": pa.string(),
        "source": pa.string(),
        "module_source": pa.string(),
        "imports": _STRINGS,
        "class_context": pa.string(),
        "similar_tests": _STRINGS,
        "provenance": _PROVENANCE,
        "tests": pa.list_(_TEST),
        "implementations": pa.list_(_IMPLEMENTATION),
        "rejected_texts": pa.list_(_REJECTED),
        "runs_on_reference": pa.bool_(),
        "num_mutants": pa.int32(),
        "num_mutants_killed": pa.int32(),
        "surviving_mutants": _STRINGS,
        "mutation_score": pa.float64(),
        "num_lines": pa.int32(),
        "num_lines_covered": pa.int32(),
        "num_branches": pa.int32(),
        "num_branches_covered": pa.int32(),
        "line_coverage": pa.float64(),
        "branch_coverage": pa.float64(),
        "agreement": pa.float64(),
        "num_generated_tokens": pa.int64(),
        "seeds": pa.list_(pa.int64()),
        "prompt_style": pa.string(),
        "model": _MODEL,
    }
)
"""`error` is null unless a stage gave the function up. `mutation_score`, `line_coverage` and `branch_coverage` are
what the kept tests reach together, null where there is nothing to reach; `agreement` is the share of implementations
that pass all kept tests (`agrees`), null where there is none to ask. Mutants are named as `mutants.make_mutants` names
them; lines count within `module_source`."""

_OF_FUNCTION = SCHEMA.names[2 : SCHEMA.get_field_index("tests")]


def to_record(row: Row) -> dict[str, Any]:
    """A processed row, or one with an `error`, as a row of `SCHEMA`."""
    function = row[FUNCTION]
    candidates = from_row(Candidates, row[CANDIDATES]) if CANDIDATES in row else Candidates((), (), (), 0, ())
    suite = from_row(SuiteScores, row[SUITE]) if SUITE in row else None
    return dict.fromkeys(SCHEMA.names) | {
        ROW_ID: row[ROW_ID],
        ERROR: row.get(ERROR),
        **{name: function[name] for name in _OF_FUNCTION},
        "tests": _tests(candidates, suite),
        "implementations": _implementations(candidates, suite),
        "rejected_texts": [
            {"kind": text.kind, "reason": text.reason, "text": text.text} for text in candidates.rejected
        ],
        **_scores(suite),
        "num_generated_tokens": candidates.num_generated_tokens,
        "seeds": list(candidates.seeds),
        "prompt_style": row.get(PROMPT_STYLE),
        "model": _model(row.get(MODEL)),
    }


def kept_tests(record: Mapping[str, Any]) -> tuple[CandidateTest, ...]:
    """The kept tests of a row of `SCHEMA`, in their order."""
    return tuple(
        CandidateTest(test["test_id"], test["name"], test["source"]) for test in record["tests"] if test["kept"]
    )


def _tests(candidates: Candidates, suite: SuiteScores | None) -> list[dict[str, Any]]:
    scores = {score.test_id: score for score in suite.tests} if suite else {}
    return [
        {"test_id": test.test_id, "name": test.name, "source": test.source, **_test_scores(scores.get(test.test_id))}
        for test in candidates.tests
    ]


def _test_scores(scores: TestScores | None) -> dict[str, Any]:
    """Null where the test was not validated: its function has an `error`, or its module does not run."""
    if scores is None:
        return {"kept": False}
    return {
        "kept": scores.verdict is Verdict.KEPT,
        "verdict": scores.verdict.value,
        "detail": scores.detail,
        "reference_passes": scores.reference_passes,
        "fails_on_stub": scores.fails_on_stub,
        "killed_mutants": list(scores.killed_mutants),
        "covered_lines": list(scores.covered_lines),
        "covered_branches": [{"from_line": line, "to_line": to} for line, to in scores.covered_branches],
        "passing_implementations": list(scores.passing_implementations),
    }


def _implementations(candidates: Candidates, suite: SuiteScores | None) -> list[dict[str, Any]]:
    kept = [score for score in suite.tests if score.verdict is Verdict.KEPT] if suite else []
    return [
        {
            "implementation_id": one.implementation_id,
            "module_source": one.module_source,
            "agrees": all(one.implementation_id in score.passing_implementations for score in kept) if kept else None,
        }
        for one in candidates.implementations
    ]


def _scores(suite: SuiteScores | None) -> dict[str, Any]:
    if suite is None:
        return {}
    return {
        "runs_on_reference": suite.runs_on_reference,
        "num_mutants": suite.num_mutants,
        "num_mutants_killed": suite.num_mutants_killed,
        "surviving_mutants": list(suite.surviving_mutants),
        "mutation_score": _share(suite.num_mutants_killed, suite.num_mutants),
        "num_lines": suite.num_lines,
        "num_lines_covered": suite.num_lines_covered,
        "num_branches": suite.num_branches,
        "num_branches_covered": suite.num_branches_covered,
        "line_coverage": _share(suite.num_lines_covered, suite.num_lines),
        "branch_coverage": _share(suite.num_branches_covered, suite.num_branches),
        "agreement": suite.agreement,
    }


def _model(model: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return {field.name: model[field.name] for field in _MODEL} if model else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
