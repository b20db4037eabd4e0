"""Runs a job: rows to shards, shards through the stages on Ray Data, results to the output, each once.

The driver plans and writes, worker processes compute. A shard is one block, and every block is computed anew when its
worker dies; what the driver has written is never computed again, by this run or another. Ray Data's own checkpoints
are no use here: they resume only plans that end in its own writers, by rows and not by bytes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from zenray.batch.client.settings import ClientSettings
from zenray.batch.job import Job, JobSpec, ModelIdentity, Say, ServedModel
from zenray.batch.output.layout import RUNS
from zenray.batch.output.spec import as_begun
from zenray.batch.output.store import OutputStore
from zenray.batch.rows import ERROR, ROW_ID, Row, row_ids_digest
from zenray.batch.running.board import start_board
from zenray.batch.running.platform import Place, asks_model, place_for
from zenray.batch.running.progress import RunState
from zenray.batch.running.run import RunSummary, RunWatch
from zenray.batch.running.shard_table import shard_tables
from zenray.batch.running.shard_text import decode_row, encode_row, from_block, to_block
from zenray.batch.running.worker import StageWorker
from zenray.config import ZenrayConfig
from zenray.errors import ConfigError, Unavailable, ZenrayError

_MAX_DEATHS_AT_START = 8  # Of workers in a row, before any of them took a shard.


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Where and how a job runs; nothing here changes its output.

    `address` and `platform` are as for `place_for`; `workers` are the processes of each stage.
    """

    address: str | None = None
    platform: ZenrayConfig | None = None
    workers: int = 1
    client: ClientSettings = field(default_factory=ClientSettings)


class JobStopped(ZenrayError):
    """The run was interrupted. The same command goes on where it ended."""


def run_job(job: Job, output: Path, settings: RunSettings, say: Say = lambda what: None) -> RunSummary:
    """Runs `job` until `output` is complete, going on with what is there.

    Raises:
        JobStopped: SIGINT or SIGTERM came (when called in the main thread).
        OutputError: the folder is in use, of another job, damaged, or cannot be written.
        Unavailable: no verifier answered for as long as the settings are patient, or what `place_for` says.
        ConfigError: the inputs give no rows, or what `place_for` says.
    """
    run = RunWatch(job, output / RUNS, say)
    try:
        with run.interrupts.raised_here(), contextlib.closing(run):
            return _run(job, output, settings, run, say)
    except KeyboardInterrupt:
        run.ended(RunState.STOPPED, "")
        raise JobStopped("stopped; the same command goes on from here") from None
    except BaseException as error:
        run.ended(RunState.FAILED, str(error))
        raise


def _run(job: Job, output: Path, settings: RunSettings, run: RunWatch, say: Say) -> RunSummary:
    # A model's tokenizer is known where its verifiers run; a job that asks none plans before anything is started.
    rows = [] if asks_model(job) else _planned(job, None, say)
    with place_for(job, settings.workers, settings.address, settings.platform, settings.client, say) as place:
        rows = rows or _planned(job, place.model, say)
        shards = [rows[start : start + job.rows_per_shard] for start in range(0, len(rows), job.rows_per_shard)]
        identity = place.model.identity if place.model else None
        spec, row_ids = as_begun(output, job_spec(job, rows, identity)), [row[ROW_ID] for row in rows]
        with OutputStore.open(output, spec, len(shards), row_ids, tuple(job.companions)) as store:
            run.begin(len(rows), len(shards), [len(shards[index]) for index in store.finished])
            to_do = {index: each for index, each in enumerate(shards) if index not in store.finished}
            # Closed, not left to the collector: what Ray Data runs must have ended before Ray does.
            with contextlib.closing(_results(job, to_do, settings, place, run)) as results:
                for index, done in results:
                    _write(job, index, done, store, run)
            missing = set(range(len(shards))) - store.finished
            assert not missing, f"every shard comes back; not {sorted(missing)[:5]}"
            store.complete()
            run.finishing()
            job.finish(output, say)  # While the lease is held: no other driver writes these files.
    return run.complete()


def _planned(job: Job, model: ServedModel | None, say: Say) -> list[Row]:
    rows = job.rows(say, model)
    if not rows:
        raise ConfigError(f"job {job.name}: the inputs give no rows")
    return rows


def _write(job: Job, index: int, done: list[Row], store: OutputStore, run: RunWatch) -> None:
    table, companions, final = shard_tables(job, done)
    num_tokens = sum(job.num_tokens(row) for row in final)
    store.write(index, table, num_tokens, companions)
    run.wrote(len(final), [f"row {row[ROW_ID]}: {row[ERROR]}" for row in final if row.get(ERROR)], num_tokens)


def job_spec(job: Job, rows: Sequence[Row], model: ModelIdentity | None) -> JobSpec:
    """What the output of these rows follows from."""
    return JobSpec(
        job=job.name,
        job_version=job.version,
        seed=job.seed,
        parameters=job.parameters,
        inputs=job.inputs,
        model=model,
        rows_per_shard=job.rows_per_shard,
        row_ids_sha256=row_ids_digest(row[ROW_ID] for row in rows),
    )


def _results(
    job: Job, shards: dict[int, list[Row]], settings: RunSettings, place: Place, run: RunWatch
) -> Generator[tuple[int, list[Row]], None, None]:
    """The shards' rows after all stages, in the order in which they are done."""
    if not shards:
        return
    if not job.stages:
        for index, rows in shards.items():
            yield index, [decode_row(encode_row(row)) for row in rows]
        return
    with (
        run.watching(start_board()) as board,
        contextlib.closing(_through_stages(job, shards, settings, place, board)) as blocks,
    ):
        for block in blocks:
            index, done = from_block(block)
            yield index, [decode_row(each) for each in done]


def _through_stages(
    job: Job, shards: dict[int, list[Row]], settings: RunSettings, place: Place, board: Any
) -> Generator[pa.Table, None, None]:
    """Blocks as they come out of the last stage. Raises what a worker raised, as it was raised there."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Below that it advertises what is switched off here.
    data = ray.data.from_blocks([to_block(index, [encode_row(row) for row in rows]) for index, rows in shards.items()])
    _make_quiet_and_patient(data.context)
    for stage in job.stages:
        # Enough shards to keep all places taken while the last rows of one are awaited.
        at_once = 1 + -(-stage.rows_at_once // job.rows_per_shard)
        data = data.map_batches(
            StageWorker,
            fn_constructor_args=(stage, settings.client, place.model_key, board),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=settings.workers, max_concurrent_calls_per_actor=at_once, max_tasks_in_flight_per_actor=at_once + 1
            ),
            num_cpus=stage.num_cpus,
        )
    batches: Any = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        with contextlib.closing(iter(batches)) as iterator:
            for batch in iterator:
                for start in range(batch.num_rows):
                    yield batch.slice(start, 1)
    except Exception as error:
        raise _as_ours(error) from error


def _make_quiet_and_patient(context: Any) -> None:
    """Ray Data's own bars and reports give way to ours, and so does its idea of how long a shard may take."""
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    context.max_consecutive_actor_init_deaths = _MAX_DEATHS_AT_START


def _as_ours(error: BaseException) -> ZenrayError:
    """The typed error that a worker raised, found below those that Ray wraps it in."""
    import ray

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ZenrayError):
            return seen
        if isinstance(seen, ray.exceptions.RayTaskError) and isinstance(seen.cause, ZenrayError):
            return seen.cause
        if isinstance(seen, ray.exceptions.RayActorError):
            return Unavailable(f"the job's workers cannot run: {seen}; the same command goes on")
        seen = seen.__cause__
    return ZenrayError(f"a stage failed: {error}")
