"""Whatever is wrong with an output is found, and all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.batch.output.small_job import (
    HIDDEN,
    NUM_SHARDS,
    ROW_IDS,
    SPEC,
    companions,
    new_folder,
    num_tokens,
    open_output,
    run_job,
    table,
    write,
)
from zenray.batch.output.read import checked_shards, read_shards
from zenray.batch.output.shard import encode_shard
from zenray.batch.output.verify import Problem, verify_output
from zenray.errors import OutputDamaged

SHARD = "shards/part-{:05d}.parquet"
COMPANION = "hidden/part-{:05d}.parquet"
BESIDE = [companions(index)[HIDDEN] for index in range(NUM_SHARDS)]


def _found(output: Path) -> set[tuple[Problem, str]]:
    return {(each.problem, each.file) for each in verify_output(output).problems}


def _lie(output: Path, tables: list[pa.Table], hidden: Sequence[pa.Table] = BESIDE, **totals: Any) -> None:
    """An output whose list agrees with its files, whatever they are: as a wrong writer would leave it."""

    def put(file: str, each: pa.Table, companion: str = "") -> dict[str, Any]:
        data = encode_shard(each, SPEC.digest, index, num_tokens(index), companion)
        (output / file).write_bytes(data)
        return {"rows": each.num_rows, "bytes": len(data), "sha256": sha256(data).hexdigest()}

    entries = []
    for index, each in enumerate(tables):
        beside = {HIDDEN: put(COMPANION.format(index), hidden[index], HIDDEN)}
        own = {"shard": index, "file": f"part-{index:05d}.parquet", "tokens": num_tokens(index)}
        entries.append({**own, **put(SHARD.format(index), each), "companions": beside})
    manifest = {
        "job_sha256": SPEC.digest,
        "num_shards": len(tables),
        "companions": [HIDDEN],
        "rows": sum(each.num_rows for each in tables),
        "tokens": sum(num_tokens(index) for index in range(len(tables))),
        "shards": entries,
        **totals,
    }
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def test_a_finished_output_is_sound(output: Path) -> None:
    report = verify_output(output)
    assert report.sound and report.complete
    assert (report.num_shards, report.num_finished, report.rows) == (NUM_SHARDS, NUM_SHARDS, len(ROW_IDS))
    assert report.tokens == sum(map(num_tokens, range(NUM_SHARDS)))
    assert report.bytes == sum(each.stat().st_size for each in output.glob("*/part-*"))


def test_an_output_that_is_being_written_is_incomplete_and_sound(tmp_path: Path) -> None:
    with open_output(tmp_path) as store:
        write(store, 1)
        (tmp_path / "shards/.part-00002.parquet.0123456789abcdef.tmp").write_bytes(b"being written")
        for name in (SHARD, COMPANION):
            (tmp_path / name.format(0)).write_bytes(b"renamed, but not listed")
        report = verify_output(tmp_path)
    assert report.sound and not report.complete
    assert (report.num_shards, report.num_finished, report.rows, report.tokens) == (NUM_SHARDS, 1, 4, num_tokens(1))


def test_a_damaged_number_of_shards_costs_no_time(tmp_path: Path) -> None:
    with open_output(tmp_path) as store:
        write(store, 1)
    journal = tmp_path / "manifest.journal"
    journal.write_text(journal.read_text().replace('"num_shards":3', f'"num_shards":{10**30}'))
    assert verify_output(tmp_path).num_shards == 10**30


def test_the_liar_of_these_tests_tells_the_truth_about_true_shards(output: Path) -> None:
    before = (output / "manifest.json").read_bytes()
    _lie(output, [table(index) for index in range(NUM_SHARDS)])
    assert (output / "manifest.json").read_bytes() == before


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_found_wherever_it_is(output: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([SHARD, COMPANION])).format(data.draw(st.integers(0, NUM_SHARDS - 1)))
    file = output / name
    whole = file.read_bytes()
    position, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(whole)
    flipped[position] ^= 1 << bit
    file.write_bytes(flipped)
    try:
        assert (Problem.CONTENT, name) in _found(output)
        with pytest.raises(OutputDamaged, match="has changed"):
            list(checked_shards(output, [HIDDEN]))
    finally:
        file.write_bytes(whole)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_found(output: Path, kept: float) -> None:
    file = output / SHARD.format(1)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    try:
        problems = {problem for problem, name in _found(output) if name == SHARD.format(1)}
        assert {Problem.SIZE, Problem.CONTENT, Problem.UNREADABLE} <= problems
    finally:
        file.write_bytes(whole)


def test_a_flipped_byte_in_a_page_is_told_from_other_content(output: Path) -> None:
    """The page checksum says that the file is broken, and not merely another one."""
    file = output / SHARD.format(0)
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    report = verify_output(output)
    assert {each.problem for each in report.problems} >= {Problem.CONTENT, Problem.UNREADABLE}
    assert any("CRC" in each.detail for each in report.problems)


def test_swapped_shards_are_found(output: Path) -> None:
    first, second = output / SHARD.format(0), output / SHARD.format(1)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    for index in (0, 1):
        assert {(Problem.CONTENT, SHARD.format(index)), (Problem.MISPLACED, SHARD.format(index))} <= _found(output)


def test_a_shard_of_another_job_is_found_though_the_list_agrees(output: Path) -> None:
    _lie(output, [table(index) for index in range(NUM_SHARDS)])
    data = encode_shard(table(1), "another", 1, num_tokens(1))
    manifest = json.loads((output / "manifest.json").read_text())
    manifest["shards"][1].update(bytes=len(data), sha256=sha256(data).hexdigest())
    (output / SHARD.format(1)).write_bytes(data)
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    assert _found(output) == {(Problem.MISPLACED, SHARD.format(1))}


def test_a_companion_at_anothers_place_is_found(output: Path) -> None:
    """Of another shard, and the shard itself; the list knows whose bytes they are not, the footer whose they are."""
    for file, source in ((COMPANION.format(0), COMPANION.format(2)), (COMPANION.format(2), SHARD.format(2))):
        whole = (output / file).read_bytes()
        (output / file).write_bytes((output / source).read_bytes())
        assert {(Problem.CONTENT, file), (Problem.MISPLACED, file)} <= _found(output)
        assert {found for _, found in _found(output)} == {file}  # It is no measure for the others.
        (output / file).write_bytes(whole)
    assert _found(output) == set()


def test_a_companion_that_is_not_of_its_shard_is_found_though_the_list_agrees(output: Path) -> None:
    shards, wider = [table(index) for index in range(NUM_SHARDS)], BESIDE[2].append_column("more", pa.array([1]))
    for hidden, problem in (
        ([BESIDE[0], BESIDE[0], BESIDE[2]], Problem.ROW_IDS),
        ([BESIDE[0], BESIDE[0].slice(0, 0).drop_columns("row_id"), BESIDE[2]], Problem.ROW_IDS),
        ([BESIDE[0], BESIDE[1], wider], Problem.SCHEMA),
    ):
        _lie(output, shards, hidden)
        files = {file for found, file in _found(output) if found is problem}
        assert files == {COMPANION.format(2 if problem is Problem.SCHEMA else 1)}
    _lie(output, shards)
    assert _found(output) == set()


def test_a_missing_companion_is_found(output: Path) -> None:
    (output / COMPANION.format(1)).unlink()
    assert _found(output) == {(Problem.MISSING, COMPANION.format(1))}
    (output / COMPANION.format(1)).parent.rename(output / "elsewhere")
    missing = {(Problem.MISSING, COMPANION.format(index)) for index in range(NUM_SHARDS)}
    assert _found(output) == missing | {(Problem.STRANGER, "elsewhere")}


def test_a_row_that_is_there_twice_is_found_with_both_places(output: Path) -> None:
    repeated = pa.concat_tables([table(1).slice(0, 3), table(0).slice(1, 1)])
    _lie(output, [table(0), repeated, table(2)])
    findings = verify_output(output).problems
    assert {each.problem for each in findings} == {Problem.REPEATED_ROW, Problem.ROW_IDS}
    assert any(
        each.file == SHARD.format(1) and each.detail == "row 3 has the id of row 1 of part-00000.parquet"
        for each in findings
    )


def test_rows_in_another_order_are_found(output: Path) -> None:
    _lie(output, [table(0).take([1, 0, 2, 3]), table(1), table(2)])
    assert _found(output) == {(Problem.ROW_IDS, "manifest.json")}


def test_a_missing_shard_is_found(output: Path) -> None:
    (output / SHARD.format(2)).unlink()
    assert _found(output) == {(Problem.MISSING, SHARD.format(2))}
    with pytest.raises(OutputDamaged, match="is missing"):
        list(read_shards(output))


def test_a_shard_with_too_few_rows_is_found(output: Path) -> None:
    _lie(output, [table(0).slice(0, 3), table(1), table(2)])
    assert _found(output) == {(Problem.ROW_COUNT, SHARD.format(0)), (Problem.ROW_IDS, "manifest.json")}


def test_another_schema_is_found(output: Path) -> None:
    wider = table(1).set_column(3, "length", table(1)["length"].cast(pa.int32()))
    _lie(output, [table(0), wider, table(2)])
    assert _found(output) == {(Problem.SCHEMA, SHARD.format(1))}


def test_a_shard_without_row_ids_is_found_and_the_rows_after_it_are_still_told_apart(output: Path) -> None:
    _lie(output, [table(0).drop_columns("row_id"), table(1), pa.concat_tables([table(2), table(1).slice(0, 1)])])
    found = _found(output)
    assert (Problem.ROW_IDS, SHARD.format(0)) in found and (Problem.REPEATED_ROW, SHARD.format(2)) in found


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "shards/part-00003.parquet",
        "shards/part-1.parquet",
        "shards/.x.0123456789abcdef.tmp",
        "old/",
        "hidden/part-00003.parquet",
        "hidden/x",
    ],
)
def test_strangers_are_found(name: str, output: Path) -> None:
    if name.endswith("/"):
        (output / name).mkdir()
    else:
        (output / name).write_bytes(b"")
    assert _found(output) == {(Problem.STRANGER, name.rstrip("/"))}


def test_what_the_job_derives_and_what_runs_leave_is_no_stranger(output: Path) -> None:
    for folder in ("report", "tests", "runs"):
        (output / folder).mkdir(exist_ok=True)
        (output / folder / "anything").write_bytes(b"")
    assert _found(output) == set()


def _edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(output: Path) -> None:
        value = json.loads((output / name).read_text())
        change(value)
        spelling = {"indent": 1} if name == "manifest.json" else {"separators": (",", ":")}
        (output / name).write_text(json.dumps(value, sort_keys=True, **spelling) + "\n")  # type: ignore[arg-type]

    return damage


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda output: (output / "manifest.json").unlink(), (Problem.LIST, "manifest.json")),
        (lambda output: (output / "manifest.json").write_text("{"), (Problem.LIST, "manifest.json")),
        (lambda output: (output / "manifest.json").write_text("[]"), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(rows=11)), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(tokens=1)), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it["shards"].reverse()), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(more=1)), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(job_sha256="0" * 64)), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it["shards"][1].update(file="../x")), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it["shards"][1].update(rows=-1)), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it["shards"][1].pop("companions")), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(companions=["../x"])), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(companions=[[]])), (Problem.LIST, "manifest.json")),
        (
            _edit("manifest.json", lambda it: it["shards"][1]["companions"]["hidden"].update(bytes=-1)),
            (Problem.LIST, "manifest.json"),
        ),
        (_edit("manifest.json", lambda it: it.update(job_sha256=[])), (Problem.LIST, "manifest.json")),
        (_edit("manifest.json", lambda it: it.update(num_shards="3")), (Problem.LIST, "manifest.json")),
        (lambda output: (output / "manifest.journal").write_text("{}"), (Problem.LIST, "manifest.journal")),
        (_edit("job.json", lambda it: it.update(rows_per_shard="4")), (Problem.LIST, "manifest.json")),
        (lambda output: (output / "job.json").write_text("{}\n"), (Problem.JOB, "job.json")),
        (lambda output: (output / "job.json").unlink(), (Problem.JOB, "job.json")),
        (lambda output: (output / "job.json").write_text('{"seed": 1}\n'), (Problem.JOB, "job.json")),
        (_edit("job.json", lambda it: it.update(seed=8)), (Problem.LIST, "manifest.json")),
    ],
)
def test_an_edited_list_or_job_is_found(
    damage: Callable[[Path], object], expected: tuple[Problem, str], output: Path
) -> None:
    damage(output)
    assert expected in _found(output)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_byte_of_job_or_manifest_can_change_unnoticed(memory_path: Path, data: st.DataObject) -> None:
    output = new_folder(memory_path)
    run_job(output)
    file = output / data.draw(st.sampled_from(["job.json", "manifest.json"]))
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    assert not verify_output(output).sound


def test_all_problems_are_told_at_once(output: Path) -> None:
    (output / SHARD.format(0)).unlink()
    (output / SHARD.format(1)).write_bytes(b"PAR1")
    (output / "stranger").write_bytes(b"")
    (output / "job.json").unlink()
    report = verify_output(output)
    assert {each.problem for each in report.problems} == {
        Problem.MISSING,
        Problem.SIZE,
        Problem.CONTENT,
        Problem.UNREADABLE,
        Problem.STRANGER,
        Problem.JOB,
    }
    assert "part-00000.parquet: missing: listed, but not there" in "\n".join(map(str, report.problems))


def test_shards_are_read_in_their_order_with_the_columns_asked_for(tmp_path: Path) -> None:
    run_job(tmp_path, order=(2, 0, 1))
    assert [row for each in read_shards(tmp_path) for row in each["row_id"].to_pylist()] == ROW_IDS
    assert [each.column_names for each in read_shards(tmp_path, ["length"])] == [["length"]] * NUM_SHARDS


def test_a_folder_without_an_output_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    assert {each.problem for each in verify_output(tmp_path).problems} == {Problem.JOB, Problem.LIST}
    with pytest.raises(OutputDamaged, match="no output folder"):
        list(read_shards(tmp_path))
