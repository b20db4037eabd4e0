"""Runs of kept tests that share nothing with validation but the sandbox: plain pytest, in a fresh process each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zenray.batch.sandbox.model import Ending, Execution, ExecutionResult, Limits
from zenray.batch.unit_tests.execution import Pool

_LIMITS = Limits(wall_s=120.0, cpu_s=60, num_processes=32)
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


async def run_pytest(pool: Pool, files: Mapping[str, str], *arguments: str, first_failure: bool = False) -> PytestRun:
    """`pytest ARGUMENTS` over `files` in the folder that holds them; with `first_failure` no further than that."""
    arguments = (*_PYTEST, *(("-x",) if first_failure else ()), *arguments)
    told, problem = await _told(pool, files, _COUNT.format(arguments=list(arguments)), ("pytest",))
    return PytestRun(told.get("status"), told.get("passed", 0), tuple(told.get("failed", ())), problem)


async def run_coverage(pool: Pool, files: Mapping[str, str], file: str, *arguments: str) -> Measured | str:
    """`coverage run --branch -m pytest ARGUMENTS`, of which `file` is measured; or what went wrong."""
    run = ["run", "--branch", f"--include={file}", "-m", "pytest", *_PYTEST, *arguments]
    told, problem = await _told(pool, files, _MEASURE.format(run=run, file=file), ("coverage", "pytest"))
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
    pool: Pool, files: Mapping[str, str], program: str, packages: tuple[str, ...]
) -> tuple[dict[str, Any], str]:
    """What `program` told through the report, and what kept it from telling anything."""
    execution = Execution({**files, "recheck_entry.py": program + _TELL}, "recheck_entry.py", packages=packages,
                          limits=_LIMITS)  # fmt: skip
    result = await pool.run(execution)
    try:
        return json.loads(result.report), ""
    except ValueError:
        return {}, _why(result)


def _why(result: ExecutionResult) -> str:
    tail = result.stderr_tail.decode("utf-8", "replace").strip().splitlines()[-1:]
    ended = f"exit status {result.exit_code}" if result.ending is Ending.EXITED else result.ending.value
    return ": ".join([ended, *tail])
