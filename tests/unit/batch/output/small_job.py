"""A small job to write, to kill and to damage, and a disk that counts the steps."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from zenray.batch.job import JobSpec
from zenray.batch.output.disk import LOCAL_DISK, Disk
from zenray.batch.output.store import OutputStore
from zenray.batch.rows import row_id, row_ids_digest

NUM_SHARDS = 3
HIDDEN = "hidden"
"""The companion that every shard has."""
ROWS_PER_SHARD = 4
ROW_IDS = [row_id("small", str(number)) for number in range(10)]  # The last shard is shorter.
SPEC = JobSpec(
    job="small",
    job_version=1,
    seed=7,
    parameters={"samples": 2, "style": {"name": "plain", "stops": ["a", "b"]}},
    inputs=({"name": "corpus", "revision": "abc"},),
    model=None,
    rows_per_shard=ROWS_PER_SHARD,
    row_ids_sha256=row_ids_digest(ROW_IDS),
)


def table(index: int) -> pa.Table:
    ids = ROW_IDS[ROWS_PER_SHARD * index : ROWS_PER_SHARD * (index + 1)]
    return pa.table(
        {
            "row_id": ids,
            "error": pa.array([None] * len(ids), pa.string()),
            "blob": [each.encode() * 40 for each in ids],
            "length": [len(each) + index for each in ids],
        }
    )


def num_tokens(index: int) -> int:
    return 10 * index + 3


def companions(index: int) -> dict[str, pa.Table]:
    """Of some of the shard's rows; beside the second shard stands a table without any."""
    ids = table(index)["row_id"].to_pylist()[1 : 1 if index == 1 else 3]
    return {HIDDEN: pa.table({"row_id": pa.array(ids, pa.string()), "states": pa.array(ids, pa.large_string())})}


def open_output(path: Path, disk: Disk = LOCAL_DISK) -> OutputStore:
    return OutputStore.open(path, SPEC, NUM_SHARDS, companions=[HIDDEN], disk=disk)


def write(store: OutputStore, index: int) -> None:
    store.write(index, table(index), num_tokens(index), companions(index))


def run_job(path: Path, order: Sequence[int] = range(NUM_SHARDS), disk: Disk = LOCAL_DISK) -> None:
    """What a driver does, from wherever the last one was stopped."""
    with open_output(path, disk) as store:
        for index in order:
            if index not in store.finished:
                write(store, index)
        store.complete()


def files(path: Path) -> dict[str, bytes]:
    """All that an output promises, by name."""
    found = {str(each.relative_to(path)): each for each in path.rglob("*") if each.is_file()}
    return {name: each.read_bytes() for name, each in found.items() if not name.startswith("runs/")}


def new_folder(parent: Path) -> Path:
    """A name nothing has yet: for examples that share a fixture."""
    return parent / secrets.token_hex(4)


class SteppedDisk(Disk):
    """Calls `before` with the number and name of each step that changes the disk. Remembers the names."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def before(self, step: int, name: str, *arguments: object) -> None:
        """Nothing, here."""

    def _step(self, name: str, *arguments: object) -> None:
        self.steps.append(name)
        self.before(len(self.steps) - 1, name, *arguments)

    def create(self, path: Path) -> int:
        self._step("create", path)
        return super().create(path)

    def open_to_append(self, path: Path) -> int:
        self._step("open_to_append", path)
        return super().open_to_append(path)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._step("write", descriptor, data)
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._step("fsync", descriptor)
        super().fsync(descriptor)

    def close(self, descriptor: int) -> None:
        self._step("close", descriptor)
        super().close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", source, target)
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step("remove", path)
        super().remove(path)

    def make_folder(self, path: Path) -> None:
        self._step("make_folder", path)
        super().make_folder(path)

    def fsync_folder(self, path: Path) -> None:
        self._step("fsync_folder", path)
        super().fsync_folder(path)
