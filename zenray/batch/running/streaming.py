"""Blocks of shards through a job's stages on Ray Data."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa

from zenray.batch.job import StagePlan
from zenray.batch.running.worker import StageFailure, StageWorker
from zenray.errors import Unavailable, ZenrayError

_MAX_DEATHS_AT_START = 8  # Of workers in a row, before any of them took a shard.
_EXECUTOR_TIMEOUT_S = 60.0


def through_stages(
    blocks: Sequence[pa.Table],
    stages: Sequence[StagePlan],
    rows_per_shard: int,
    workers: int,
    arguments: tuple[Any, ...],
) -> Generator[pa.Table, None, None]:
    """Blocks of one shard each as they come out of the last stage. `workers` are the processes of each stage and
    `arguments` what a `StageWorker` is given besides its plan.

    Raises what a worker raised, as it was raised there. To be closed before Ray ends.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # Below that it advertises what is switched off here.
    data = ray.data.from_blocks(list(blocks))
    _make_quiet_and_patient(data.context)
    for stage in stages:
        # Enough shards to keep all places taken while the last rows of one are awaited.
        at_once = 1 + -(-stage.rows_at_once // rows_per_shard)
        data = data.map_batches(
            StageWorker,
            fn_constructor_args=(stage, *arguments),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=workers, max_concurrent_calls_per_actor=at_once, max_tasks_in_flight_per_actor=at_once + 1
            ),
            num_cpus=stage.num_cpus,
        )
    try:
        with _executors_ended():
            # Not `iter_batches`: it leaves a thread behind, whose last act is to let go of Ray's workers.
            for bundle in data.iter_internal_ref_bundles():
                for table in ray.get(list(bundle.block_refs)):
                    for start in range(table.num_rows):
                        yield table.slice(start, 1)
    except Exception as error:
        raise _as_ours(error) from error


@contextlib.contextmanager
def _executors_ended() -> Iterator[None]:
    """Whatever Ray Data executes in the block ends with it, its thread included: where a thread asks something of Ray
    after Ray's end, Ray ends the process at once, with status 1 and without a word."""
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    before = set(threading.enumerate())
    try:
        yield
    finally:
        for thread in set(threading.enumerate()) - before:
            if isinstance(thread, StreamingExecutor):
                thread.shutdown(force=True)
                thread.join(_EXECUTOR_TIMEOUT_S)


def _make_quiet_and_patient(context: Any) -> None:
    """Ray Data's own bars and reports give way to ours, and so does its idea of how long a shard may take."""
    context.enable_progress_bars = False
    context.enable_auto_log_stats = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    context.raise_original_map_exception = True  # Its own would come without what it was raised from.
    context.max_consecutive_actor_init_deaths = _MAX_DEATHS_AT_START


def _as_ours(error: BaseException) -> ZenrayError:
    """The typed error that a worker raised, found below those that Ray wraps it in."""
    import ray

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ZenrayError):
            return seen
        if isinstance(seen, ray.exceptions.RayTaskError) and isinstance(seen.cause, StageFailure):
            failure: ZenrayError = seen.cause.args[0]
            return failure
        if isinstance(seen, ray.exceptions.RayActorError):
            return Unavailable(f"the job's workers cannot run: {seen}; the same command goes on")
        seen = seen.__cause__
    return ZenrayError(f"a stage failed: {error}")
