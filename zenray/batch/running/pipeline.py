"""Runs a job: rows to shards, shards through the stages on Ray Data, results to the output, each once.

The driver plans and writes, worker processes compute. A shard is one block, and every block is computed anew when its
worker dies; what the driver has written is never computed again, by this run or another. Ray Data's own checkpoints
are no use here: they resume only plans that end in its own writers, by rows and not by bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
from zenray.batch.running.streaming import through_stages
from zenray.config import ZenrayConfig
from zenray.errors import ConfigError, ZenrayError


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
            to_do = {index: each for index, each in enumerate(shards) if index not in store.finished}
            num_tokens = sum(job.tokens_to_do(row) or 0 for each in to_do.values() for row in each)
            run.begin(len(rows), len(shards), [len(shards[index]) for index in store.finished], num_tokens)
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
    blocks = [to_block(index, [encode_row(row) for row in rows]) for index, rows in shards.items()]
    with run.watching(start_board()) as board:
        arguments = (settings.client, place.model_key, board)
        results = through_stages(blocks, job.stages, job.rows_per_shard, settings.workers, arguments)
        with contextlib.closing(results):
            for block in results:
                index, done = from_block(block)
                yield index, [decode_row(each) for each in done]
