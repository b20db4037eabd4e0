"""Work for the cores of the machine: some of it at a time, results in the order of their tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(Generic[Item, Result]):
    """Processes that apply `work` to batches of items, started when the first batches took this process too long.

    `work` must be importable and gives one result per item. An item that ends its process (a parser may crash) gets
    `on_crash` of it for a result; the others of its batch are done again.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], list[Result]],
        on_crash: Callable[[Item], Result],
        num_workers: int,
        num_own_batches: int,
    ) -> None:
        self._work, self._on_crash = work, on_crash
        self._num_workers, self._num_own_batches = num_workers, num_own_batches
        self._pool: ProcessPoolExecutor | None = None

    def run(self, batches: Iterable[Sequence[Item]]) -> Iterator[list[Result]]:
        """The results of each batch. At most two batches per worker are under way or wait to be taken."""
        try:
            under_way: deque[tuple[Sequence[Item], Future[list[Result]]]] = deque()
            for number, batch in enumerate(batches):
                if number < self._num_own_batches:
                    yield self._work(batch)
                    continue
                under_way.append((batch, self._submit(batch)))
                if len(under_way) >= 2 * self._num_workers:
                    yield self._result(*under_way.popleft())
            while under_way:
                yield self._result(*under_way.popleft())
        finally:
            self._stop()

    def _submit(self, batch: Sequence[Item]) -> Future[list[Result]]:
        for _ in range(2):
            try:
                return self._started().submit(self._work, batch)
            except BrokenProcessPool:
                self._stop()
        return self._started().submit(self._work, batch)

    def _result(self, batch: Sequence[Item], future: Future[list[Result]]) -> list[Result]:
        try:
            return future.result()
        except BrokenProcessPool:
            return [self._alone(item) for item in batch]

    def _alone(self, item: Item) -> Result:
        """The item's result, made with nothing else under way that its end could take along."""
        with _new_pool(1) as pool:
            try:
                return pool.submit(self._work, [item]).result()[0]
            except BrokenProcessPool:
                return self._on_crash(item)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = _new_pool(self._num_workers)
        return self._pool

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _new_pool(num_workers: int) -> ProcessPoolExecutor:
    # Spawned: the threads of this process, such as those of a server, do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; one that is interrupted is told by the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
