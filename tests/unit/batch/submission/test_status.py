"""What is said of an output, from what its folder holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zenray.batch.output.manifest import Contents
from zenray.batch.running.progress import Progress, RunState
from zenray.batch.submission.status import OutputStatus

WHOLE = Contents("job", 3, {}, complete=True)
BEGUN = replace(WHOLE, complete=False)


def state(contents: Contents, run: RunState, shards_done: int) -> str:
    """Of an output without a living driver, whose latest run came so far."""
    num_shards = 3 if shards_done else 0  # A run that has only begun to plan knows of no shards.
    progress = Progress("unit-tests", run, "2026-01-01T00:00:00+00:00", num_shards=num_shards, shards_done=shards_done)
    return OutputStatus(Path("/out"), {}, contents, progress, Path("/out/runs/x"), None).state


@pytest.mark.parametrize(
    ("contents", "run", "shards_done", "told"),
    [
        (BEGUN, RunState.RUNNING, 2, "killed"),
        (BEGUN, RunState.STOPPED, 2, "stopped"),
        (WHOLE, RunState.COMPLETE, 3, "complete"),
        (WHOLE, RunState.FINISHING, 3, "killed"),  # While it wrote what is derived from the shards.
        (WHOLE, RunState.STOPPED, 3, "stopped"),
        (WHOLE, RunState.PREPARING, 0, "complete"),  # Begun again, and ended before it found that nothing was left.
    ],
)
def test_a_job_is_complete_when_its_reports_are_too(
    contents: Contents, run: RunState, shards_done: int, told: str
) -> None:
    assert state(contents, run, shards_done) == told
