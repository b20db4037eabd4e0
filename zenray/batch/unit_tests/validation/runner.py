"""Runs tests in the sandbox, every run in a forked child of its own, and reports one JSON line per run and test.

Sent into the sandbox with `runner_child.py`: the standard library is all they may use, and coverage where it is
measured. A child that crashes, leaves, hangs or fills the memory costs its own run. It cannot reach the runner's
report, and what it says of itself counts only with the word that the runner gave to that child. It can kill the
runner: then the last line is missing, and whoever reads the report knows.

`plan.json` beside this file says what to run; `execution.py` writes it and reads the report.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import select
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from typing import Any

from zenray.batch.unit_tests.validation.runner_child import (
    FOCAL_FILE,
    MAX_OUTPUT_BYTES,
    MAX_RECORD_BYTES,
    Code,
    Coverage,
    Record,
    compiled,
    live,
)

SPOILED = 3
"""Exit status after a run whose traces could not be removed: what comes next must have a sandbox of its own."""
_ORPHANS_S = 5.0
_LOOK_S = 1.0
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36


def main() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "plan.json"), encoding="utf-8") as file:
        plan = json.load(file)
    report = int(os.environ.pop("ZENRAY_REPORT_FD"))
    _guard_this_process()
    true_urandom = os.urandom
    _control_randomness(plan["hash_seed"])
    _preload(plan["preload"])
    focal_file = os.path.join(folder, FOCAL_FILE)
    modules = [compiled(source, focal_file) for source in plan["modules"]]
    tests = [compiled(source, f"test_{index}.py") for index, source in enumerate(plan["tests"])]
    measure = Coverage(focal_file, plan["modules"][0], plan["measure"]) if plan["measure"] else None
    scratch = _Scratch(folder)
    timeouts = [0] * len(modules)
    warnings.simplefilter("ignore")
    gc.collect()
    gc.freeze()  # Children share these pages instead of touching them.
    for index, (module, chosen, is_optional) in enumerate(plan["runs"]):
        if is_optional and timeouts[module] >= plan["max_timeouts"]:
            records: list[Record] = [{"outcome": "not_run"}] * len(chosen)
        else:
            child = _Child(plan, modules[module], [tests[test] for test in chosen], measure)
            records = child.run(report, true_urandom(16).hex())
            timeouts[module] += any(record["outcome"] == "timed_out" for record in records)
            _kill_orphans()
            scratch.clean()
        for test, record in zip(chosen, records, strict=True):
            _write(report, {**record, "run": index, "test": test})
    _write(report, {"end": len(plan["runs"])})


class _Child:
    """One run: some tests, one after the other, on one fresh import of a module."""

    def __init__(self, plan: Record, module: Code, tests: list[Code], measure: Coverage | None) -> None:
        self._plan, self._module, self._tests, self._measure = plan, module, tests, measure
        self._cpu_s = plan["cpu_s"] * len(tests)
        self._wall_s = plan["wall_s"] * len(tests)

    def run(self, report: int, word: str) -> list[Record]:
        """One record per test, in order."""
        reading, writing = os.pipe()
        output = os.memfd_create("output")
        pid = os.fork()
        if pid == 0:
            os.close(report)
            os.close(reading)
            live(self._plan, self._module, self._tests, self._measure, writing, output, word)
        os.close(writing)
        said, in_time = self._listen(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # It has said all it will, or its time is up.
        _, status, usage = os.wait4(pid, 0)
        has_flooded = os.fstat(output).st_size >= MAX_OUTPUT_BYTES
        os.close(reading)
        os.close(output)
        return self._judge(_heard(said, word), status, usage.ru_utime + usage.ru_stime, in_time, has_flooded)

    def _listen(self, pipe: int) -> tuple[bytes, bool]:
        """What the child says until its last word, its death or the end of its time; and whether it was in time."""
        os.set_blocking(pipe, False)
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        waited_s = 0.0
        said = bytearray()
        while not said.endswith(b"\n\n") and len(said) <= MAX_RECORD_BYTES * (1 + len(self._tests)):
            look_s = min(_LOOK_S, self._wall_s - waited_s)
            if look_s <= 0:
                return bytes(said), False
            begun_s = time.monotonic()
            is_ready = poll.poll(look_s * 1000)
            waited_s += min(look_s, time.monotonic() - begun_s)  # A machine that stood still was no test's doing.
            if not is_ready:
                continue
            chunk = os.read(pipe, 65_536)
            if not chunk:
                break
            said += chunk
        return bytes(said), True

    def _judge(self, heard: list[Record], status: int, cpu_s: float, in_time: bool, has_flooded: bool) -> list[Record]:
        """What was heard, then for the test at which the child ended what its end looks like."""
        records = [*heard[: len(self._tests)]]
        if has_flooded:
            records = [{**record, "outcome": "crashed", "detail": "printed too much"} for record in records]
        if len(records) < len(self._tests):
            records.append(self._ended(status, cpu_s, in_time))
        records += [{"outcome": "not_run"}] * (len(self._tests) - len(records))
        return records

    def _ended(self, status: int, cpu_s: float, in_time: bool) -> Record:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        has_used_up = number in (signal.SIGPROF, signal.SIGXCPU) or (number == signal.SIGKILL and cpu_s >= self._cpu_s)
        if has_used_up or not in_time:
            return {"outcome": "timed_out", "detail": "takes too long"}  # Which limit it met depends on the machine.
        if number:
            return {"outcome": "crashed", "detail": f"ended by {signal.Signals(number).name}"}
        return {"outcome": "crashed", "detail": "left the process before its end"}


def _heard(said: bytes, word: str) -> list[Record]:
    """The records of a child that knows its word; anything else ends the list."""
    records = []
    for line in said.split(b"\n"):
        try:
            spoken, record = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            break
        if spoken != word or not isinstance(record, dict):
            break
        records.append(record)
    return records


def _preload(names: list[str]) -> None:
    """Modules that the sources import, once for all children."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def _control_randomness(seed: int) -> None:
    """Randomness follows the plan: a test that depends on it shows so, and in the same way every time."""
    stream = random.Random(seed)
    random.seed(stream.random())
    os.urandom = stream.randbytes
    random._urandom = stream.randbytes  # type: ignore[attr-defined]
    true_seed = random.Random.seed

    def seed_from_stream(self: random.Random, a: Any = None, version: int = 2) -> None:
        true_seed(self, stream.getrandbits(64) if a is None else a, version)

    random.Random.seed = seed_from_stream  # type: ignore[method-assign]
    random.seed = random._inst.seed


def _guard_this_process() -> None:
    """Nobody of the same user may look into this process, and what children leave behind becomes our child."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_CHILD_SUBREAPER, 1)):
        if prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")


def _kill_orphans() -> None:
    """Ends whatever a run has left behind, and what that leaves behind."""
    deadline = time.monotonic() + _ORPHANS_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        if time.monotonic() > deadline:
            os._exit(SPOILED)
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _children() -> Iterator[int]:
    me = str(os.getpid())
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
            if file.read().rpartition(")")[2].split()[1] == me:
                yield int(name)


class _Scratch:
    """The folders a run may write to; what it leaves there is removed."""

    def __init__(self, folder: str) -> None:
        self._kept = {place: self._names(place) for place in {folder, "/tmp", "/var/tmp", "/dev/shm"}}  # noqa: S108

    def clean(self) -> None:
        try:
            for place, kept in self._kept.items():
                for name in self._names(place) - kept:
                    path = os.path.join(place, name)
                    if os.path.isdir(path) and not os.path.islink(path):
                        shutil.rmtree(path)
                    else:
                        os.unlink(path)
        except (OSError, RecursionError):
            os._exit(SPOILED)

    @staticmethod
    def _names(place: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(place))
        except FileNotFoundError:
            return frozenset()


def _write(descriptor: int, record: Record) -> None:
    line = memoryview(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    while line:
        line = line[os.write(descriptor, line) :]


if __name__ == "__main__":
    main()
