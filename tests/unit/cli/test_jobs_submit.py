"""What is handed to a job server: a command line that means there what it meant here, and a folder without weights."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zenray.batch.running.progress import Progress, RunState
from zenray.batch.submission.status import OutputStatus
from zenray.batch.submission.submit import NOT_SHIPPED, SubmittedJob, entrypoint, runtime_env
from zenray.cli.jobs_find import FoundJob
from zenray.cli.main import app

ROOT = Path(__file__).parents[3]
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(words), words)
def test_a_shell_reads_the_entry_point_as_it_was_written(arguments: list[str], name: str) -> None:
    plain = shlex.split(entrypoint("unit-tests", arguments))
    assert plain[-len(arguments) - 3 :] == ["jobs", "submit", "unit-tests", *arguments]
    folder = Path("/x") / name
    assert shlex.split(entrypoint("unit-tests", arguments, folder)) == ["cd", str(folder), "&&", "exec", *plain]


def test_what_stays_here_is_the_same_by_either_command() -> None:
    by_ray = yaml.safe_load((ROOT / "jobs" / "runtime_env.yaml").read_text())
    assert by_ray["excludes"] == list(NOT_SHIPPED)
    assert runtime_env(Path("/code")) == {"working_dir": "/code", "excludes": list(NOT_SHIPPED)}
    assert runtime_env(None) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-i", "src", "-o", "/shared/out"), "within --working-dir"),
        (("-i", "/src", "-o", "out"), "a whole path of the cluster"),
        (("-i", "src", "-o", "/shared/out", "--working-dir", "{tmp}"), "a path within {tmp}"),
    ],
)
def test_paths_of_a_cluster_elsewhere_are_whole_or_shipped(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [each.format(tmp=tmp_path) for each in arguments]
    command = ["jobs", "submit", "unit-tests", "--ray-address", "http://127.0.0.1:1", *given]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert said.format(tmp=tmp_path) in result.stderr


def submitted(state: str, started_at_s: float) -> SubmittedJob:
    return SubmittedJob("id", "unit-tests", "/out", state, "", "", started_at_s, None)


def of_run(started_at: str, state: RunState) -> OutputStatus:
    progress = Progress("unit-tests", state, started_at)
    return OutputStatus(Path("/out"), {}, None, progress, Path("/out/runs/x"), None)


def test_the_folder_tells_of_runs_since_the_submission_and_the_server_of_one_that_never_reached_it() -> None:
    before, after = "2026-01-01T00:00:00+00:00", "2026-01-01T00:02:00+00:00"
    minute_s = datetime(2026, 1, 1, 0, 1, tzinfo=UTC).timestamp()
    assert FoundJob(of_run(after, RunState.FAILED), submitted("STOPPED", minute_s)).state == "failed"
    assert FoundJob(of_run(before, RunState.STOPPED), submitted("FAILED", minute_s)).state == "failed"
    assert FoundJob(of_run(before, RunState.STOPPED), submitted("RUNNING", minute_s)).state == "preparing"
    assert FoundJob(None, submitted("SUCCEEDED", minute_s)).state == "complete"
