"""Kill the driver anywhere, run it again: the same files as if nobody had."""

from __future__ import annotations

import signal
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.batch.output.drivers import Attempt, DriverFarm
from tests.unit.batch.output.small_job import HIDDEN, NUM_SHARDS, SteppedDisk, files, new_folder, run_job
from zenray.batch.output.verify import verify_output

Files = dict[str, bytes]


def test_a_finished_output_has_what_it_promises_and_nothing_else(uninterrupted: Files) -> None:
    shards = {f"shards/part-{index:05d}.parquet" for index in range(NUM_SHARDS)}
    beside = {each.replace("shards", HIDDEN) for each in shards}
    assert set(uninterrupted) == {"job.json", "manifest.json"} | shards | beside


def test_a_driver_killed_at_any_step_leaves_what_the_next_one_finishes(
    farm: DriverFarm, memory_path: Path, uninterrupted: Files
) -> None:
    counter = SteppedDisk()
    run_job(memory_path / "counted", disk=counter)
    most_finished = 0
    before = [(step, False) for step in range(len(counter.steps))]
    amid = [(step, True) for step, name in enumerate(counter.steps) if name == "write"]
    for kill_at, tear in before + amid:
        output = memory_path / f"{kill_at}{tear}"
        assert farm.run(Attempt(str(output), kill_at=kill_at, tear=tear)) == (-signal.SIGKILL, "")
        if (output / "manifest.journal").exists():
            report = verify_output(output)
            written = len(list(output.glob("shards/part-*.parquet")))
            assert report.problems == () and written - report.num_finished in (0, 1)
            most_finished = max(most_finished, report.num_finished)
        run_job(output)
        assert files(output) == uninterrupted, f"killed at step {kill_at}"
    assert most_finished == NUM_SHARDS
    assert farm.run(Attempt(str(memory_path / "last"), kill_at=len(counter.steps))) == (0, "")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kills=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=10),
    orders=st.lists(st.permutations(range(NUM_SHARDS)), min_size=11, max_size=11),
)
def test_any_number_of_kills_in_any_order_of_shards_changes_no_byte(
    kills: list[tuple[int, bool]], orders: list[list[int]], farm: DriverFarm, memory_path: Path, uninterrupted: Files
) -> None:
    output = new_folder(memory_path)
    for (kill_at, tear), order in zip(kills, orders, strict=False):
        status, _ = farm.run(Attempt(str(output), tuple(order), kill_at, tear))
        assert status in (0, -signal.SIGKILL)
    run_job(output, orders[-1])
    assert files(output) == uninterrupted
    report = verify_output(output)
    assert report.complete and report.sound
