"""Runs of kept tests that share nothing with validation but the sandbox: plain pytest, in a fresh process each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zenray.batch.sandbox.model import Ending, Execution, ExecutionResult, Limits
from zenray.batch.unit_tests.validation.execution import Pool

_LIMITS = Limits(wall_s=120.0, cpu_s=60)
_START_CPU_S, _TEST_CPU_S = 4, 2  # On a mutant: many never end, and each costs its limit.
_ENTRY = "recheck_entry.py"
_PYTEST = ("-q", "-p", "no:cacheprovider")
_TELL = """
import json, os
with open(int(os.environ["ZENRAY_REPORT_FD"]), "w") as report:
    json.dump(told, report)
"""
_COUNT = """
import pytest

told = {{"passed": 0, "failed": []}}

class Count:
    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            told["passed"] += 1
        elif not report.passed:
            told["failed"].append(f"{{report.nodeid}}: {{report.outcome}}")

told["status"] = int(pytest.main({arguments!r}, plugins=[Count()]))
"""
_MEASURE = """
import json
from coverage.cmdline import main

told = {{"status": main({run!r})}}
main(["json", "-q", "-o", "/tmp/measured.json", "--include", {file!r}])
with open("/tmp/measured.json") as file:
    told["file"] = next(iter(json.load(file)["files"].values()), None)
"""


@dataclass(frozen=True, slots=True)
class PytestRun:
    """What pytest said. `status` is its exit status, None where it did not come to its end."""

    status: int | None
    num_passed: int
    failed: tuple[str, ...]
    problem: str

    @property
    def passed(self) -> bool:
        return self.status == 0 and not self.failed


@dataclass(frozen=True, slots=True)
class Measured:
    """Lines and branches of one file, as coverage.py reports them."""

    lines: frozenset[int]
    missing_lines: frozenset[int]
    branches: frozenset[tuple[int, int]]
    missing_branches: frozenset[tuple[int, int]]


async def run_pytest(pool: Pool, files: Mapping[str, str]) -> PytestRun:
    """`pytest` in a folder that holds `files`."""
    return await _pytest(pool, files, _PYTEST, _LIMITS)


async def survives(pool: Pool, files: Mapping[str, str], num_tests: int) -> bool:
    """Whether `pytest -x` passes, of `num_tests` tests."""
    limits = replace(_LIMITS, cpu_s=_START_CPU_S + _TEST_CPU_S * num_tests)
    return (await _pytest(pool, files, (*_PYTEST, "-x"), limits)).passed


async def _pytest(pool: Pool, files: Mapping[str, str], arguments: Sequence[str], limits: Limits) -> PytestRun:
    told, problem = await _told(pool, files, _COUNT.format(arguments=list(arguments)), ("pytest",), limits)
    return PytestRun(told.get("status"), told.get("passed", 0), tuple(told.get("failed", ())), problem)


async def run_coverage(pool: Pool, files: Mapping[str, str], file: str) -> Measured | str:
    """`coverage run --branch -m pytest`, of which `file` is measured; or what went wrong."""
    run = ["run", "--branch", f"--include={file}", "-m", "pytest", *_PYTEST]
    told, problem = await _told(pool, files, _MEASURE.format(run=run, file=file), ("coverage", "pytest"), _LIMITS)
    if problem or told["file"] is None:
        return problem or f"{file} was not imported"
    found = told["file"]
    return Measured(
        frozenset(found["executed_lines"]),
        frozenset(found["missing_lines"]),
        frozenset((start, end) for start, end in found["executed_branches"]),
        frozenset((start, end) for start, end in found["missing_branches"]),
    )


async def _told(
    pool: Pool, files: Mapping[str, str], program: str, packages: tuple[str, ...], limits: Limits
) -> tuple[dict[str, Any], str]:
    """What `program` told through the report, and what kept it from telling anything."""
    files = {**files, _ENTRY: program + _TELL}
    result = await pool.run(Execution(files, _ENTRY, packages=packages, limits=limits))
    try:
        return json.loads(result.report), ""
    except ValueError:
        return {}, _why(result)


def _why(result: ExecutionResult) -> str:
    tail = result.stderr_tail.decode("utf-8", "replace").strip().splitlines()[-1:]
    ended = f"exit status {result.exit_code}" if result.ending is Ending.EXITED else result.ending.value
    return ": ".join([ended, *tail])
