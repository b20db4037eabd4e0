"""A worker of the pool: a user, a control group, and a sandbox that waits for its one execution."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from concurrent.futures import Future

from zenray.batch.sandbox.cgroups import ControlGroup
from zenray.batch.sandbox.model import Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.sandbox.sandbox import Sandbox
from zenray.errors import InvalidRequest

_NUM_TRIES = 3
_GIVEN_UP = "the execution was given up: it was cancelled, or the pool was closed"
_FIRST_UID, _NUM_UIDS = 40_000, 10_000  # Debian reserves them, and hands none out.


class Order:
    """An execution somebody waits for."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.result: Future[ExecutionResult] = Future()
        self._guard = threading.Lock()
        self._sandbox: Sandbox | None = None
        self.is_abandoned = False

    def abandon(self) -> None:
        """Nobody waits any more. From any thread."""
        with self._guard:
            self.is_abandoned = True
            if self._sandbox is not None:
                self._sandbox.kill()

    def run_in(self, sandbox: Sandbox, limits: Limits) -> ExecutionResult:
        with self._guard:
            if self.is_abandoned:
                raise SandboxUnavailable(_GIVEN_UP)
            self._sandbox = sandbox
        try:
            return sandbox.run(self.execution, limits)
        except SandboxUnavailable as error:
            if self.is_abandoned:
                raise SandboxUnavailable(_GIVEN_UP) from error
            raise
        finally:
            with self._guard:
                self._sandbox = None


class Worker(threading.Thread):
    """Takes orders until it gets None. A thread of its own, because a sandbox dies with the thread that started it."""

    def __init__(self, orders: queue.SimpleQueue[Order | None], limits: Limits) -> None:
        super().__init__(name="sandbox-worker", daemon=True)
        self._orders = orders
        self._limits = limits
        self._lease, uid = _lease_uid()
        self._uid = uid if os.geteuid() == 0 else None
        self._group = ControlGroup(f"zenray-sandbox-{uid}")
        self._spare: Sandbox | None = None
        self._order: Order | None = None
        self._is_stopping = False
        self.start()

    @property
    def bounds_memory(self) -> bool:
        return self._group.folder is not None

    def stop(self) -> None:
        """Gives up what runs and what waits. From any thread."""
        self._is_stopping = True
        if (order := self._order) is not None:
            order.abandon()

    def run(self) -> None:
        try:
            while (order := self._orders.get()) is not None:
                self._order = order
                if self._is_stopping:
                    order.abandon()
                if order.result.set_running_or_notify_cancel():
                    self._answer(order)
                self._order = None
        finally:
            if self._spare is not None:
                self._spare.close()
            self._group.remove()
            self._lease.close()

    def _answer(self, order: Order) -> None:
        limits = order.execution.limits or self._limits
        try:
            order.result.set_result(self._execute(order, limits))
        except Exception as error:
            order.result.set_exception(error)
            return
        if not self._is_stopping:
            with contextlib.suppress(SandboxUnavailable, InvalidRequest):  # Whoever needs it will hear.
                self._spare = self._start_one(order.execution, limits)  # The next is likely to want the like.

    def _execute(self, order: Order, limits: Limits) -> ExecutionResult:
        for num_left in reversed(range(_NUM_TRIES)):
            sandbox = self._take_spare(order.execution, limits) or self._start_one(order.execution, limits)
            try:
                return order.run_in(sandbox, limits)
            except SandboxUnavailable:
                if num_left == 0 or order.is_abandoned:
                    raise
            finally:
                sandbox.close()
        raise AssertionError("unreachable")

    def _take_spare(self, execution: Execution, limits: Limits) -> Sandbox | None:
        spare, self._spare = self._spare, None
        if spare is None or (spare.packages, spare.scratch_mib) == (execution.packages, limits.scratch_mib):
            return spare
        spare.close()
        return None

    def _start_one(self, execution: Execution, limits: Limits) -> Sandbox:
        return Sandbox(execution.packages, limits.scratch_mib, execution.hash_seed, self._uid, self._group)


def _lease_uid() -> tuple[socket.socket, int]:
    """A user that no other worker on this machine has. The name is free again when the socket is closed or we die."""
    for uid in range(_FIRST_UID, _FIRST_UID + _NUM_UIDS):
        lease = socket.socket(socket.AF_UNIX)
        try:
            lease.bind(f"\0zenray-sandbox-{uid}")
        except OSError:
            lease.close()
        else:
            return lease, uid
    raise SandboxUnavailable(f"all {_NUM_UIDS} users for sandboxes are taken")
