"""A disk that is full, broken or lying: a typed error, no half shard, nothing lost, and the same files afterwards."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from tests.unit.batch.output.drivers import Attempt, DriverFarm
from tests.unit.batch.output.small_job import NUM_SHARDS, SteppedDisk, files, open_output, run_job, write
from zenray.batch.output.disk import Disk
from zenray.batch.output.verify import verify_output
from zenray.errors import OutputNotWritten

T = TypeVar("T")


class BrokenDisk(SteppedDisk):
    """One step fails. A write that does has written the half of it."""

    def __init__(self, broken_step: int, code: int) -> None:
        super().__init__()
        self._broken_step, self._code = broken_step, code

    def before(self, step: int, name: str, *arguments: object) -> None:
        if step == self._broken_step:
            if name == "write":
                descriptor, data = arguments
                assert isinstance(descriptor, int) and isinstance(data, bytes | memoryview)
                os.write(descriptor, data[: len(data) // 2])
            raise OSError(self._code, os.strerror(self._code))

    def close(self, descriptor: int) -> None:
        try:
            super().close(descriptor)
        except OSError:
            os.close(descriptor)
            raise


def _temporaries(path: Path) -> list[Path]:
    return list(path.rglob("*.tmp"))


def _patiently(action: Callable[[], T], errors: list[OutputNotWritten], output: Path) -> T:
    """Once more after an error."""
    try:
        return action()
    except OutputNotWritten as error:
        errors.append(error)
        assert _temporaries(output) == []
        return action()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
def test_a_step_that_fails_is_a_typed_error_and_the_driver_can_go_on(
    code: int, memory_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    counter = SteppedDisk()
    run_job(memory_path / "counted", disk=counter)
    for step in range(len(counter.steps)):
        output, disk = memory_path / str(step), BrokenDisk(step, code)
        errors: list[OutputNotWritten] = []
        with _patiently(lambda: open_output(output, disk), errors, output) as store:  # noqa: B023
            for index in range(NUM_SHARDS):
                _patiently(lambda: write(store, index), errors, output)  # noqa: B023
            listed = verify_output(output)
            assert listed.sound and listed.num_finished == NUM_SHARDS
            _patiently(store.complete, errors, output)
        assert len(errors) == 1 and "nothing finished is lost" in str(errors[0])
        assert ("free some space" in str(errors[0])) == (code != errno.EIO)
        assert files(output) == uninterrupted, f"{counter.steps[step]} failed, step {step}"


class LyingDisk(Disk):
    """Accepts everything and keeps the beginning: what a full disk behind a cache may do."""

    def __init__(self, kept_bytes: int) -> None:
        self._kept_bytes = kept_bytes

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if os.fstat(descriptor).st_size < self._kept_bytes:
            super().write(descriptor, data[: self._kept_bytes])
        return len(data)


def test_a_disk_that_loses_bytes_without_saying_so_is_found_out(tmp_path: Path) -> None:
    with open_output(tmp_path / "out") as store:
        write(store, 0)
    lying = LyingDisk(kept_bytes=1000)
    with open_output(tmp_path / "out", lying) as store:
        with pytest.raises(OutputNotWritten, match="reads back differently"):
            write(store, 1)
        assert store.finished == {0}
    assert not (tmp_path / "out/shards/part-00001.parquet").exists() and _temporaries(tmp_path) == []


class UnreadableDisk(Disk):
    """One file cannot be read."""

    def __init__(self, name: str, code: int) -> None:
        self._name, self._code = name, code

    def read(self, path: Path) -> bytes:
        if path.name == self._name:
            raise OSError(self._code, os.strerror(self._code))
        return super().read(path)


def test_a_shard_on_a_bad_sector_is_made_again_but_not_for_an_error_that_may_pass(
    output: Path, uninterrupted: dict[str, bytes]
) -> None:
    name = "part-00001.parquet"
    with pytest.raises(OutputNotWritten, match="Stale file handle; nothing finished is lost"):
        open_output(output, UnreadableDisk(name, errno.ESTALE))
    with open_output(output, UnreadableDisk(name, errno.EIO)) as store:
        assert store.lost == {1: "unreadable"}
        write(store, 1)
        store.complete()
    assert files(output) == uninterrupted


def test_a_limit_on_file_size_is_a_typed_error_too(
    farm: DriverFarm, tmp_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = tmp_path / "out"
    for largest in (600, 1200):
        assert farm.run(Attempt(str(output), largest_file_bytes=largest)) == (0, "OutputNotWritten")
        assert _temporaries(output) == []
    assert farm.run(Attempt(str(output))) == (0, "")
    assert files(output) == uninterrupted


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 kB."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "none", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk needs root and the right to mount: {error}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(
    small_disk: Path, uninterrupted: dict[str, bytes]
) -> None:
    output, filler = small_disk / "out", small_disk / "filler"
    with open_output(output) as store:
        write(store, 0)
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(512)):
                pass
        with pytest.raises(OutputNotWritten, match="No space left on device; nothing finished is lost: free some"):
            write(store, 1)
        assert store.finished == {0} and _temporaries(output) == []
        assert verify_output(output).sound and verify_output(output).num_finished == 1
    with pytest.raises(OutputNotWritten):
        run_job(output)
    filler.unlink()
    run_job(output)
    assert files(output) == uninterrupted
