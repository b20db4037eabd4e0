"""`zenray jobs acceptance`: every record counted once, by language, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.batch.teacher_logits.toy_job import make_job, run, write_texts
from tests.unit.batch.teacher_logits.toy_teacher import ToyTeacher
from zenray.batch.teacher_logits.reading.reader import RecordReader
from zenray.cli.main import app


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drafted")
    run(make_job(write_texts(folder / "texts")), folder / "out", ToyTeacher())
    return folder / "out"


def acceptance(output: Path, *options: str, exit_code: int = 0) -> str:
    arguments = ["jobs", "acceptance", str(output), "--draft", "preset:tiny", *options]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160", "TERM": "dumb"})
    assert result.exit_code == exit_code, result.output
    return result.stderr if exit_code else result.stdout


def records_by_language(output: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for sequence in RecordReader(output):
        for segment, rows in sequence.by_segment():
            counts[segment.language] += rows.num_rows
    return counts


def test_every_record_is_counted_once(output: Path) -> None:
    report = json.loads(acceptance(output, "--gamma", "4", "--json"))
    counted = {name: found["positions"] for name, found in report["languages"].items()}
    by_language = records_by_language(output)
    assert counted == {"all": by_language.total(), **by_language} and len(by_language) > 1
    for found in report["languages"].values():
        assert 0 < found["greedy"]["rounds"][0] <= found["positions"]
        pairs = zip(found["temperature_1_at_least"]["rates"], found["temperature_1_at_most"]["rates"], strict=True)
        assert all(0 <= low <= high <= 1 for low, high in pairs)
    assert json.loads((output / "runs/acceptance/preset-tiny.json").read_text()) == report


def test_a_sample_ends_with_a_whole_text(output: Path) -> None:
    report = json.loads(acceptance(output, "--max-tokens", "1", "--json"))
    first = next(iter(RecordReader(output)))
    assert report["languages"]["all"]["positions"] == next(iter(first.by_segment()))[1].num_rows


def test_the_table_says_what_its_numbers_are(output: Path) -> None:
    shown = acceptance(output, "--gamma", "4")
    assert "token 4" in shown and "token 8" not in shown and "temperature 1" in shown and "python" in shown
    assert (output / "runs/acceptance/preset-tiny.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_that_cannot_draft_is_refused(output: Path, tmp_path: Path) -> None:
    assert "has no job in it" in acceptance(tmp_path, exit_code=1)
    assert "another tokenizer" in acceptance(output, "--draft", "preset:zen4-coder-draft", exit_code=1)
