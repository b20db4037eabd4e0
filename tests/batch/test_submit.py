"""Jobs that a job server runs: Ray's own command and ours, from another folder, behind the token, without weights."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import ray
from typer.testing import CliRunner

from zenray.batch.output.verify import verify_output
from zenray.batch.submission.status import read_status
from zenray.batch.submission.submit import JobServer
from zenray.cli.main import app
from zenray.errors import NotFound
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, tiny_platform

ROOT = Path(__file__).parents[2]
CODE = """
def clamp(value, low, high):
    '''The nearest to value between low and high.'''
    if value < low:
        return low
    if value > high:
        return high
    return value


def initials(name):
    '''The first letters of a name's words, in capitals.'''
    letters = []
    for word in name.split():
        letters.append(word[0].upper())
    return "".join(letters)
"""
OPTIONS = ("--input", "library", "--num-test-answers", "1", "--num-implementations", "0", "--max-test-tokens", "24")


@pytest.fixture(scope="module")
def platform(usual_port_taken: None) -> Iterator[Platform]:
    settings = ("model.context_length=4096", "server.dashboard_port=0", "server.drain_timeout_s=5")
    with tiny_platform(*settings, "draft.num_replicas=0") as running:
        yield running


@pytest.fixture(scope="module")
def usual_port_taken() -> Iterator[None]:
    """That of Ray's agents, as by another Ray on the machine."""
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # There is one.
            taken.bind(("127.0.0.1", 52365))
            taken.listen()
        yield


@pytest.fixture(scope="module")
def server(platform: Platform) -> str:
    assert platform.job_server is not None
    return platform.job_server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: code, the entry point, and weights that are no job's business."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "library").mkdir()
    (folder / "library" / "text.py").write_text(CODE)
    (folder / "generate.py").write_bytes((ROOT / "jobs" / "generate_unit_tests.py").read_bytes())
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path / "home"))


def zenray_jobs(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["jobs", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def by_ray(server: str, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that Ray's own command had made."""
    output = tmp_path_factory.mktemp("shared") / "by-ray"
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", server, "--working-dir", "."),
        *("--runtime-env", str(ROOT / "jobs" / "runtime_env.yaml")),
        *("--", "python", "generate.py", *OPTIONS, "--output", str(output)),
    ]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return output


def test_the_job_server_listens_on_the_loopback_and_asks_for_the_token(server: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server}/api/jobs/", timeout=10)
    port = urlsplit(server).port
    listening = {each.laddr.ip for each in psutil.net_connections("tcp") if each.laddr.port == port and not each.raddr}
    assert listening == {"127.0.0.1"}


def test_rays_own_command_makes_an_output_and_ships_no_weights(by_ray: Path, folder: Path) -> None:
    report = verify_output(by_ray)
    assert report.sound and report.complete and report.rows == 2
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    shipped = list((session / "runtime_resources" / "working_dir_files").glob("*/*"))
    assert {path.name for path in shipped} >= {"library", "generate.py"}
    assert not [path for path in shipped if path.suffix == ".safetensors"]


def test_zenrays_command_makes_the_same_bytes(server: str, folder: Path, by_ray: Path, tmp_path: Path) -> None:
    output = tmp_path / "by-zenray"
    zenray_jobs(
        *("submit", "unit-tests", "--ray-address", server, "--working-dir", folder),
        *(*OPTIONS, "--output", output),
    )
    for name in ("job.json", "manifest.json", "shards/part-00000.parquet"):
        assert (output / name).read_bytes() == (by_ray / name).read_bytes()
    found = json.loads(zenray_jobs("list", "--ray-address", server, "--json"))
    assert [(each["output"], each["state"]) for each in found[:2]] == [
        (str(output), "complete"),
        (str(by_ray), "complete"),
    ]
    submission_id = found[0]["submission"]["submission_id"]
    assert "reading library" in zenray_jobs("logs", submission_id, "--ray-address", server)
    with pytest.raises(NotFound, match=submission_id):
        JobServer(server).job(submission_id[:-1])


def test_a_detached_job_is_cancelled_and_goes_on(
    server: str, folder: Path, by_ray: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detached on this machine, the job runs where it was submitted; the next one goes on in this terminal."""
    output = tmp_path / "out"
    address = ray.get_runtime_context().gcs_address
    monkeypatch.setattr("zenray.serving.cluster.find_cluster", lambda: address)
    monkeypatch.chdir(folder)
    zenray_jobs("submit", "unit-tests", *OPTIONS, "--output", output, "--detach")
    eventually(lambda: output.is_dir() and read_status(output).writer, "the driver writes")
    zenray_jobs("cancel", output, "--ray-address", server)
    job = JobServer(server).jobs()[0]
    eventually(lambda: JobServer(server).job(job.submission_id).has_ended, "the driver has ended")
    assert read_status(output).writer is None
    zenray_jobs("submit", "unit-tests", *OPTIONS, "--output", output)
    assert (output / "manifest.json").read_bytes() == (by_ray / "manifest.json").read_bytes()
