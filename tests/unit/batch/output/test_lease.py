"""One driver an output folder: two refuse each other, a dead one is in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.batch.output.small_job import SPEC, open_output, run_job, write
from zenray.batch.output.lease import Lease, read_holder
from zenray.errors import OutputBusy

HOLD = """
import sys
from pathlib import Path
from tests.unit.batch.output.small_job import open_output
with open_output(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).parents[4]


def _hold(output: Path) -> subprocess.Popen[str]:
    """A driver in a process of its own that has the output open."""
    driver = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None and driver.stdout.readline() == "held\n"
    return driver


def test_a_second_driver_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with _hold(output) as driver:
        with pytest.raises(OutputBusy, match=rf"process {driver.pid} on .*, job {SPEC.digest[:12]}; wait for it"):
            run_job(output)
        driver.communicate()  # Ends its input, and so itself.
    run_job(output)


def test_a_killed_driver_gives_way_at_once(tmp_path: Path) -> None:
    """Whoever comes next does not wait for an expiry: one that had to would sleep, and this one cannot."""

    def never(seconds: float) -> None:
        raise AssertionError("slept")

    output = tmp_path / "out"
    with _hold(output) as driver:
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    holder = read_holder(output / "runs/lease.json")
    assert holder is not None and holder.pid == driver.pid
    Lease.take(output / "runs/lease.json", "another", sleep=never).release()
    run_job(output)


def test_a_stopped_driver_keeps_what_it_holds(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with _hold(output) as driver:
        driver.send_signal(signal.SIGSTOP)
        with pytest.raises(OutputBusy):
            run_job(output)
        driver.send_signal(signal.SIGCONT)
        driver.communicate()


def test_one_process_does_not_open_an_output_twice(tmp_path: Path) -> None:
    with open_output(tmp_path / "out"), pytest.raises(OutputBusy):
        run_job(tmp_path / "out")
    assert read_holder(tmp_path / "out/runs/lease.json") is None
    run_job(tmp_path / "out")


def _write_foreign_lease(path: Path, beat: int) -> None:
    """As a driver on another machine would, through a file system that passes no locks on."""
    fields = {"host": "far", "pid": 1, "started_at": "now", "job_sha256": "abc", "place": "other:1", "nonce": "n"}
    path.write_text(json.dumps({**fields, "beat": f"{beat:012d}"}))


def _forget_lease(output: Path) -> None:
    (output / "runs/lease.json").unlink()


def test_a_beat_from_another_machine_refuses_though_the_lock_was_granted(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "lease.json"
    path.parent.mkdir()
    _write_foreign_lease(path, beat=1)
    slept: list[float] = []

    def beat_meanwhile(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 5:
            _write_foreign_lease(path, beat=2)

    with pytest.raises(OutputBusy, match="process 1 on far"):
        Lease.take(path, "mine", sleep=beat_meanwhile)
    assert len(slept) == 5


def test_a_machine_that_is_silent_for_several_beats_counts_as_dead(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    _write_foreign_lease(path, beat=1)
    slept: list[float] = []
    lease = Lease.take(path, "mine", beat_period_s=5, silence_s=20, sleep=slept.append)
    holder = read_holder(path)
    assert sum(slept) == 20 and holder is not None and holder.pid == os.getpid()
    lease.release()


def test_the_holder_beats(tmp_path: Path) -> None:
    """A watcher sees the file change, and never sees it without a holder."""
    path = tmp_path / "lease.json"
    lease = Lease.take(path, "mine", beat_period_s=0.001)
    seen = set()
    while len(seen) < 20:
        seen.add(json.loads(path.read_bytes())["beat"])
    lease.release()
    assert not any(thread.name == "output-lease" for thread in threading.enumerate())


def test_a_driver_that_lost_its_folder_writes_nothing_more(tmp_path: Path) -> None:
    """It stood still for so long that another machine took it for dead."""
    output = tmp_path / "out"
    with open_output(output) as store:
        write(store, 0)
        _write_foreign_lease(output / "runs/lease.json", beat=1)
        with pytest.raises(OutputBusy, match="process 1 on far"):
            write(store, 1)
    assert [each.name for each in (output / "shards").iterdir()] == ["part-00000.parquet"]
    _forget_lease(output)
    with open_output(output) as store:
        for index in (1, 2):
            write(store, index)
        _write_foreign_lease(output / "runs/lease.json", beat=1)
        with pytest.raises(OutputBusy, match="process 1 on far"):
            store.complete()
    assert not (output / "manifest.json").exists()
    holder = read_holder(output / "runs/lease.json")
    assert holder is not None and holder.host == "far"
