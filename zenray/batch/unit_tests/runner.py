"""Runs tests in the sandbox, every run in a forked child of its own, and reports one JSON line per run and test.

This file is sent into the sandbox alone: the standard library is all it may use (and coverage, when it measures). A
child that crashes, leaves, hangs or fills the memory costs its own run. It cannot reach the runner's report, and what
it says of itself counts only with the word that the runner gave to that child. It can kill the runner: then the last
line is missing, and whoever reads the report knows.

`plan.json` beside this file says what to run; `execution.py` writes it and reads the report.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import time
import types
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

FOCAL = "focal"
FOCAL_FILE = "focal.py"
SPOILED = 3
"""Exit status after a run whose traces could not be removed: what comes next must have a sandbox of its own."""
_MAX_DETAIL_CHARACTERS = 300
_MAX_RECORD_BYTES = 60_000  # What a pipe takes without a reader.
_MAX_OUTPUT_BYTES = 2**20
_ORPHANS_S = 5.0
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36

Record = dict[str, Any]
Code = types.CodeType | str  # A string says why there is no code.


class _Unfit(BaseException):
    """What is wrong with a run, in the words of the report. No `except Exception` of a test catches it."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome, self.detail = outcome, detail


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
    modules = [_compiled(source, focal_file) for source in plan["modules"]]
    tests = [_compiled(source, f"test_{index}.py") for index, source in enumerate(plan["tests"])]
    measure = _Coverage(focal_file, plan["modules"][0], plan["measure"]) if plan["measure"] else None
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
            _write(report, {"run": index, "test": test, **record})
    _write(report, {"end": len(plan["runs"])})


class _Child:
    """One run: some tests, one after the other, on one fresh import of a module."""

    def __init__(self, plan: Record, module: Code, tests: list[Code], measure: _Coverage | None) -> None:
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
            self._live(writing, output, word)
        os.close(writing)
        said, in_time = self._listen(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # It has said all it will, or its time is up.
        _, status, usage = os.wait4(pid, 0)
        has_flooded = os.fstat(output).st_size >= _MAX_OUTPUT_BYTES
        os.close(reading)
        os.close(output)
        return self._judge(_heard(said, word), status, usage.ru_utime + usage.ru_stime, in_time, has_flooded)

    def _listen(self, pipe: int) -> tuple[bytes, bool]:
        """What the child says until its last word, its death or the end of its time; and whether it was in time."""
        os.set_blocking(pipe, False)
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        deadline = time.monotonic() + self._wall_s
        said = bytearray()
        while not said.endswith(b"\n\n") and len(said) <= _MAX_RECORD_BYTES * (1 + len(self._tests)):
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                return bytes(said), False
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
        return [{**record, "cpu_s": round(cpu_s, 3)} for record in records]

    def _ended(self, status: int, cpu_s: float, in_time: bool) -> Record:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in (signal.SIGPROF, signal.SIGXCPU) or (number == signal.SIGKILL and cpu_s >= self._cpu_s):
            return {"outcome": "timed_out", "detail": "used up its processor time"}
        if not in_time:
            return {"outcome": "timed_out", "detail": "did not end"}
        if number:
            return {"outcome": "crashed", "detail": f"ended by {signal.Signals(number).name}"}
        return {"outcome": "crashed", "detail": "left the process before its end"}

    def _live(self, pipe: int, output: int, word: str) -> NoReturn:
        """The child's whole life."""
        me = os.getpid()
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor in (1, 2):
                os.dup2(output, descriptor)
            os.close(output)
            self._take_limits()
            if self._measure:
                self._measure.start()
            module, error = self._import()
            for code in self._tests:
                record = error or _run_test(module, code, self._plan)
                if os.getpid() != me:  # The test has split itself.
                    break
                if self._measure:
                    record = {**record, **self._measure.stop()}
                os.write(pipe, json.dumps([word, record]).encode()[:_MAX_RECORD_BYTES] + b"\n")
            else:
                os.write(pipe, b"\n")
        finally:
            os._exit(0)

    def _take_limits(self) -> None:
        whole_s = math.ceil(self._cpu_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (whole_s, whole_s))  # Should the test catch the timer's signal.
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = _MAX_OUTPUT_BYTES if most == resource.RLIM_INFINITY else min(most, _MAX_OUTPUT_BYTES)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.setitimer(signal.ITIMER_PROF, self._cpu_s)

    def _import(self) -> tuple[types.ModuleType, Record | None]:
        """The module, and what is wrong with it."""
        module = types.ModuleType(FOCAL)
        module.__file__ = os.path.abspath(FOCAL_FILE)
        sys.modules[FOCAL] = module
        try:
            _execute(self._module, module.__dict__)
        except BaseException as error:
            record = _record_of(error)
            return module, {**record, "detail": f"import: {record['detail']}"[:_MAX_DETAIL_CHARACTERS]}
        return module, None


def _run_test(module: types.ModuleType, code: Code, plan: Record) -> Record:
    """How one test ends."""
    watched = [module, builtins, sys, os, time, *(sys.modules[name] for name in plan["preload"] if name in sys.modules)]
    before = (_bindings(watched), _settings()) if plan["watch"] else ({}, {})
    record = {"outcome": "passed"}
    try:
        names: dict[str, Any] = {"__name__": "test_focal", "__builtins__": builtins}
        exec(f"from {FOCAL} import {plan['import_name']}", names)  # noqa: S102 - this is the sandbox
        _execute(code, names)
        tests = [value for name, value in names.items() if name.startswith("test_") and callable(value)]
        if len(tests) != 1:
            raise _Unfit("raised", f"has {len(tests)} tests")
        if tests[0]() is not None:
            raise _Unfit("failed", "returns something, as no test does")
    except BaseException as error:
        record = _record_of(error)
    if plan["watch"]:
        bindings, settings = _bindings(watched), _settings()
        changed = [name for name, value in before[0].items() if bindings.get(name) is not value]
        changed += [name for name, value in before[1].items() if settings[name] != value]
        if changed:
            return {"outcome": "crashed", "detail": f"left {changed[0]} changed"}
    return record


def _bindings(modules: list[types.ModuleType]) -> dict[str, Any]:
    """Functions and classes by name, and what the focal ones are made of: what no test may leave changed."""
    names: dict[str, Any] = {}
    for module in modules:
        for name, value in list(vars(module).items()):
            if callable(value):
                names[f"{module.__name__}.{name}"] = value
                if getattr(value, "__module__", None) == FOCAL:
                    names[f"{FOCAL}.{name}.__code__"] = getattr(value, "__code__", None)
                    for member, it in list(vars(value).items()) if isinstance(value, type) else ():
                        if callable(it):
                            names[f"{FOCAL}.{name}.{member}"] = it
    return names


def _settings() -> dict[str, Any]:
    """Of the process: what a test that runs later in the same one would see."""
    return {
        "os.environ": dict(os.environ),
        "os.getcwd()": os.getcwd(),
        "sys.path": list(sys.path),
        "sys.getrecursionlimit()": sys.getrecursionlimit(),
        "standard streams": (id(sys.stdin), id(sys.stdout), id(sys.stderr)),
    }


class _Coverage:
    """Lines and branches among some lines of the module, as coverage.py sees them in one child."""

    def __init__(self, file: str, source: str, lines: list[int]) -> None:
        import coverage

        self._file, self._source = file, source
        self._lines = range(lines[0], lines[1] + 1)
        self._coverage = coverage.Coverage(
            data_file=None, branch=True, include=[file], config_file=False, messages=False
        )

    def start(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file)
        with open(self._file, "w", encoding="utf-8") as file:  # Anew, whatever an earlier child did to it.
            file.write(self._source)
        self._coverage.start()

    def stop(self) -> Record:
        self._coverage.stop()
        place = self._file + ".json"
        self._coverage.json_report(outfile=place)
        with open(place, encoding="utf-8") as file:
            (told,) = json.load(file)["files"].values()
        return {
            "lines": self._here(told["executed_lines"]),
            "missing_lines": self._here(told["missing_lines"]),
            "branches": [arc for arc in told["executed_branches"] if arc[0] in self._lines],
            "missing_branches": [arc for arc in told["missing_branches"] if arc[0] in self._lines],
        }

    def _here(self, lines: list[int]) -> list[int]:
        return [line for line in lines if line in self._lines]


def _execute(code: Code, names: dict[str, Any]) -> None:
    if isinstance(code, str):
        raise _Unfit("raised", code)
    exec(code, names)  # noqa: S102 - this is the sandbox


def _record_of(error: BaseException) -> Record:
    """What an exception says of a run."""
    name = type(error).__name__
    if isinstance(error, _Unfit):
        return {"outcome": error.outcome, "detail": _plain(error.detail)}
    if isinstance(error, MemoryError):
        return {"outcome": "out_of_memory", "detail": name}
    if isinstance(error, _exceptions("skip", "SkipTest")):
        return {"outcome": "skipped", "detail": "skips itself"}
    has_failed = isinstance(error, (AssertionError, *_exceptions("fail")))
    try:
        said = str(error)
    except BaseException:
        said = ""
    line = _line_of_test(error)
    detail = (f"line {line}: " if line else "") + name + (f": {said}" if said else "")
    return {"outcome": "failed" if has_failed else "raised", "detail": _plain(detail)}


def _exceptions(of_pytest: str, of_unittest: str = "") -> tuple[type[BaseException], ...]:
    """By which a test of pytest or unittest says so, if it has imported them."""
    pytest, unittest = sys.modules.get("pytest"), sys.modules.get("unittest")
    return (
        *((getattr(pytest, of_pytest).Exception,) if pytest else ()),
        *((getattr(unittest, of_unittest),) if unittest and of_unittest else ()),
    )


def _line_of_test(error: BaseException) -> int | None:
    """The last line of the test that the exception came through."""
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename.startswith("test_"):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _plain(text: str) -> str:
    """One line without addresses and folders, which differ from run to run."""
    text = re.sub(r"\b0x[0-9a-fA-F]{4,}", "0x…", text[: 4 * _MAX_DETAIL_CHARACTERS])
    text = re.sub(r"(?:/[\w.+-]+)+/(?=[\w.+-])", "…/", text)
    text = " ".join(text.split())[:_MAX_DETAIL_CHARACTERS]
    return "".join(letter if letter.isprintable() else "?" for letter in text)


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


def _compiled(source: str, file: str) -> Code:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source, file, "exec", dont_inherit=True)
    except Exception as error:
        return _plain(f"{type(error).__name__}: {getattr(error, 'msg', error)}")


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
