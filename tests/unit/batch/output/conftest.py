from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.batch.output.drivers import DriverFarm
from tests.unit.batch.output.small_job import files, run_job


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files of an output whose driver was left in peace."""
    path = tmp_path_factory.mktemp("uninterrupted") / "out"
    run_job(path)
    return files(path)


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder where an fsync costs nothing, if there is one: for tests of hundreds of runs."""
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as path:
        yield Path(path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A finished output."""
    run_job(tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="session")
def farm() -> Iterator[DriverFarm]:
    farm = DriverFarm()
    yield farm
    farm.close()
