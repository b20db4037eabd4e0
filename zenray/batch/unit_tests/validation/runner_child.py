"""What happens inside the child of one run: the import of the module, the tests, and what they came to.

Sent into the sandbox beside `runner.py`; nothing here is trusted once a test runs.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import math
import os
import re
import resource
import signal
import sys
import time
import types
import warnings
from typing import Any, NoReturn

FOCAL = "focal"
FOCAL_FILE = "focal.py"
MAX_RECORD_BYTES = 60_000  # What a pipe takes without a reader.
MAX_OUTPUT_BYTES = 2**20
_MAX_DETAIL_CHARACTERS = 300

Record = dict[str, Any]
Code = types.CodeType | str  # A string says why there is no code.


class _Unfit(BaseException):
    """What is wrong with a run, in the words of the report. No `except Exception` of a test catches it."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome, self.detail = outcome, detail


def live(
    plan: Record, module_code: Code, tests: list[Code], measure: Coverage | None, pipe: int, output: int, word: str
) -> NoReturn:
    """The child's whole life. Writes a line for each test into `pipe`, with `word`, and an empty one at the end."""
    me = os.getpid()
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.close(output)
        _take_limits(plan["cpu_s"] * len(tests))
        if measure:
            measure.start()
        module, error = _import(module_code)
        for code in tests:
            record = error or _run_test(module, code, plan)
            if os.getpid() != me:  # The test has split itself.
                break
            if measure:
                record = {**record, **measure.stop()}
            os.write(pipe, json.dumps([word, record]).encode()[:MAX_RECORD_BYTES] + b"\n")
        else:
            os.write(pipe, b"\n")
    finally:
        os._exit(0)


def _take_limits(cpu_s: float) -> None:
    whole_s = math.ceil(cpu_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (whole_s, whole_s))  # Should the test catch the timer's signal.
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = MAX_OUTPUT_BYTES if most == resource.RLIM_INFINITY else min(most, MAX_OUTPUT_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _import(code: Code) -> tuple[types.ModuleType, Record | None]:
    """The module, and what is wrong with it."""
    module = types.ModuleType(FOCAL)
    module.__file__ = os.path.abspath(FOCAL_FILE)
    sys.modules[FOCAL] = module
    try:
        _execute(code, module.__dict__)
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


class Coverage:
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


def compiled(source: str, file: str) -> Code:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile(source, file, "exec", dont_inherit=True)
    except Exception as error:
        return _plain(f"{type(error).__name__}: {getattr(error, 'msg', error)}")
