"""`zenray jobs` as a user meets it before Ray does: options made of settings, checks at the door, folders that tell."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from zenray.batch.job import JobSpec
from zenray.batch.output.layout import LEASE, RUNS, shard_path
from zenray.batch.output.lease import Holder
from zenray.batch.output.store import OutputStore
from zenray.batch.rows import row_id, row_ids_digest
from zenray.batch.running.progress import Progress, RunState
from zenray.batch.submission.recent import remember
from zenray.batch.submission.status import note_driver
from zenray.cli.failures import describe
from zenray.cli.main import app
from zenray.errors import OutputOfAnotherJob

WIDE = {"COLUMNS": "200", "TERM": "dumb"}
ROW_IDS = [row_id("test", str(number)) for number in range(4)]
SPEC = JobSpec("unit-tests", 1, 0, {"temperature": 0.8}, ({"name": "code"},), None, 2, row_ids_digest(ROW_IDS))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on this machine."""
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "a.py").write_text("def add(a, b):\n    return a + b\n")
    return folder


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["jobs", *map(str, args)], env=WIDE)


def output_with(tmp_path: Path, num_shards: int, state: RunState, message: str = "") -> Path:
    """An output of two shards of which the first `num_shards` are finished, and a run in `state`."""
    path = tmp_path / "out"
    with OutputStore.open(path, SPEC, 2) as store:
        for index in range(num_shards):
            ids = ROW_IDS[2 * index : 2 * index + 2]
            store.write(index, pa.table({"row_id": ids, "error": pa.array([None, None], pa.string())}), num_tokens=10)
        if num_shards == 2:
            store.complete()
    run_folder = path / RUNS / "20260101T000000Z"
    run_folder.mkdir()
    progress = Progress(
        "unit-tests", state, "2026-01-01T00:00:00+00:00", 90.0, 4, 3, 2, num_shards, {"generate": 3}, 1, 55, 12.5, 30.0,
        message,
    )  # fmt: skip
    (run_folder / "progress.json").write_text(progress.to_json())
    return path


def held_by(path: Path, pid: int, host: str | None = None) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(host or socket.gethostname(), pid, now, SPEC.digest, "here", "nonce")
    (path / LEASE).write_text(json.dumps(asdict(holder)))


def test_each_job_shows_its_options_with_their_defaults_and_bounds() -> None:
    assert "unit-tests" in run("submit", "--help").stdout
    shown = " ".join(run("submit", "unit-tests", "--help").stdout.split())
    for expected in ("--rows-per-shard", "[default: 16]", "Functions per Parquet file", "--temperature", "--profile"):
        assert expected in shown


def test_a_wrong_value_names_its_option_and_what_is_allowed(code: Path, tmp_path: Path) -> None:
    result = run("submit", "unit-tests", "-i", code, "-o", tmp_path / "o", "--top-p", "0")
    assert result.exit_code == 1
    assert "--top-p is 0.0; allowed: greater than 0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("submit", "unit-test"), "did you mean 'unit-tests'?"),
        (("submit", "unit-tests", "-i", "{tmp}/librari", "-o", "{tmp}/o"), "did you mean '{tmp}/library'?"),
        (("submit", "unit-tests", "-i", "{tmp}/library", "-o", "{tmp}/library/a.py/o"), "a.py is a file"),
        (("submit", "unit-tests", "-i", "{tmp}/library", "-o", "{tmp}/library"), "no job.json but a.py"),
        (("submit", "unit-tests", "-i", "{tmp}/library", "-o", "{tmp}/o"), "no Ray runs on this machine"),
        (("submit", "unit-tests", "-i", "{tmp}/library", "-o", "{tmp}/o", "--ray-address", "ftp://x"), "HOST:PORT"),
        (("status", "{tmp}/library"), "has no job in it"),
        (("status", "{tmp}/nowhere"), "does not exist"),
        (("verify", "{tmp}/library"), "has no job in it"),
    ],
)
def test_what_cannot_go_well_is_refused_before_anything_starts(
    code: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = run(*(each.format(tmp=tmp_path) for each in arguments))
    assert result.exit_code == 1
    assert said.format(tmp=tmp_path) in result.stderr
    assert not (tmp_path / "o").exists()


def test_of_several_rays_none_is_guessed(code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: {"10.0.0.1:6379", "10.0.0.1:6380"})
    result = run("submit", "unit-tests", "-i", code, "-o", tmp_path / "o")
    assert result.exit_code == 1
    assert "10.0.0.1:6379, 10.0.0.1:6380; choose one by --ray-address" in result.stderr


def test_a_folder_that_is_being_written_is_not_begun_again(code: Path, tmp_path: Path) -> None:
    out = output_with(tmp_path, 1, RunState.RUNNING)
    held_by(out, os.getpid())
    result = run("submit", "unit-tests", "-i", code, "-o", out, "--profile", "tiny", "--ray-address", "local")
    assert result.exit_code == 1
    assert f"process {os.getpid()}" in result.stderr and "zenray jobs status --watch" in result.stderr


def test_status_of_a_running_job_shows_how_far_and_how_fast(tmp_path: Path) -> None:
    out = output_with(tmp_path, 1, RunState.RUNNING)
    held_by(out, os.getpid())
    shown = " ".join(run("status", out).stdout.split())
    for expected in ("running", "75% 3 of 4", "generate 3 rows", "12 tokens/s", "about 30 s left", "1 of 2 shards"):
        assert expected in shown
    fields = json.loads(run("status", out, "--json").stdout)
    assert fields["state"] == "running" and fields["driver"]["pid"] == os.getpid()
    assert fields["finished"] == {"complete": False, "shards": 1, "num_shards": 2, "rows": 2, "tokens": 10}


def test_a_run_whose_driver_is_gone_was_killed_and_only_finished_rows_count(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    out = output_with(tmp_path, 1, RunState.RUNNING)
    held_by(out, ended.pid)
    shown = " ".join(run("status", out).stdout.split())
    assert "killed" in shown and "50% 2 of 4" in shown and "goes on" in shown


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    out = output_with(tmp_path, 0, RunState.FAILED, "no verifier answered for 600 s")
    shown = " ".join(run("status", out).stdout.split())
    assert "failed" in shown and "no verifier answered for 600 s" in shown


def test_a_complete_output_stays_complete_whatever_its_last_run_said(tmp_path: Path) -> None:
    shown = " ".join(run("status", output_with(tmp_path, 2, RunState.FAILED)).stdout.split())
    assert "complete" in shown and "100%" in shown


def test_list_shows_what_was_used_on_this_machine(tmp_path: Path) -> None:
    assert "no job yet" in run("list").stderr
    out = output_with(tmp_path, 1, RunState.STOPPED)
    remember(out)
    shown = " ".join(run("list").stdout.split())
    assert "unit-tests stopped 2/4" in shown and str(out) in shown
    assert [each["output"] for each in json.loads(run("list", "--json").stdout)] == [str(out)]


def test_verify_names_each_problem_and_fails(tmp_path: Path) -> None:
    out = output_with(tmp_path, 2, RunState.COMPLETE)
    sound = run("verify", out)
    assert sound.exit_code == 0 and "sound and complete" in sound.stdout
    shard = shard_path(out, 1)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    broken = run("verify", out)
    assert broken.exit_code == 1 and shard.name in broken.stdout and "content" in broken.stdout
    found = json.loads(run("verify", out, "--json").stdout)
    assert not found["sound"] and found["problems"][0]["file"] == f"shards/{shard.name}"


def test_another_parameter_is_told_from_what_was_there(tmp_path: Path) -> None:
    path = output_with(tmp_path, 1, RunState.STOPPED)
    changed = replace(SPEC, seed=1, parameters={"temperature": 0.5})
    with pytest.raises(OutputOfAnotherJob) as raised:
        OutputStore.open(path, changed, 2)
    told = describe(raised.value)
    assert told.lines == ("parameters.temperature is 0.8 there, 0.5 now", "seed is 0 there, 1 now")
    assert str(path) in told.message and "another output folder" in told.hint


def test_cancel_tells_the_driver_to_stop(tmp_path: Path) -> None:
    out = output_with(tmp_path, 1, RunState.RUNNING)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as driver:
        held_by(out, driver.pid)
        assert f"process {driver.pid} is told to stop" in run("cancel", out).stdout
        assert driver.wait(10) == -signal.SIGTERM
    assert "nothing to cancel" in run("cancel", out).stdout


def test_a_driver_in_the_background_is_known_before_it_has_planned_anything(code: Path, tmp_path: Path) -> None:
    path = output_with(tmp_path, 1, RunState.STOPPED)
    driver = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    try:
        note_driver(path, driver.pid)
        assert json.loads(run("status", path, "--json").output)["state"] == "preparing"
        again = run(
            "submit", "unit-tests", "--input", code, "--output", path, "--profile", "tiny", "--ray-address", "local"
        )
        assert again.exit_code == 1 and f"process {driver.pid}" in again.stderr
        assert f"process {driver.pid} is told to stop" in run("cancel", path).output
        assert driver.wait(10) == -signal.SIGTERM
    finally:
        driver.kill()
        driver.wait()
    assert json.loads(run("status", path, "--json").output)["state"] == "stopped"


def test_a_driver_on_another_machine_is_cancelled_there(tmp_path: Path) -> None:
    out = output_with(tmp_path, 1, RunState.RUNNING)
    held_by(out, 1, "elsewhere")
    result = run("cancel", out)
    assert result.exit_code == 1 and "process 1 on elsewhere" in result.stderr


def test_logs_are_those_of_a_driver_without_a_terminal(tmp_path: Path) -> None:
    out = output_with(tmp_path, 1, RunState.STOPPED)
    assert "has no log" in run("logs", out).stderr
    (out / RUNS / "log.txt").write_text("reading library\n\x1b[2J")
    assert run("logs", out, "--follow").stdout == "reading library\n␛[2J"
