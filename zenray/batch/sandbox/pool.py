"""A pool of workers, each with a sandbox started ahead: an execution finds Python waiting behind every wall."""

from __future__ import annotations

import asyncio
import os
import queue
from types import TracebackType

from zenray.batch.sandbox.cgroups import memory_of_machine_mib
from zenray.batch.sandbox.model import Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.sandbox.probe import check_walls
from zenray.batch.sandbox.runtime import find_interpreter
from zenray.batch.sandbox.worker import Order, Worker


class SandboxPool:
    """Runs executions, `num_workers` at a time (one per core unless told), each in a sandbox of its own.

    Thread-safe; `run` from any event loop, `run_blocking` from any thread. Checks every wall at start: raises
    SandboxUnavailable, which names what is missing and what brings it. To be closed, or used as a context.
    """

    def __init__(self, num_workers: int | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._workers: list[Worker] = []
        self._is_closed = False
        try:
            for _ in range(num_workers or os.cpu_count() or 1):
                self._workers.append(Worker(self._orders, self.limits))
            check_walls(self.run_blocking, self.limits.scratch_mib)
        except BaseException:
            self.close()
            raise

    @property
    def python_version(self) -> str:
        """Of the interpreter in the sandbox: what runs there may depend on it."""
        return ".".join(map(str, find_interpreter().version))

    async def run(self, execution: Execution) -> ExecutionResult:
        """How it ended. Cancelling kills it.

        Raises SandboxUnavailable when sandboxes broke again and again (which says nothing about the code), and
        InvalidRequest for files that cannot be placed or packages that are not installed.
        """
        order = self._submit(execution)
        try:
            return await asyncio.wrap_future(order.result)
        except asyncio.CancelledError:
            order.abandon()
            raise

    def run_blocking(self, execution: Execution) -> ExecutionResult:
        """As `run`, for those without an event loop."""
        return self._submit(execution).result.result()

    def _submit(self, execution: Execution) -> Order:
        if self._is_closed:
            raise SandboxUnavailable("the pool of sandboxes is closed")
        self._check_memory(execution.limits or self.limits)
        order = Order(execution)
        self._orders.put(order)
        return order

    def _check_memory(self, limits: Limits) -> None:
        """Without a control group the kernel only bounds processes one by one: then all of them together must fit."""
        if all(worker.bounds_memory for worker in self._workers):
            return
        most_mib = len(self._workers) * (limits.num_processes * limits.memory_mib + limits.scratch_mib)
        if most_mib > memory_of_machine_mib():
            raise SandboxUnavailable(
                f"no control group for memory can be written here, and {len(self._workers)} workers with "
                f"{limits.num_processes} processes of {limits.memory_mib} MiB could take more than the "
                f"{memory_of_machine_mib()} MiB there are: take fewer workers or smaller limits"
            )

    def close(self) -> None:
        """Ends what runs, and returns when every sandbox is gone."""
        self._is_closed = True
        for worker in self._workers:
            worker.stop()
        for _ in self._workers:
            self._orders.put(None)
        for worker in self._workers:
            worker.join()

    async def aclose(self) -> None:
        """As `close`, from an event loop."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
