"""What a driver may do with an output folder, and what it is told when it may not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch.output.small_job import (
    HIDDEN,
    NUM_SHARDS,
    ROW_IDS,
    SPEC,
    companions,
    files,
    num_tokens,
    run_job,
    table,
    write,
)
from zenray.batch.job import JobSpec, ModelIdentity
from zenray.batch.output.disk import write_durably
from zenray.batch.output.spec import job_bytes, spec_differences
from zenray.batch.output.store import OutputStore
from zenray.batch.output.verify import verify_output
from zenray.errors import OutputDamaged, OutputOfAnotherJob

Files = dict[str, bytes]


def _open(path: Path, spec: JobSpec = SPEC, num_shards: int = NUM_SHARDS) -> OutputStore:
    return OutputStore.open(path, spec, num_shards, companions=[HIDDEN])


def test_a_driver_goes_on_where_the_last_one_stopped(tmp_path: Path, uninterrupted: Files) -> None:
    with _open(tmp_path / "out") as store:
        assert store.finished == set()
        write(store, 2)
    with _open(tmp_path / "out") as store:
        assert store.finished == {2}
        write(store, 0)
        write(store, 1)
        store.complete()
    assert files(tmp_path / "out") == uninterrupted


def test_a_finished_output_is_opened_again_and_nothing_changes(output: Path, uninterrupted: Files) -> None:
    with _open(output) as store:
        assert store.finished == set(range(NUM_SHARDS))
        store.complete()
    assert files(output) == uninterrupted


def test_a_job_without_rows_has_an_output_too(tmp_path: Path) -> None:
    spec = replace(SPEC, row_ids_sha256="")
    with _open(tmp_path / "out", spec, num_shards=0) as store:
        store.complete()
    assert json.loads((tmp_path / "out/manifest.json").read_text())["shards"] == []


def test_without_companions_the_list_of_shards_speaks_of_none(tmp_path: Path) -> None:
    """As it did before anything had companions, so that such outputs stay what they are."""
    with OutputStore.open(tmp_path, SPEC, NUM_SHARDS) as store:
        for index in range(NUM_SHARDS):
            store.write(index, table(index), num_tokens(index))
        journal = (tmp_path / "manifest.journal").read_text()
        store.complete()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "companion" not in journal and list(manifest) == ["job_sha256", "num_shards", "rows", "shards", "tokens"]
    assert {*map(tuple, manifest["shards"])} == {("bytes", "file", "rows", "sha256", "shard", "tokens")}
    assert b"companion" not in (tmp_path / "shards/part-00000.parquet").read_bytes()
    assert verify_output(tmp_path).sound


@pytest.mark.parametrize("name", ["shards", "runs", "report", "tests", "", "..", "a/b", "Hidden", "hidden.parquet"])
def test_a_companion_takes_nobody_elses_place(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a companion"):
        OutputStore.open(tmp_path / "out", SPEC, NUM_SHARDS, companions=[name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [[], [HIDDEN, "more"], ["more"]])
def test_an_output_begun_with_other_companions_is_refused(names: list[str], output: Path, uninterrupted: Files) -> None:
    with pytest.raises(OutputDamaged, match=f"the companions hidden, the job's {', '.join(names) or 'none'}"):
        OutputStore.open(output, SPEC, NUM_SHARDS, companions=names)
    assert files(output) == uninterrupted and not (output / "more").exists()


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (companions(2)[HIDDEN], "hidden/part-00000.parquet would have other rows than its shard"),
        (companions(0)[HIDDEN].take([1, 0]), "in another order"),
        (companions(0)[HIDDEN].take([0, 0]), "other rows than its shard"),
        (companions(0)[HIDDEN].drop_columns("row_id"), "no column row_id"),
        (companions(0)[HIDDEN].append_column("more", pa.array(range(2))), "another schema"),
    ],
)
def test_a_companion_that_is_not_of_its_shard_is_refused(bad: pa.Table, complaint: str, tmp_path: Path) -> None:
    with _open(tmp_path / "out") as store:
        write(store, 2)
    before = files(tmp_path / "out")
    with _open(tmp_path / "out") as store:  # The schema is known from the disk.
        with pytest.raises(OutputDamaged, match=complaint):
            store.write(0, table(0), num_tokens(0), {HIDDEN: bad})
        assert store.finished == {2} and files(tmp_path / "out") == before


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_lost_companion_is_made_again_with_its_shard(damage: str, output: Path, uninterrupted: Files) -> None:
    file = output / "hidden/part-00002.parquet"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes((output / "hidden/part-00000.parquet").read_bytes())
    with _open(output) as store:
        assert store.finished == {0, 1} and list(store.lost) == [2]
        assert HIDDEN in store.lost[2] and damage in store.lost[2]
        with pytest.raises(OutputDamaged, match="lost and has come out differently"):
            store.write(2, table(2), num_tokens(2), companions(1))
        write(store, 2)
        store.complete()
    assert files(output) == uninterrupted


def test_another_spec_is_refused_with_what_differs(output: Path, uninterrupted: Files) -> None:
    model = ModelIdentity("tiny", "00", "bf16", 128, 256)
    other = replace(
        SPEC, seed=8, model=model, parameters={"samples": 2, "style": {"name": "plain", "stops": ["a", "c"]}}
    )
    with pytest.raises(OutputOfAnotherJob) as caught:
        _open(output, other)
    message = str(caught.value)
    assert 'parameters.style.stops[1] is "b" there, "c" now' in message
    assert "seed is 7 there, 8 now" in message
    assert "model is null there, absent now" in message and 'model.name is absent there, "tiny" now' in message
    assert "samples" not in message
    assert files(output) == uninterrupted
    run_job(output)  # The refused driver has given the lease back.


@given(st.dictionaries(st.text(max_size=3), st.recursive(st.integers() | st.text(max_size=3), st.lists, max_leaves=4)))
def test_specs_differ_in_some_field_exactly_if_they_differ(parameters: dict[str, object]) -> None:
    other = replace(SPEC, parameters=parameters)
    assert spec_differences(job_bytes(other), other) == []
    assert (spec_differences(job_bytes(SPEC), other) == []) == (parameters == SPEC.parameters)


def test_many_differences_are_counted_beyond_a_few(output: Path) -> None:
    other = replace(SPEC, inputs=tuple({"name": str(number)} for number in range(500)))
    with pytest.raises(OutputOfAnotherJob, match=r"; 48\d more fields differ\."):
        _open(output, other)


def test_a_folder_that_is_no_output_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputDamaged, match=r"no job\.json but thesis\.tex"):
        _open(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_shards_without_a_list_are_not_begun_anew(output: Path, uninterrupted: Files) -> None:
    """Somebody deleted the manifest; that must not cost the days that the shards took."""
    (output / "manifest.json").unlink()
    with pytest.raises(OutputDamaged, match=r"neither manifest\.json nor manifest\.journal"):
        _open(output)
    (output / "manifest.json").write_bytes(uninterrupted["manifest.json"])
    run_job(output)
    assert files(output) == uninterrupted


def test_what_killed_runs_left_is_cleared_away_except_in_runs(output: Path, uninterrupted: Files) -> None:
    leftover = ".part-00001.parquet.0123456789abcdef.tmp"
    for folder in ("shards", "report/plots", "runs"):
        (output / folder).mkdir(parents=True, exist_ok=True)
        (output / folder / leftover).write_bytes(b"half")
    (output / "report" / ".mine.tmp").write_bytes(b"not a temporary of ours")
    run_job(output)
    assert files(output) == {**uninterrupted, "report/.mine.tmp": b"not a temporary of ours"}
    assert (output / "runs" / leftover).exists()


def test_a_shard_that_no_list_vouches_for_is_made_again(tmp_path: Path, uninterrupted: Files) -> None:
    output = tmp_path / "out"
    with _open(output) as store:
        write(store, 0)
    stray = output / "shards/part-00001.parquet"
    stray.write_bytes(uninterrupted["shards/part-00000.parquet"])
    with _open(output) as store:
        assert store.finished == {0} and store.lost == {}
    run_job(output)
    assert files(output) == uninterrupted


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_lost_shard_is_made_again_to_the_listed_bytes(
    damage: str, complete: bool, tmp_path: Path, uninterrupted: Files, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    with _open(output) as store:
        for index in range(NUM_SHARDS):
            write(store, index)
        if complete:
            store.complete()
    shard = output / "shards/part-00001.parquet"
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes().replace(b"zenray.shard", b"zenray.shart"))
    with _open(output) as store:
        assert store.finished == {0, 2} and set(store.lost) == {1}
        assert "part-00001.parquet: " in caplog.text and damage in caplog.text
        other = table(1).set_column(3, "length", pa.array([0] * 4))
        with pytest.raises(OutputDamaged, match="lost and has come out differently"):
            store.write(1, other, num_tokens(1), companions(1))
        assert set(store.lost) == {1}
        write(store, 1)
        store.complete()
    assert files(output) == uninterrupted


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (table(0).slice(0, 3), "3 rows, planned are 4"),
        (pa.concat_tables([table(0).slice(0, 3), table(0).slice(2, 1)]), "a row twice"),
        (table(0).drop_columns("row_id"), "no column row_id"),
        (table(0).set_column(0, "row_id", pa.array([None] * 4, pa.string())), "other things than texts"),
        (table(0).append_column("more", pa.array(range(4))), "another schema"),
        (table(0).replace_schema_metadata({"teacher": "another"}), "another schema"),
    ],
)
def test_a_table_that_is_no_planned_shard_is_refused(bad: pa.Table, complaint: str, tmp_path: Path) -> None:
    with _open(tmp_path / "out") as store:
        write(store, 2)
    with _open(tmp_path / "out") as store:  # The schema is known from the disk.
        with pytest.raises(OutputDamaged, match=complaint):
            store.write(0, bad, 0, companions(0))
        assert store.finished == {2}


def test_a_driver_that_says_which_rows_it_planned_is_held_to_them(tmp_path: Path, uninterrupted: Files) -> None:
    with OutputStore.open(tmp_path / "out", SPEC, NUM_SHARDS, ROW_IDS, [HIDDEN]) as store:
        for index, other in ((0, table(1)), (0, table(0).take([1, 0, 2, 3])), (1, table(0))):
            with pytest.raises(OutputDamaged, match="other rows than the planned ones"):
                store.write(index, other, 0, companions(index))
        for index in range(NUM_SHARDS):
            write(store, index)
        store.complete()
    assert files(tmp_path / "out") == uninterrupted


@pytest.mark.parametrize("swap", [False, True], ids=["a row twice", "another order"])
def test_rows_that_are_not_the_planned_ones_never_become_a_finished_output(swap: bool, tmp_path: Path) -> None:
    tables = [table(1), table(0)] if swap else [table(0), table(0)]
    with _open(tmp_path / "out") as store:
        for index, each in enumerate([*tables, table(2)]):
            store.write(index, each, 0, companions(1))  # Whatever the shard's rows, none stands beside it.
        with pytest.raises(OutputDamaged, match="not the planned ones" if swap else r"rows \(0, 4\) .* one row twice"):
            store.complete()
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_list_of_another_plan_is_refused(tmp_path: Path) -> None:
    with _open(tmp_path / "out") as store:
        write(store, 0)
    with pytest.raises(OutputDamaged, match=r"with 3 shards, not of .* with 4"):
        _open(tmp_path / "out", num_shards=4)


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"shard":0}'])
def test_a_journal_that_is_damaged_amid_is_refused(line: bytes, tmp_path: Path) -> None:
    with _open(tmp_path / "out") as store:
        write(store, 0)
        write(store, 1)
    journal = tmp_path / "out/manifest.journal"
    first, second, third, end = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([first, line, third, end]))
    with pytest.raises(OutputDamaged, match=r"manifest\.journal is damaged \(.*\); put it back"):
        _open(tmp_path / "out")
    journal.write_bytes(b"\n".join([first, second, third[:-1]]))  # A torn end is no damage.
    with _open(tmp_path / "out") as store:
        assert store.finished == {0}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for content in (b"first", b"", b"third"):
        write_durably(tmp_path / "file", content)
        assert files(tmp_path) == {"file": content}


def test_the_small_job_has_rows_that_differ() -> None:
    assert len(set(ROW_IDS)) == len(ROW_IDS) == 10
