"""Cut the power anywhere: whatever was not synced may be gone, torn, or there. The next driver finishes the same files.

SIGKILL leaves what the kernel has in memory; only this tells whether the fsyncs are where they must be.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.batch.output.small_job import (
    NUM_SHARDS,
    SteppedDisk,
    files,
    new_folder,
    open_output,
    run_job,
    write,
)
from zenray.batch.output.disk import publish, write_new
from zenray.batch.output.verify import verify_output


class PowerCut(BaseException):
    """From here on no step does anything."""


class PoweredDisk(SteppedDisk):
    """A disk with a cache. Files keep what was synced and perhaps some of the rest; of the changes of names since the
    folder's last sync the first few have happened, at random.
    """

    def __init__(self, cut_at: int, seed: int) -> None:
        super().__init__()
        self._cut_at, self._random = cut_at, random.Random(seed)
        self._open: dict[int, Path] = {}
        self._synced: dict[Path, bytes] = {}  # Of every file changed through this disk.
        self._undo: list[tuple[Path, Callable[[], object]]] = []  # Changes of names not on the disk yet, by folder.

    def before(self, step: int, name: str, *arguments: object) -> None:
        if step >= self._cut_at:
            raise PowerCut

    def lose(self) -> None:
        """What the disk holds when the power is back."""
        for path, synced in self._synced.items():
            rest = path.read_bytes()[len(synced) :]
            path.write_bytes(synced + rest[: self._random.randint(0, len(rest))])
        kept: dict[Path, int] = {}
        for folder in {folder for folder, _ in self._undo}:
            kept[folder] = self._random.randint(0, sum(each == folder for each, _ in self._undo))
        undone = []
        for folder, undo in self._undo:
            if kept[folder] == 0:
                undone.append(undo)
            kept[folder] = max(kept[folder] - 1, 0)
        for undo in reversed(undone):
            undo()

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._open[descriptor], self._synced[path] = path, b""
        self._undo.append((path.parent, path.unlink))
        return descriptor

    def open_to_append(self, path: Path) -> int:
        descriptor = super().open_to_append(path)
        self._open[descriptor] = path
        self._synced.setdefault(path, path.read_bytes())
        return descriptor

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        self._synced[self._open[descriptor]] = self._open[descriptor].read_bytes()

    def close(self, descriptor: int) -> None:
        try:
            super().close(descriptor)
        except PowerCut:
            with suppress(OSError):
                open(descriptor).close()
            raise

    def rename(self, source: Path, target: Path) -> None:
        before = target.read_bytes() if target.exists() else None
        synced_before = self._synced.get(target)
        super().rename(source, target)
        self._synced[target] = self._synced.pop(source)

        def undo() -> None:
            target.rename(source)
            if before is not None:
                target.write_bytes(before if synced_before is None else synced_before)

        self._undo.append((target.parent, undo))

    def remove(self, path: Path) -> None:
        before = path.read_bytes()
        super().remove(path)
        self._synced.pop(path, None)
        self._undo.append((path.parent, lambda: path.write_bytes(before)))

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self._undo.append((path.parent, lambda: shutil.rmtree(path)))

    def fsync_folder(self, path: Path) -> None:
        super().fsync_folder(path)
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 2**32)), min_size=1, max_size=4))
def test_after_power_cuts_the_next_driver_finishes_the_same_files(
    cuts: list[tuple[int, int]], memory_path: Path, uninterrupted: dict[str, bytes]
) -> None:
    output = new_folder(memory_path)
    for cut_at, seed in cuts:
        disk = PoweredDisk(cut_at, seed)
        with suppress(PowerCut):
            run_job(output, disk=disk)
        disk.lose()
    run_job(output)
    assert files(output) == uninterrupted
    assert verify_output(output).sound


@pytest.mark.parametrize("seed", range(20))
def test_what_is_finished_stays_finished(seed: int, memory_path: Path, uninterrupted: dict[str, bytes]) -> None:
    """From the moment that `write` returns, and `complete`."""
    output = memory_path / "deep" / "out"
    for index in range(NUM_SHARDS):
        disk = PoweredDisk(cut_at=10**6, seed=seed)
        with open_output(output, disk) as store:
            assert store.finished == set(range(index)) and not store.lost
            write(store, index)
        disk.lose()
    disk = PoweredDisk(cut_at=10**6, seed=seed)
    run_job(output, disk=disk)
    disk.lose()
    assert files(output) == uninterrupted


@pytest.mark.parametrize("forgotten", ["fsync", "fsync_folder"])
def test_the_simulated_disk_does_lose_what_nobody_synced(
    forgotten: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = 0
    for seed in range(20):
        disk = PoweredDisk(cut_at=10**6, seed=seed)
        monkeypatch.setattr(disk, forgotten, lambda _: None)
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_new(folder / "aside", b"content", disk)
        publish(folder / "aside", folder / "file", disk)
        disk.lose()
        lost += not (folder / "file").exists() or (folder / "file").read_bytes() != b"content"
    assert lost > 0
