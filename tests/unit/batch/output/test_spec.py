"""Which specs count as the one an output was begun with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.batch.output.small_job import NUM_SHARDS, SPEC
from zenray.batch.job import JobSpec
from zenray.batch.output.layout import JOB
from zenray.batch.output.spec import as_begun, job_bytes
from zenray.batch.output.store import OutputStore
from zenray.errors import OutputOfAnotherJob


def reading(digest: str, **skipped: int) -> JobSpec:
    return replace(SPEC, inputs=({"name": "code", "sha256": digest, "skipped": skipped},))


def test_what_an_input_passes_over_decides_nothing(tmp_path: Path) -> None:
    begun = reading("aa", empty=1)
    assert as_begun(tmp_path, begun) == begun
    with OutputStore.open(tmp_path, begun, NUM_SHARDS):
        pass
    now = reading("aa", empty=1, **{"ignored folder": 2})
    assert job_bytes(as_begun(tmp_path, now)) == job_bytes(begun) == (tmp_path / JOB).read_bytes()
    with OutputStore.open(tmp_path, as_begun(tmp_path, now), NUM_SHARDS):
        pass


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"inputs": 3}', b'{"inputs": [3]}'])
def test_whatever_else_differs_is_refused(tmp_path: Path, damage: bytes | None) -> None:
    with OutputStore.open(tmp_path, reading("aa"), NUM_SHARDS):
        pass
    if damage is not None:
        (tmp_path / JOB).write_bytes(damage)
    with pytest.raises(OutputOfAnotherJob):
        OutputStore.open(tmp_path, as_begun(tmp_path, reading("bb", empty=1)), NUM_SHARDS)
