"""A stage in a worker process of Ray Data: an asynchronous function over shards that share one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from functools import partial
from typing import Any
from uuid import uuid4

import pyarrow as pa
import ray

from zenray.batch.client.settings import ClientSettings
from zenray.batch.client.verifiers import OneModel, all_verifiers
from zenray.batch.job import StagePlan
from zenray.batch.running.shard_text import from_block, to_block
from zenray.batch.running.stage_rows import process_rows
from zenray.errors import Unavailable, ZenrayError
from zenray.observe.logs import configure_logging

log = logging.getLogger(__name__)

REPORT_PERIOD_S = 0.5
_CLOSE_TIMEOUT_S = 10.0
_NICENESS = 5
"""Of a worker and the sandboxes it starts: engines on the same cores go first, three parts to one, and a test's
processor time still passes within the time it may wait."""
_MAX_BEGINNINGS = 8
"""A shard that so many workers have begun and none has ended is what ends them."""


class StageFailure(ray.exceptions.UserCodeException):
    """The typed error that ends a run, as its only argument, on its way to the driver: what Ray chains to an exception
    or adds to its message stays outside of it."""


class StageWorker:
    """What Ray Data makes once per process and calls for every shard, several of them at once."""

    def __init__(self, plan: StagePlan, client: ClientSettings, model_key: str, board: Any) -> None:
        configure_logging()
        os.nice(max(0, _NICENESS - os.nice(0)))
        self._running = _Running(plan, client, model_key, board)

    async def __call__(self, block: pa.Table) -> pa.Table:
        try:
            return await self._running.process(block)
        except ZenrayError as error:
            raise StageFailure(error) from error

    def __del__(self) -> None:
        # Ray drops the last reference when the pipeline has ended; the loop runs on a thread of Ray Data.
        with contextlib.suppress(Exception):
            self._running.close_from_outside()


class _Running:
    """The stage, opened with the first shard."""

    def __init__(self, plan: StagePlan, client: ClientSettings, model_key: str, board: Any) -> None:
        self._plan, self._client, self._model_key, self._board = plan, client, model_key, board
        self._places = asyncio.Semaphore(plan.rows_at_once)
        self._resources = contextlib.AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._shards: set[asyncio.Task[Any]] = set()
        self._worker_id = uuid4().hex
        self._rows: dict[int, int] = {}
        self._finished: set[int] = set()  # Of `self._rows`, those that need no further report.
        self._tokens = 0

    async def process(self, block: pa.Table) -> pa.Table:
        if self._opening is None:
            self._loop = asyncio.get_running_loop()
            self._opening = self._loop.create_task(self._open())
            self._reporting = self._loop.create_task(self._report_forever())
        await asyncio.shield(self._opening)
        index, rows = from_block(block)
        if await self._board.begin.remote(self._plan.name, index) > _MAX_BEGINNINGS:
            raise Unavailable(
                f"{_MAX_BEGINNINGS} workers of stage {self._plan.name} died, each with shard {index} in hand; "
                "the same command tries again"
            )
        self._rows[index] = 0
        self._finished.discard(index)
        work = asyncio.create_task(
            process_rows(self._plan.name, self._stage, rows, self._places, partial(self._count_row, index))
        )
        self._shards.add(work)
        try:
            return to_block(index, await work)
        finally:
            self._shards.discard(work)
            self._finished.add(index)
            await self._report()  # The driver's last look is to see what the last shard took.

    def close_from_outside(self) -> None:
        """Ends the stage and what it holds. Called from another thread than the loop's."""
        if self._loop is not None and self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CLOSE_TIMEOUT_S)

    async def _open(self) -> None:
        generator = None
        if self._plan.needs_model:
            from zenray.batch.client.generator import connected

            verifiers = OneModel(all_verifiers, self._model_key)
            generator = await self._resources.enter_async_context(
                connected(verifiers, self._client, self._count_tokens)
            )
        self._stage = self._plan.make()
        await self._stage.open(generator)
        self._resources.push_async_callback(self._stage.close)

    async def _close(self) -> None:
        if self._reporting is not None and self._reporting is not asyncio.current_task():
            self._reporting.cancel()
        under_way = [task for task in (self._opening, *self._shards) if task is not None and not task.done()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._resources.aclose()

    def _count_row(self, index: int) -> None:
        self._rows[index] += 1

    def _count_tokens(self, count: int) -> None:
        self._tokens += count

    async def _report_forever(self) -> None:
        """Until the board is gone, and with it the driver: then all work here is for nobody."""
        while True:
            await asyncio.sleep(REPORT_PERIOD_S)
            if not await self._report():
                log.info("the job's driver has gone: stage %s stops", self._plan.name)
                await self._close()
                return

    async def _report(self) -> bool:
        """Whether the board heard it."""
        finished = set(self._finished)
        try:
            await self._board.report.remote(self._worker_id, self._plan.name, dict(self._rows), self._tokens)
        except ray.exceptions.RayActorError:
            return False
        for index in finished & self._finished:
            del self._rows[index]
        self._finished -= finished
        return True
