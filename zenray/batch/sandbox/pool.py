"""A pool of workers, each with a sandbox started ahead: an execution finds Python waiting behind every wall."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import socket
import threading
from concurrent.futures import Future
from types import TracebackType

from zenray.batch.sandbox.cgroups import ControlGroup
from zenray.batch.sandbox.model import Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.sandbox.probe import check_walls
from zenray.batch.sandbox.sandbox import Sandbox
from zenray.errors import InvalidRequest

_NUM_TRIES = 3
_FIRST_UID, _NUM_UIDS = 40_000, 10_000  # No system hands these out.


class SandboxPool:
    """Runs executions, `num_workers` at a time, each in a sandbox of its own that was started ahead of it.

    Thread-safe; `run` from any event loop, `run_blocking` from any thread. Checks every layer at start: raises
    SandboxUnavailable, which names the layer that is missing and what brings it.
    """

    def __init__(self, num_workers: int | None = None, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._workers = [_Worker(self._orders, self.limits) for _ in range(num_workers or os.cpu_count() or 1)]
        self._closed = False
        try:
            check_walls(self.run_blocking, self.limits.scratch_mib)
        except BaseException:
            self.close()
            raise

    async def run(self, execution: Execution) -> ExecutionResult:
        """Raises SandboxUnavailable if sandboxes broke again and again, which says nothing about the code."""
        return await asyncio.wrap_future(self._submit(execution))

    def run_blocking(self, execution: Execution) -> ExecutionResult:
        """As `run`, for those without an event loop."""
        return self._submit(execution).result()

    def _submit(self, execution: Execution) -> Future[ExecutionResult]:
        if self._closed:
            raise SandboxUnavailable("the sandbox pool is closed")
        order = _Order(execution)
        self._orders.put(order)
        return order.future

    def close(self) -> None:
        """Ends what runs, and returns when every sandbox is gone."""
        self._closed = True
        for worker in self._workers:
            worker.stop()
        for _ in self._workers:
            self._orders.put(None)
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Order:
    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.future: Future[ExecutionResult] = Future()


class _Worker(threading.Thread):
    """Owns a user, a control group and the sandbox that waits. A thread, because a sandbox dies with its thread."""

    def __init__(self, orders: queue.SimpleQueue[_Order | None], limits: Limits) -> None:
        super().__init__(name="sandbox-worker", daemon=True)
        self._orders = orders
        self._limits = limits
        self._lease, uid = _lease_uid()
        self._uid = uid if os.geteuid() == 0 else None
        self._group = ControlGroup(f"zenray-sandbox-{uid}")
        self._spare: Sandbox | None = None
        self._current: Sandbox | None = None
        self._stopping = False
        self.start()

    def stop(self) -> None:
        self._stopping = True
        sandbox = self._current
        if sandbox is not None:
            sandbox.kill()

    def run(self) -> None:
        try:
            while (order := self._orders.get()) is not None:
                if self._stopping:
                    order.future.set_exception(SandboxUnavailable("the sandbox pool was closed"))
                    continue
                if not order.future.set_running_or_notify_cancel():
                    continue
                try:
                    order.future.set_result(self._execute(order.execution))
                except BaseException as error:
                    order.future.set_exception(error)
                if not self._stopping:
                    self._prepare(order.execution)
        finally:
            if self._spare is not None:
                self._spare.close()
            self._group.remove()
            self._lease.close()

    def _execute(self, execution: Execution) -> ExecutionResult:
        limits = execution.limits or self._limits
        for attempt in range(_NUM_TRIES):
            sandbox = self._sandbox_for(execution, limits)
            self._current = sandbox
            try:
                return sandbox.run(execution, limits)
            except SandboxUnavailable:
                if attempt == _NUM_TRIES - 1 or self._stopping:
                    raise
            finally:
                self._current = None
                sandbox.close()
        raise AssertionError

    def _sandbox_for(self, execution: Execution, limits: Limits) -> Sandbox:
        spare, self._spare = self._spare, None
        if spare is not None and (spare.packages, spare.scratch_mib) == (execution.packages, limits.scratch_mib):
            return spare
        if spare is not None:
            spare.close()
        return Sandbox(execution.packages, limits.scratch_mib, execution.hash_seed, self._uid, self._group)

    def _prepare(self, like: Execution) -> None:
        """The next execution is likely to want what this one did."""
        limits = like.limits or self._limits
        with contextlib.suppress(SandboxUnavailable, InvalidRequest):  # Whoever needs one will hear.
            self._spare = Sandbox(like.packages, limits.scratch_mib, like.hash_seed, self._uid, self._group)


def _lease_uid() -> tuple[socket.socket, int]:
    """A user number that no other worker on this machine has. The name of a socket is free again when we are gone."""
    for uid in range(_FIRST_UID, _FIRST_UID + _NUM_UIDS):
        lease = socket.socket(socket.AF_UNIX)
        try:
            lease.bind(f"\0zenray-sandbox-uid-{uid}")
        except OSError:
            lease.close()
            continue
        return lease, uid
    raise SandboxUnavailable(f"all of {_NUM_UIDS} users for sandboxes are taken")
