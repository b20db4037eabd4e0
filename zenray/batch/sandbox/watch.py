"""Feeds a sandbox and reads what it says, within caps and until a deadline. Nothing it does can block or fill us."""

from __future__ import annotations

import os
import select
import time

from zenray.batch.sandbox.bootstrap import REFUSED, STARTED
from zenray.batch.sandbox.jail import Pipes
from zenray.batch.sandbox.model import Ending, Limits

_CHUNK_BYTES = 65_536
_STDERR_TAIL_BYTES = 8192
_KIBIBYTE = 2**10


class Watch:
    """One execution, from the first byte of its order to the last of its output."""

    def __init__(self, pipes: Pipes, pid: int, order: bytes, limits: Limits) -> None:
        self.stdout, self.stderr, self.report = bytearray(), bytearray(), bytearray()
        self.started_at = 0.0
        self.refusal = ""
        self._order = memoryview(order)
        self._wall_s = limits.wall_s
        self._max_output_bytes = limits.output_kib * _KIBIBYTE
        self._num_stderr_bytes = 0
        self._stdin, self._status = pipes.stdin, pipes.status
        self._sinks = {pipes.stdout: self.stdout, pipes.stderr: self.stderr, pipes.report: self.report}
        self._open = {*self._sinks, self._status}
        self._exited = os.pidfd_open(pid)
        self._poll = select.poll()
        for descriptor in (*self._open, self._exited):
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._stdin, select.POLLOUT)

    def close(self) -> None:
        os.close(self._exited)

    def until_end(self, start_s: float) -> Ending | None:
        """Why it must be ended now, or None when it has ended itself. It has `start_s` to take its order."""
        start_by = time.monotonic() + start_s
        while True:
            deadline = self.started_at + self._wall_s if self.started_at else start_by
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return Ending.TIMED_OUT
            for descriptor, _ in self._poll.poll(left_s * 1000):
                if descriptor == self._exited:
                    return None
                if descriptor == self._stdin:
                    self._feed()
                elif self._take(descriptor):
                    return Ending.OUTPUT_LIMIT

    def drain(self, within_s: float) -> bool:
        """Reads what was said before the end, once nobody can say more. Whether all in all that was too much."""
        deadline = time.monotonic() + within_s
        is_too_much = False
        self._poll.unregister(self._exited)
        self._order = memoryview(b"")
        while self._open and (left_s := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left_s * 1000):
                if descriptor == self._stdin:
                    self._feed()
                else:
                    is_too_much |= self._take(descriptor)
        return is_too_much

    def _feed(self) -> None:
        try:
            if self._order:
                self._order = self._order[os.write(self._stdin, self._order[:_CHUNK_BYTES]) :]
        except BrokenPipeError:
            self._order = memoryview(b"")
        if not self._order:
            self._poll.unregister(self._stdin)

    def _take(self, descriptor: int) -> bool:
        """Reads a little. Whether that was more than is allowed."""
        data = os.read(descriptor, _CHUNK_BYTES)
        if not data:
            self._poll.unregister(descriptor)
            self._open.remove(descriptor)
            return False
        if descriptor == self._status:
            self._note(data)
            return False
        sink = self._sinks[descriptor]
        if sink is self.stderr:  # Its end says most.
            self._num_stderr_bytes += len(data)
            sink += data
            del sink[:-_STDERR_TAIL_BYTES]
            return self._num_stderr_bytes > self._max_output_bytes
        room = self._max_output_bytes - len(sink)
        sink += data[:room]
        return len(data) > room

    def _note(self, status: bytes) -> None:
        if status.startswith(STARTED):
            self.started_at = time.monotonic()
        elif status.startswith(REFUSED):
            self.refusal = status[len(REFUSED) :].decode(errors="replace")
