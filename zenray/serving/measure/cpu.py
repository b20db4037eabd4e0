"""CPU time by process, for the processes below this one and this one itself."""

from __future__ import annotations

import contextlib
import os
import time

import psutil


class CpuMeter:
    """Sums CPU seconds by role between `begin` and `end`."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._num_chunks = 0
        self._begun_s = self.wall_s = 0.0

    def begin(self) -> None:
        self._before = cpu_seconds()
        self._begun_s = time.perf_counter()

    def end(self, num_chunks: int) -> None:
        after = cpu_seconds()
        self.wall_s += time.perf_counter() - self._begun_s
        self._num_chunks += num_chunks
        for role, seconds in after.items():
            self._spent[role] = self._spent.get(role, 0.0) + seconds - self._before.get(role, seconds)

    def per_chunk_ms(self) -> dict[str, float]:
        """Milliseconds a chunk by role, the largest first; what is below 5 microseconds is left out."""
        each = {role: spent / self._num_chunks * 1000 for role, spent in self._spent.items()}
        ordered = sorted(each.items(), key=lambda item: -item[1])
        return {role: round(ms, 3) for role, ms in ordered if ms > 0.005}


def cpu_seconds() -> dict[str, float]:
    """User and system seconds since each process began, by the name of its program or replica."""
    seconds: dict[str, float] = {}
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.Error, IndexError):
            times = process.cpu_times()
            role = _role(process)
            seconds[role] = seconds.get(role, 0.0) + times.user + times.system
    return seconds


def _role(process: psutil.Process) -> str:
    if process.pid == os.getpid():
        return "client"
    title = process.cmdline()[0]
    if title.startswith("ray::ServeReplica:"):
        return title.split(":")[4].split(".")[0]
    return title.removeprefix("ray::").split(".")[0] if title.startswith("ray::") else process.name()
