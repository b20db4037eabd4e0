"""Teacher logits on real Ray, from the platform that serves editors: the bytes that an engine of our own says, whoever
is killed, and nothing for editors to notice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from typer.testing import CliRunner

from zenray.api.client import Client
from zenray.batch.catalog import job_kind
from zenray.batch.client.local import LocalGenerator
from zenray.batch.client.settings import ClientSettings
from zenray.batch.harness import stage_processes
from zenray.batch.inputs.spec import InputSpec
from zenray.batch.job import Job, ServedModel
from zenray.batch.output.manifest import load_contents
from zenray.batch.rows import ROW_ID, Row
from zenray.batch.running.pipeline import RunSettings, run_job
from zenray.build import build_engine
from zenray.cli.main import app
from zenray.config_load import load_config
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, request, tiny_platform

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "planning": {"window_tokens": 192, "overlap_tokens": 32, "max_tokens": 12_000},
    "sequences_per_shard": 3,
    "hidden_layers": (2,),
}
ARGUMENTS = (
    *("--window-tokens", "192", "--overlap-tokens", "32", "--max-tokens", "12000"),
    *("--sequences-per-shard", "3", "--hidden-layers", "2"),
)
PLATFORM = ("model.context_length=4096", "model.weight_format=int8", "draft.num_replicas=0")
"""The compiled kernels, whose logits do not depend on what else is in a batch; float32 is torch's."""
INPUT = f"{ROOT / 'zenray' / 'engine'}#name=engine"


def make_job() -> Job:
    kind = job_kind("teacher-logits")
    return kind.make([InputSpec.parse(INPUT)], 0, kind.settings.model_validate(OPTIONS))


def promised(output: Path) -> Mapping[str, bytes]:
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("runs/")}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with tiny_platform(*PLATFORM, "server.drain_timeout_s=5") as running:
        yield running


@pytest.fixture(scope="module")
def whole(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed. An editor typed meanwhile, and got what it got without the job."""
    output = tmp_path_factory.mktemp("whole") / "out"
    settings = RunSettings(client=ClientSettings(patience_s=60))
    job = threading.Thread(target=run_job, args=(make_job(), output, settings))
    with Client(platform.grpc_address) as client:
        typed = request("def area(width, height):", max_tokens=24)
        before = client.complete_once(typed).choices[0].text
        job.start()
        try:
            eventually(stage_processes, "the job scores")
            while job.is_alive():
                assert client.complete_once(typed).choices[0].text == before
        finally:
            job.join()
    return output


def test_shards_hold_what_an_engine_of_our_own_says(whole: Path) -> None:
    """Byte for byte, of rows that are asked one by one."""

    async def said() -> dict[str, Mapping[str, object]]:
        job = make_job()
        engine = build_engine(load_config("tiny", None, PLATFORM))
        async with LocalGenerator.running(engine) as generator:
            rows: list[Row] = job.rows(lambda what: None, ServedModel(generator.model, generator.tokenizer))
            stage = job.stages[0].make()
            await stage.open(generator)
            return {row[ROW_ID]: job.record(await stage.process(row)) for row in rows[::9]}

    records = {row[ROW_ID]: row for row in pq.read_table(whole / "shards").to_pylist()}
    expected = asyncio.run(said())
    assert len(records) > 50 and len(expected) > 5
    for row_id, record in expected.items():
        assert records[row_id] == record


def test_a_driver_killed_behind_its_first_shard_goes_on_to_the_same_bytes(
    whole: Path, platform: Platform, tmp_path: Path
) -> None:
    """By the entry point that `ray job submit` runs."""
    output = tmp_path / "out"
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, str(ROOT / "jobs" / "extract_teacher_logits.py"), "--ray-address", address]
    command += ["--input", INPUT, "--output", str(output), *ARGUMENTS]
    for is_killed in (True, False):
        with subprocess.Popen(command, stderr=subprocess.PIPE) as driver:
            if is_killed:
                eventually(lambda: (found := load_contents(output)) and found.shards, "a shard is finished")
                driver.send_signal(signal.SIGKILL)
            _, errors = driver.communicate(timeout=90)
        eventually(lambda: not stage_processes(), "no worker outlives its driver")
    assert driver.returncode == 0, errors.decode()
    assert "going on: " in errors.decode()
    assert promised(output) == promised(whole)


def test_what_a_user_sees_of_it(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))

    def jobs(*words: str | Path, exit_code: int = 0) -> str:
        result = CliRunner().invoke(app, ["jobs", *map(str, words)], env={"COLUMNS": "200", "TERM": "dumb"})
        assert result.exit_code == exit_code, result.output
        return result.stdout

    assert "sound and complete" in jobs("verify", whole)
    assert "tokens/s over the last run" in jobs("status", whole)
    assert "engine: " in jobs("show", whole, "--surprises", "2")
    report = json.loads((whole / "report" / "report.json").read_text())
    hidden = pq.read_table(whole / "hidden", columns=["hidden_2_scales"])
    num_states = sum(len(np.frombuffer(each.as_py(), "<f4")) for each in hidden["hidden_2_scales"])
    assert report["tokens"]["num_scored"] == num_states >= 12_000
