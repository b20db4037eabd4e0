"""The job without a cluster: what it plans, what its stage makes of that, what is refused, what a kill leaves."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import zenray
from tests.unit.batch.teacher_logits.toy_job import Killed, make_job, planned, run, write_texts
from tests.unit.batch.teacher_logits.toy_teacher import WIDTH, ToyTeacher, toy_rows
from zenray.batch.job import ServedModel
from zenray.batch.output.verify import verify_output
from zenray.batch.rows import ERROR, ROW_ID, Row, derive_seed
from zenray.batch.teacher_logits import code
from zenray.batch.teacher_logits.codec import from_row
from zenray.batch.teacher_logits.columns import SEGMENT_FIELDS, segments_of
from zenray.batch.teacher_logits.planning.plan import plan_sequences
from zenray.batch.teacher_logits.reading.fidelity import kl_estimate
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.sequence import decode_hidden, decode_sequence, encode_sequence
from zenray.batch.teacher_logits.results.check import unreadable_rows
from zenray.batch.teacher_logits.results.record import HIDDEN_STATES, num_scored
from zenray.context.languages.registry import language_of
from zenray.engine.noise import uniform
from zenray.engine.prompt_reader import quantise_rows
from zenray.engine.row_scorer import RowScorer
from zenray.engine.scoring import Scoring
from zenray.errors import InvalidRequest, OutputOfAnotherJob


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


def promised(output: Path) -> Mapping[str, bytes]:
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("runs/")}


@pytest.fixture(scope="module")
def output(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output") / "whole"
    run(make_job(texts, hidden_layers=[2, 0]), folder, ToyTeacher())
    return folder


def test_every_record_is_what_the_teacher_says_as_far_as_its_format_goes(output: Path, texts: Path) -> None:
    """Tokens, segments, heads and hidden states of every row, against the teacher asked again."""
    teacher = ToyTeacher()
    rows = {row[ROW_ID]: from_row(row) for row in planned(make_job(texts, hidden_layers=[0, 2]), teacher)}
    table, hidden = (pq.read_table(output / name) for name in ("shards", HIDDEN_STATES))
    footer = Footer.from_metadata(table.schema.metadata)
    assert footer.teacher == {"name": "toy", "sha256": "0" * 64, "weight_format": "float64"}
    assert footer.hidden_layers == (0, 2)
    assert table.num_rows == hidden.num_rows == len(rows) > 2
    for record, states in zip(table.to_pylist(), hidden.to_pylist(), strict=True):
        sequence = rows[record[ROW_ID]]
        assert record[ERROR] is None and states[ROW_ID] == record[ROW_ID]
        form = footer.record_format
        shape = (sequence.num_tokens, sequence.num_scored)
        token_ids_T, found = decode_sequence(record[ROW_ID], record, *shape, form, footer.vocabulary)
        columns = {field.name: record[field.name] for field in SEGMENT_FIELDS}
        assert segments_of(columns, token_ids_T.tolist()) == sequence.segments
        states_found = decode_hidden(record[ROW_ID], states, footer.hidden_layers, sequence.num_scored)
        at = 0
        for index, segment in enumerate(sequence.segments):
            scoring = Scoring(form.score_format, segment.first_scored, (0, 2))
            seed = derive_seed(3, record[ROW_ID], "score", index)
            said = toy_rows(segment.token_ids, scoring, seed, teacher.model.vocab_size)
            part = slice(at, at + said.num_rows)
            assert (found.head_counts_R[part] <= said.head_counts_R).all()
            assert np.allclose(found.gold_logprobs_R[part], said.gold_logprobs_R, atol=0.02)
            assert np.allclose(found.entropies_R[part], said.entropies_R, atol=0.02)
            assert np.array_equal(states_found[2].values_RD[part], said.hidden[2].values_RD)
            at += said.num_rows
        assert states_found[0].values_RD.shape == (at, WIDTH)


def test_the_output_is_sound_and_its_report_adds_up(output: Path, texts: Path) -> None:
    report = verify_output(output, unreadable_rows)
    assert report.sound and report.complete
    told = json.loads((output / "report" / "report.json").read_text())
    rows = planned(make_job(texts), ToyTeacher())
    scored = sum(from_row(row).num_scored for row in rows)
    assert told["tokens"]["num_scored"] == told["plan"]["num_scored"] == report.tokens == scored
    assert sum(group["num_scored"] for group in told["groups"]) == scored
    assert {group["language"] for group in told["groups"]} >= {"python", "markdown"}
    assert all(sum(each["counts"]) == scored for each in told["histograms"].values())
    files = sum(path.stat().st_size for path in (output / "shards").iterdir())
    assert told["bytes"]["num"] == files
    assert sum(told["bytes"]["per_scored_token_by_column"].values()) == pytest.approx(files / scored)
    assert 0 < told["fidelity"]["kl_mean_nats"] < told["fidelity"]["kl_p99_nats"] <= told["fidelity"]["kl_max_nats"]
    page = (output / "report" / "report.html").read_text()
    assert f"{scored:,} tokens" in page and "markdown" in page


def test_a_format_without_a_tail_says_what_that_costs(output: Path, texts: Path, tmp_path: Path) -> None:
    """The draws that tell it are asked for, and not kept."""
    run(make_job(texts, format="top-8"), tmp_path / "out", ToyTeacher())
    lost, kept = (
        json.loads((folder / "report" / "report.json").read_text())["fidelity"] for folder in (tmp_path / "out", output)
    )
    assert lost["kl_mean_nats"] > 2 * kept["kl_mean_nats"] > 0
    assert lost["head_entries_mean"] == 8
    assert verify_output(tmp_path / "out", unreadable_rows).sound


def test_a_killed_job_goes_on_to_the_same_bytes(output: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(make_job(texts, hidden_layers=[0, 2]), tmp_path / "out", ToyTeacher(), shards_before_kill=1)
    run(make_job(texts, hidden_layers=[0, 2]), tmp_path / "out", ToyTeacher())
    assert promised(tmp_path / "out") == promised(output)


def test_another_format_or_other_code_goes_on_with_no_output(
    output: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputOfAnotherJob, match='format is "compact-255" there, "top-8" now'):
        run(make_job(texts, hidden_layers=[0, 2], format="top-8"), output, ToyTeacher())
    monkeypatch.setattr("zenray.batch.teacher_logits.job.code_digest", lambda: "f" * 64)
    with pytest.raises(OutputOfAnotherJob, match=r'zenray_sources_sha256 is "[0-9a-f]{64}" there, "fff'):
        run(make_job(texts, hidden_layers=[0, 2]), output, ToyTeacher())


def test_the_digest_of_the_code_is_of_files_that_are_there() -> None:
    root = Path(zenray.__file__).parent
    missing = [name for name in code._DECIDING if not (root / name).exists()]
    assert not missing and len(code.code_digest()) == 64


def test_the_digest_of_the_code_covers_whatever_decides_a_record() -> None:
    root = Path(zenray.__file__).parent
    deciding = (
        quantise_rows,
        uniform,
        RowScorer,
        language_of,
        plan_sequences,
        encode_sequence,
        kl_estimate,
        derive_seed,
    )
    for each in deciding:
        source = Path(inspect.getsourcefile(each) or "").relative_to(root)
        assert any(source.is_relative_to(name) for name in code._DECIDING), source


def test_a_sequence_that_cannot_be_scored_says_why_and_what_it_was(texts: Path, tmp_path: Path) -> None:
    """Of a sequence with several such segments always the same one is named."""
    run(make_job(texts), tmp_path / "out", ToyTeacher(refused=ord("#")))
    records = pq.read_table(tmp_path / "out" / "shards").to_pylist()
    failed = [record for record in records if record[ERROR]]
    assert 0 < len(failed) < len(records)
    for record in failed:
        assert record[ERROR].startswith("extract: token_ids is ") and "no 35" in record[ERROR]
        assert "page.md" in record["segment_paths"] and record["checksum"] is None
    assert json.loads((tmp_path / "out" / "report" / "report.json").read_text())["errors"]
    assert verify_output(tmp_path / "out").sound


def test_the_segments_of_a_sequence_are_asked_for_at_once(texts: Path) -> None:
    teacher = ToyTeacher()
    job = make_job(texts)
    rows = planned(job, teacher)
    row = max(rows, key=lambda each: len(from_row(each).segments))
    stage = job.stages[0].make()

    async def ask() -> Row:
        await stage.open(teacher)
        return await stage.process(row)

    assert num_scored(asyncio.run(ask())) == from_row(row).num_scored
    assert teacher.most_under_way == len(from_row(row).segments) > 1


def test_layers_that_the_teacher_does_not_have_end_the_job_and_not_every_row(texts: Path) -> None:
    teacher = ToyTeacher()
    job = make_job(texts, hidden_layers=[1, 3])
    planned(job, teacher)
    with pytest.raises(InvalidRequest, match=r"hidden_layers is \(1, 3\); allowed: 0 to 2"):
        asyncio.run(job.stages[0].make().open(teacher))


def test_more_records_than_a_request_may_ask_for_end_the_job_and_not_every_row(
    texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(texts, format="top-8", hidden_layers=[0, 2])
    teacher = ToyTeacher()
    planned(job, teacher)
    bytes_a_token = 16 + 8 * 8 + 4 * 4 + 2 * (WIDTH + 4)
    monkeypatch.setattr("zenray.batch.teacher_logits.extract.MAX_RECORD_BYTES", 95 * bytes_a_token)
    asyncio.run(job.stages[0].make().open(teacher))
    monkeypatch.setattr("zenray.batch.teacher_logits.extract.MAX_RECORD_BYTES", 95 * bytes_a_token - 1)
    with pytest.raises(InvalidRequest, match=r"window_tokens is 96; allowed: fewer tokens: .* with 2 hidden layers"):
        asyncio.run(job.stages[0].make().open(teacher))


def test_heads_longer_than_a_vocabulary_are_refused_before_anything_is_planned(texts: Path) -> None:
    teacher = ToyTeacher()
    teacher.model = replace(teacher.model, vocab_size=200)
    with pytest.raises(InvalidRequest, match="format is 'compact-255'; allowed: at most the 200 tokens of toy"):
        planned(make_job(texts, format="compact-255"), teacher)


def test_windows_that_the_teacher_cannot_read_are_refused_before_anything_is_planned(texts: Path) -> None:
    with pytest.raises(InvalidRequest, match="window_tokens is 96; allowed: at most the 64 that toy reads"):
        planned(make_job(texts), ToyTeacher(context_length=64))


def test_a_row_with_the_values_of_another_is_found_whatever_the_sums_say(output: Path) -> None:
    """As by a job that mixes up what its workers made: every file is as it was listed."""
    tables = {"": pq.read_table(output / "shards"), HIDDEN_STATES: pq.read_table(output / HIDDEN_STATES)}
    assert list(unreadable_rows(tables)) == []
    for name, column in (("", "entropies"), ("", "checksum"), (HIDDEN_STATES, "hidden_2_scales")):
        values = tables[name][column].to_pylist()
        at, field = tables[name].column_names.index(column), tables[name].schema.field(column)
        mixed = tables[name].set_column(at, field, [pa.array([values[1], values[0], *values[2:]], field.type)])
        assert [found for found, _ in unreadable_rows({**tables, name: mixed})] == [name, name]


def test_hidden_states_that_are_missing_or_of_no_record_are_found(output: Path) -> None:
    tables = {"": pq.read_table(output / "shards"), HIDDEN_STATES: pq.read_table(output / HIDDEN_STATES)}
    first, *others = tables[""][ROW_ID].to_pylist()
    fewer = {**tables, HIDDEN_STATES: tables[HIDDEN_STATES].slice(1)}
    assert list(unreadable_rows(fewer)) == [(HIDDEN_STATES, f"row {first}: has records, but no hidden states")]
    more = {**tables, "": tables[""].slice(0, 1)}
    assert [name for name, _ in unreadable_rows(more)] == [HIDDEN_STATES] * len(others)


def test_a_row_without_its_values_is_a_finding(output: Path) -> None:
    table = pq.read_table(output / "shards")
    for column in ("token_ranks", "checksum", "segment_lengths", "segment_modes"):
        at, field = table.column_names.index(column), table.schema.field(column)
        without = table.set_column(at, field, [pa.array([None, *table[column].to_pylist()[1:]], field.type)])
        assert [name for name, _ in unreadable_rows({"": without})] == [""]


def test_what_was_planned_is_said_and_for_which_teacher(texts: Path) -> None:
    teacher, said = ToyTeacher(), list[str]()
    make_job(texts).rows(said.append, ServedModel(teacher.model, teacher.tokenizer))
    assert said[-1].startswith("files: ") and f" for {teacher.model.name} ({teacher.model.weight_format})" in said[-1]
