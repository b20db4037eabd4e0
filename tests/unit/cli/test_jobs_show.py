"""`zenray jobs show`: the text of a sequence, whole, and where the teacher expected something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.batch.teacher_logits.toy_job import make_job, planned, run, write_texts
from tests.unit.batch.teacher_logits.toy_teacher import ToyTeacher
from zenray.batch.teacher_logits.codec import from_row
from zenray.cli.main import app


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    run(make_job(write_texts(folder / "texts")), folder / "out", ToyTeacher())
    return folder / "out"


def show(output: Path, *options: str, exit_code: int = 0) -> str:
    """What it says; of a refusal, why."""
    arguments = ["jobs", "show", str(output), "--model", "preset:tiny", *options]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == exit_code, result.output
    return result.stderr if exit_code else result.stdout


def test_every_sequence_is_shown_whole(output: Path) -> None:
    teacher = ToyTeacher()
    rows = planned(make_job(output.parent / "texts"), teacher)
    for number, sequence in enumerate(map(from_row, rows)):
        shown = show(output, "--row", str(number))
        assert sequence.row_id in shown and f"{sequence.num_scored:,} of them with a record" in shown
        for segment in sequence.segments:
            assert f"{segment.path}" in shown and f"({segment.language}, {segment.mode.value})" in shown
            text = "".join(
                teacher.tokenizer.control_token_text(each) or teacher.tokenizer.decode([each])
                for each in segment.token_ids
            )
            assert text in shown


def test_rows_count_those_with_an_error(output: Path, tmp_path: Path) -> None:
    job = make_job(output.parent / "texts", sequences_per_shard=100)
    rows = [from_row(row) for row in planned(job, ToyTeacher())]
    first, last = ({each for segment in row.segments for each in segment.token_ids} for row in (rows[0], rows[-1]))
    refused = min(first - last)
    run(job, tmp_path / "out", ToyTeacher(refused=refused))
    is_wrong = [any(refused in segment.token_ids for segment in row.segments) for row in rows]
    assert is_wrong[0] and not all(is_wrong)
    for number, row in enumerate(rows):
        said = show(tmp_path / "out", "--row", str(number), exit_code=int(is_wrong[number]))
        assert ("without those that have an error" if is_wrong[number] else f"{number}, {row.row_id}") in said


def test_surprises_name_what_the_teacher_expected(output: Path) -> None:
    shown = show(output, "--row", "0", "--surprises", "3")
    table = shown.partition("the teacher thought of")[2].strip().splitlines()[1:4]
    assert len(table) == 3 and "the teacher thought of" not in show(output, "--surprises", "0")


def test_what_cannot_be_shown_is_refused(output: Path, tmp_path: Path) -> None:
    assert "--row is 999; allowed: 0 to " in show(output, "--row", "999", exit_code=1)
    assert "spelled by preset:tinny, which is not here" in show(output, "--model", "preset:tinny", exit_code=1)
    assert "has no job in it" in show(tmp_path, exit_code=1)
