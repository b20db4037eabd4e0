"""A function's record tells everything that the stages found out, and nothing of it changes on the way to disk."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.rows import ROW_ID, canonical_json
from zenray.batch.unit_tests.codec import to_row
from zenray.batch.unit_tests.model import (
    CANDIDATES,
    FUNCTION,
    SUITE,
    Candidates,
    CandidateTest,
    Implementation,
    MinedFunction,
    Provenance,
    RejectedText,
    SuiteScores,
    TestScores,
    Verdict,
)
from zenray.batch.unit_tests.results.record import SCHEMA, kept_tests, to_record

_COUNT = st.integers(0, 2**31 - 1)
_TEXT = st.text(max_size=8)
_TEXTS = st.lists(_TEXT, max_size=2).map(tuple)
_SCORES = st.builds(
    TestScores,
    test_id=_TEXT,
    verdict=st.sampled_from(Verdict),
    detail=_TEXT,
    reference_passes=_COUNT,
    fails_on_stub=st.booleans(),
    killed_mutants=_TEXTS,
    covered_branches=st.lists(st.tuples(_COUNT, st.integers(-9, 9)), max_size=2).map(tuple),
    covered_lines=st.lists(_COUNT, max_size=2).map(tuple),
    passing_implementations=st.lists(st.sampled_from(["i0", "i1"]), unique=True).map(tuple),
)


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """A row as validation leaves it, after its way through JSON."""
    provenance = Provenance(draw(_TEXT), draw(_TEXT), draw(_TEXT), draw(_COUNT), draw(_COUNT))
    names = {name: draw(_TEXT) for name in ("row_id", "qualified_name", "import_name", "call_name", "signature")}
    texts = {name: draw(_TEXT) for name in ("docstring", "source", "module_source", "class_context")}
    function = MinedFunction(**names, **texts, imports=draw(_TEXTS), provenance=provenance)
    rejected = tuple(RejectedText("test", "does not parse", text) for text in draw(_TEXTS))
    implementations = tuple(Implementation(name, draw(_TEXT)) for name in ("i0", "i1"))
    tests = tuple(CandidateTest(f"t{place}", f"test_{place}", draw(_TEXT)) for place in range(3))
    scores = tuple(replace(draw(_SCORES), test_id=test.test_id) for test in tests[: draw(st.integers(0, 3))])
    killed, mutants = sorted(draw(st.tuples(_COUNT, _COUNT)))
    suite = SuiteScores(
        runs_on_reference=draw(st.booleans()),
        tests=scores,
        num_mutants=mutants,
        num_mutants_killed=killed,
        surviving_mutants=draw(_TEXTS),
        num_lines=draw(_COUNT),
        num_lines_covered=0,
        num_branches=0,
        num_branches_covered=0,
        num_implementations=len(implementations),
        agreement=draw(st.none() | st.floats(0, 1)),
    )
    row = {
        ROW_ID: draw(_TEXT),
        FUNCTION: to_row(function),
        CANDIDATES: to_row(Candidates(tests, implementations, rejected, draw(_COUNT), (draw(_COUNT),))),
        SUITE: to_row(suite),
    }
    return json.loads(canonical_json(row))


def through_parquet(record: dict[str, Any]) -> dict[str, Any]:
    """The record as a reader of the shard gets it."""
    assert set(record) == set(SCHEMA.names)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([record], schema=SCHEMA), file)
    return pq.read_table(io.BytesIO(file.getvalue())).to_pylist()[0]


@settings(max_examples=40, deadline=None)
@given(rows())
def test_a_record_holds_every_test_with_its_scores_and_every_implementation(row: dict[str, Any]) -> None:
    record = through_parquet(to_record(row))
    assert record["error"] is None
    assert {name: record[name] for name in ("source", "signature", "provenance")} == {
        name: row[FUNCTION][name] for name in ("source", "signature", "provenance")
    }
    assert [test["source"] for test in record["tests"]] == [test["source"] for test in row[CANDIDATES]["tests"]]
    scored = {test["test_id"]: test for test in record["tests"] if test["verdict"] is not None}
    assert list(scored) == [score["test_id"] for score in row[SUITE]["tests"]]
    for score in row[SUITE]["tests"]:
        test = scored[score["test_id"]]
        for name in ("verdict", "detail", "killed_mutants", "covered_lines", "passing_implementations"):
            assert test[name] == score[name]
        branches = [[branch["from_line"], branch["to_line"]] for branch in test["covered_branches"]]
        assert branches == score["covered_branches"]
    assert record["rejected_texts"] == row[CANDIDATES]["rejected"]


@settings(max_examples=40, deadline=None)
@given(rows())
def test_shares_are_of_what_there_was_and_null_where_there_was_nothing(row: dict[str, Any]) -> None:
    record, suite = to_record(row), row[SUITE]
    if suite["num_mutants"]:
        assert record["mutation_score"] == suite["num_mutants_killed"] / suite["num_mutants"]
    else:
        assert record["mutation_score"] is None


@settings(max_examples=40, deadline=None)
@given(rows())
def test_an_implementation_agrees_when_it_passes_every_kept_test(row: dict[str, Any]) -> None:
    record = through_parquet(to_record(row))
    kept = {test.test_id for test in kept_tests(record)}
    assert kept == {score["test_id"] for score in row[SUITE]["tests"] if score["verdict"] == "kept"}
    for one in record["implementations"]:
        passed = {
            score["test_id"]
            for score in row[SUITE]["tests"]
            if one["implementation_id"] in score["passing_implementations"]
        }
        assert one["agrees"] == (kept <= passed if kept else None)


@settings(max_examples=40, deadline=None)
@given(rows())
def test_a_function_that_a_stage_gave_up_keeps_its_source_and_the_reason(row: dict[str, Any]) -> None:
    given_up = {ROW_ID: row[ROW_ID], FUNCTION: row[FUNCTION], "error": "prompt too long"}
    record = through_parquet(to_record(given_up))
    assert (record["error"], record["source"]) == ("prompt too long", row[FUNCTION]["source"])
    assert record["tests"] == [] and record["num_mutants"] is None and record["model"] is None
