"""Which functions become rows, and what of a job's settings is part of its identity."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.catalog import JOBS, job_kind
from zenray.batch.inputs.spec import InputSpec
from zenray.batch.rows import ROW_ID, canonical_json, row_id
from zenray.batch.unit_tests.choose import choose_functions
from zenray.batch.unit_tests.job import UnitTestJob
from zenray.batch.unit_tests.model import MinedFunction, Provenance, SkipReason
from zenray.batch.unit_tests.prompting.generate import GenerateSettings
from zenray.batch.unit_tests.settings import UnitTestSettings
from zenray.errors import NotFound


def function(repository: str, name: str) -> MinedFunction:
    place = Provenance(repository, "", "a.py", 1, 2)
    return MinedFunction(row_id(repository, name), name, name, name, "()", "", "", "", (), "", place)


FUNCTIONS = st.lists(
    st.builds(function, st.sampled_from(["large", "large", "large", "small", "tiny"]), st.text(max_size=4)),
    unique_by=lambda each: each.row_id,
    max_size=30,
)


@settings(deadline=None)
@given(FUNCTIONS, st.integers(0, 12), st.randoms())
def test_a_limit_takes_of_every_repository_whatever_the_order(
    functions: list[MinedFunction], most: int, random: object
) -> None:
    chosen = choose_functions(functions, most)
    shuffled = functions.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose_functions(shuffled, most) == chosen
    assert len(chosen) == min(most, len(functions))
    taken = {name: sum(each.provenance.repository == name for each in chosen) for name in ("large", "small", "tiny")}
    there = {name: sum(each.provenance.repository == name for each in functions) for name in taken}
    for name in taken:  # Nobody has less than its fair share unless all of it is taken.
        assert taken[name] == there[name] or taken[name] >= max(taken.values()) - 1
    assert set(map(id, chosen)) <= set(map(id, choose_functions(functions, most + 1)))
    assert choose_functions(functions, None) == sorted(functions, key=lambda each: each.row_id)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two", "three"):
        loop = f"    total = 0\n    for item in items:\n        total += item * {len(name)}\n"
        text = f"def {name}(items):\n{loop}    return total + len(items)\n\n\ndef trivial():\n    return 1\n"
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "README.md").write_text("# No Python\n")
    return tmp_path


def make(folder: Path, **options: object) -> UnitTestJob:
    return UnitTestJob([InputSpec.parse(f"{folder}#name=here")], 1, UnitTestSettings.model_validate(options))


def test_every_function_seen_is_a_row_or_left_out_with_a_reason(folder: Path) -> None:
    job = make(folder, max_functions=1)
    rows = job.rows(lambda what: None, None)
    _, left_out = job._functions(lambda what: None)
    reasons = sorted(each.reason.value for each in left_out)
    assert len(rows) == 1
    assert len(rows) + len(left_out) == 6
    assert reasons.count(SkipReason.TRIVIAL.value) == 3
    assert job.inputs[0]["name"] == "here" and job.inputs[0]["num_documents"] == 3


def test_what_was_mined_is_said_and_why_the_rest_was_left_out(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said: list[str] = []
    make(folder, max_functions=1).rows(said.append, None)
    assert said[-1] == (
        "files: 3 read, 1 passed over; functions: 1 to write tests for; left out: 3 trivial, 1 duplicate, 1 not chosen"
    )
    make(tmp_path_factory.mktemp("empty")).rows(said.append, None)
    assert said[-1] == "files: 0 read, 0 passed over; functions: 0 to write tests for"


def test_rows_depend_on_the_input_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    elsewhere.mkdir()
    for path in folder.iterdir():
        (elsewhere / path.name).write_bytes(path.read_bytes())
    there, here = (make(each).rows(lambda what: None, None) for each in (elsewhere, folder))
    assert list(map(canonical_json, there)) == list(map(canonical_json, here))
    assert len({row[ROW_ID] for row in here}) == len(here)


def test_every_setting_is_part_of_the_jobs_identity(folder: Path) -> None:
    plain = make(folder).parameters
    assert canonical_json(plain) == canonical_json(make(folder).parameters)
    for options in (
        {"max_functions": 5},
        {"mining": {"max_function_lines": 7}},
        {"generation": {"temperature": 0.1}},
        {"generation": {"openings": []}},
        {"validation": {"max_mutants": 3}},
    ):
        assert make(folder, **options).parameters != plain, options
    assert set(plain["generation"]) == set(GenerateSettings.model_fields)
    assert plain["versions"]["python"].count(".") == 2


def test_jobs_have_names() -> None:
    assert job_kind("unit-tests").make is UnitTestJob
    with pytest.raises(NotFound, match="unit-tests"):
        job_kind("unit-test")
    assert all(kind.settings().model_dump() for kind in JOBS.values())
