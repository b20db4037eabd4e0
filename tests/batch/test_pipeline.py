"""Jobs on real Ray, next to the platform that serves editors: what they write, and that nothing changes it."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import ray

from zenray.batch.client.settings import ClientSettings
from zenray.batch.harness import ANSWERS, EchoJob, MeasureStage, drivers_code, stage_processes
from zenray.batch.job import Generator, StagePlan
from zenray.batch.output.layout import MANIFEST, SHARDS
from zenray.batch.rows import ROW_ID, derive_seed
from zenray.batch.running.pipeline import RunSettings, run_job
from zenray.batch.submission.status import read_status
from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.async_engine import AsyncEngine
from zenray.engine.request import Final, GenerateRequest, Limits, Sampling
from zenray.errors import ConfigError, InvalidRequest, OutputOfAnotherJob
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, replica_processes

JOB = EchoJob(num_rows=24, num_bad_rows=6)
SETTINGS = RunSettings(client=ClientSettings(patience_s=60))


def promised(output: Path) -> Mapping[str, bytes]:
    """All bytes that a job promises."""
    files = [output / "job.json", output / MANIFEST, *(output / SHARDS).iterdir(), *(output / ANSWERS).iterdir()]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "out"
    lines: list[str] = []
    summary = run_job(JOB, output, SETTINGS, lines.append)
    assert (summary.num_rows, summary.num_shards, summary.num_rows_written, summary.num_errors) == (24, 6, 24, 6)
    assert summary.num_generated_tokens >= summary.num_tokens > 0
    assert f" {summary.num_tokens:,} tokens (" in str(summary), "those in the rows, as `zenray jobs status` says it"
    eventually(lambda: not stage_processes(), "the stages' workers end with the job")
    return output


def test_rows_are_what_the_engine_says(whole: Path) -> None:
    """The text of every choice, from an engine of our own that is asked row by row."""
    rows = pq.read_table(whole / SHARDS).to_pylist()
    planned = dataclasses.replace(JOB, with_model=False).rows(lambda what: None, None)
    assert [row[ROW_ID] for row in rows] == [row[ROW_ID] for row in planned]
    texts = {row["text"]: row["continued"] for row in rows if row["error"] is None}
    assert len(texts) == 18

    async def ask() -> dict[str, list[str]]:
        engine = AsyncEngine(build_engine(load_config("tiny", None, ["model.context_length=4096"])))
        await engine.start()
        answers = {}
        for row in rows:
            if row["text"] in texts:
                seed = derive_seed(JOB.seed, row[ROW_ID], "continue")
                sampling = Sampling(temperature=1.0, seed=seed, n=JOB.num_choices)
                prompt = tuple(engine.engine.model.tokenizer.encode(row["text"]))
                request = GenerateRequest("r", prompt, sampling, Limits(max_tokens=JOB.max_tokens))
                finals = [event async for event in engine.generate(request) if isinstance(event, Final)]
                answers[row["text"]] = [final.text for final in sorted(finals, key=lambda final: final.index)]
        await engine.shutdown(1.0)
        return answers

    assert asyncio.run(ask()) == texts


def test_a_bad_row_says_why_and_harms_no_other(whole: Path) -> None:
    errors = {row["text"]: row["error"] for row in pq.read_table(whole / SHARDS).to_pylist() if row["error"]}
    assert len(errors) == JOB.num_bad_rows
    for text, error in errors.items():
        if text.startswith("hopeless"):
            assert error == "measure: nothing can be done with this text"
        elif text.startswith("broken"):
            assert error == "measure: ZeroDivisionError: of <object object at 0x…>"
        else:
            assert error.startswith("generate: prompt_token_ids is ") and "4096" in error


def test_the_same_command_again_does_nothing(whole: Path) -> None:
    before = promised(whole)
    summary = run_job(JOB, whole, SETTINGS)
    assert (summary.num_rows, summary.num_rows_written, summary.num_generated_tokens) == (24, 0, 0)
    assert promised(whole) == before


def test_another_job_does_not_touch_it(whole: Path) -> None:
    before = promised(whole)
    with pytest.raises(OutputOfAnotherJob, match="seed is 7 there, 8 now"):
        run_job(dataclasses.replace(JOB, seed=8), whole, SETTINGS)
    assert promised(whole) == before


def test_a_job_without_a_model_and_one_that_fits_nowhere(platform: Platform, tmp_path: Path) -> None:
    job = EchoJob(num_rows=5, with_model=False)
    assert run_job(job, tmp_path / "out", SETTINGS).num_rows_written == 5
    with pytest.raises(ConfigError, match=r"workers need 1000 CPUs; this Ray cluster has \d"):
        run_job(job, tmp_path / "large", dataclasses.replace(SETTINGS, workers=10_000))
    with pytest.raises(ConfigError, match="the inputs give no rows"):
        run_job(EchoJob(num_rows=0), tmp_path / "none", SETTINGS)


def test_dead_workers_and_a_dead_verifier_change_nothing(whole: Path, platform: Platform, tmp_path: Path) -> None:
    output = tmp_path / "out"
    failures: list[BaseException] = []

    def run() -> None:
        try:
            run_job(JOB, output, SETTINGS)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for index in range(2):
            victims = eventually(lambda: len(found := stage_processes()) == 2 and found, "both stages' workers run")
            if index == 1:
                eventually(lambda: any((output / SHARDS).glob("*.parquet")) or not thread.is_alive(), "a shard")
                victims = victims + replica_processes("Verifier")
            for victim in victims:
                kill(victim)
        thread.join(90)
        assert not thread.is_alive()
    finally:
        thread.join(90)
    assert not failures
    assert promised(output) == promised(whole)


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(10)
    except psutil.NoSuchProcess:
        pass


def test_killed_and_stopped_drivers_leave_nothing_undone(whole: Path, platform: Platform, tmp_path: Path) -> None:
    output = tmp_path / "out"
    address = ray.get_runtime_context().gcs_address

    def num_shards() -> int:
        return len(list((output / SHARDS).glob("part-*.parquet")))

    for has_begun, how in [(stage_processes, signal.SIGKILL), (num_shards, signal.SIGTERM), (None, None)]:
        driver = subprocess.Popen([sys.executable, "-c", drivers_code(JOB, output, address)], stderr=subprocess.PIPE)
        try:
            if has_begun is not None and how is not None:
                eventually(has_begun, "the driver's workers have begun")
                driver.send_signal(how)
            _, errors = driver.communicate(timeout=90)
        finally:
            driver.kill()
        if how is signal.SIGTERM and driver.returncode:
            assert b"JobStopped: stopped; the same command goes on from here" in errors
        if how is signal.SIGTERM:
            assert read_status(output).state == ("stopped" if driver.returncode else "complete")
        eventually(lambda: not stage_processes(), "no worker outlives its driver")
    assert driver.returncode == 0, errors.decode()
    assert promised(output) == promised(whole)


class Refused(EchoJob):
    """Its stage says before any row why none will do."""

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        return (StagePlan("refuse", RefusingStage, num_cpus=0.1),)


class RefusingStage(MeasureStage):
    async def open(self, generator: Generator | None) -> None:
        try:
            raise ConnectionError("details of no interest")
        except ConnectionError as error:
            raise InvalidRequest.of("layers", 99, "0 to 24") from error


def test_what_ends_a_stage_arrives_as_it_was_raised(platform: Platform, tmp_path: Path) -> None:
    """The last test: its worker may live as long as Ray, and the others count workers."""
    with pytest.raises(InvalidRequest) as found:
        run_job(Refused(num_rows=5, with_model=False), tmp_path / "out", SETTINGS)
    assert str(found.value) == "layers is 99; allowed: 0 to 24"
    assert [each.field for each in found.value.violations] == ["layers"]
