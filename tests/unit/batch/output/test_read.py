"""Whoever reads an output gets what was written, or an error that says which file to make again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.batch.output.small_job import HIDDEN, NUM_SHARDS, ROW_IDS, SPEC, companions, open_output, run_job, write
from zenray.batch.output.read import checked_bytes, checked_shards, read_contents, read_job, read_shards
from zenray.batch.output.shard import decode_shard
from zenray.errors import NotFound, OutputDamaged

SHARD, COMPANION = "shards/part-00001.parquet", "hidden/part-00002.parquet"


@pytest.fixture
def output(memory_path: Path) -> Path:
    run_job(memory_path / "out")
    return memory_path / "out"


def _damaged(whole: bytes) -> Iterator[bytes]:
    """Every byte flipped (in one bit, another one each time) and every cut."""
    for position in range(len(whole)):
        yield whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        yield whole[:position]
    yield whole + b"\0"


@pytest.mark.parametrize("name", [SHARD, COMPANION])
def test_no_byte_of_a_file_can_change_or_be_missing_unnoticed(name: str, output: Path) -> None:
    file = output / name
    whole = file.read_bytes()
    for data in _damaged(whole):
        file.write_bytes(data)
        with pytest.raises(OutputDamaged, match=rf"{name} has changed since it was written; the command that made it"):
            list(checked_shards(output, [HIDDEN]))
    file.write_bytes(whole)
    assert len(list(checked_shards(output, [HIDDEN]))) == NUM_SHARDS


def test_no_byte_of_the_job_can_change_unnoticed(output: Path) -> None:
    """Its parameters say how to read the shards."""
    file = output / "job.json"
    whole = file.read_bytes()
    assert read_job(output)["parameters"] == SPEC.parameters
    for data in _damaged(whole):
        file.write_bytes(data)
        with pytest.raises(OutputDamaged, match=r"job\.json has changed"):
            read_job(output)
    file.unlink()
    with pytest.raises(OutputDamaged, match=r"job\.json is missing"):
        read_job(output)


@pytest.mark.parametrize("name", [SHARD, COMPANION])
def test_a_file_that_is_gone_is_named(name: str, output: Path) -> None:
    (output / name).unlink()
    with pytest.raises(OutputDamaged, match=rf"{name} is missing; the command that made it makes it again"):
        list(checked_shards(output, [HIDDEN]))


def test_companions_that_nobody_asks_for_are_not_read(output: Path) -> None:
    (output / COMPANION).unlink()
    assert [each.companions for each in checked_shards(output)] == [{}] * NUM_SHARDS
    assert [row for each in read_shards(output, ["row_id"]) for row in each["row_id"].to_pylist()] == ROW_IDS


def test_shards_come_in_their_order_with_what_stands_beside_them(tmp_path: Path) -> None:
    run_job(tmp_path, order=(2, 0, 1))
    shards = list(checked_shards(tmp_path, [HIDDEN]))
    assert [each.entry.shard for each in shards] == [0, 1, 2]
    for index, each in enumerate(shards):
        assert decode_shard(each.companions[HIDDEN]).to_pylist() == companions(index)[HIDDEN].to_pylist()
        assert checked_bytes(tmp_path, each.entry) == each.data


def test_of_an_output_under_way_the_finished_shards_are_read(tmp_path: Path) -> None:
    with open_output(tmp_path) as store:
        write(store, 1)
        assert [each.entry.shard for each in checked_shards(tmp_path)] == [1]
        assert not read_contents(tmp_path).complete


def test_a_companion_that_no_shard_has_is_not_found(output: Path) -> None:
    with pytest.raises(NotFound, match="no companion named 'hiden'; did you mean 'hidden'"):
        list(checked_shards(output, ["hiden"]))
