"""Folders that a job derives from its complete shards: written aside, then put in place whole."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zenray.batch.output.layout import RUNS


@contextmanager
def replaced_folder(output: Path, name: str) -> Iterator[Path]:
    """An empty folder that takes the place of `output/name` when the block ends without an error.

    A reader sees the old folder, none for an instant, or the new one, never half of one. What a killed run left lies
    in the folder of runs and is cleared by the next.
    """
    aside, old, target = (output / RUNS / f"{name}.new", output / RUNS / f"{name}.old", output / name)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)
