"""Trees to index, on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from zenray.context.index import BuildReport, WorkspaceIndex, build_index

Write = Callable[[Mapping[str, str | bytes]], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "index" / "tree.sqlite"


@pytest.fixture
def write(root: Path) -> Write:
    """Puts files into the tree, with a time long past: one that has just been written is read again."""

    def put(files: Mapping[str, str | bytes]) -> None:
        import os

        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            seconds = 1_700_000_000 + sum(path.read_bytes()) % 100_000
            os.utime(path, (seconds, seconds))

    return put


@pytest.fixture
def build(root: Path, database: Path) -> Callable[[], BuildReport]:
    return lambda: build_index(root, database, num_workers=2)


@pytest.fixture
def index(root: Path, database: Path) -> Callable[[], WorkspaceIndex]:
    return lambda: WorkspaceIndex.open(root, database)
