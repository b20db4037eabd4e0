"""Runs tests of one function in the sandbox: many runs in one execution, and what each of them came to."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from zenray.batch.sandbox import Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.unit_tests.model import CandidateTest, TestOutcome
from zenray.batch.unit_tests.validation.focal_function import parse_quietly

_ENTRY, _CHILD = "runner.py", "runner_child.py"
_RUNNER = {
    _ENTRY: Path(__file__).with_name(_ENTRY).read_text(encoding="utf-8"),
    # Where the runner imports it from; folders alone are packages enough.
    f"zenray/batch/unit_tests/validation/{_CHILD}": Path(__file__).with_name(_CHILD).read_text(encoding="utf-8"),
}
_PACKAGES = ("coverage", "pytest")  # Always both, so that the sandbox that waits fits every execution.
_START_S = 30.0
_MAX_TIMEOUTS = 2
"""Two have shown what a module is; each more would cost as much as all runs of other modules."""
_EXPECTED_WAITS = 3
ENDED_ITS_RUNNER = "ended what runs it"
"""The detail of a crash that no honest test has, whatever it is run on."""
_LIMITS = Limits(wall_s=_START_S, cpu_s=120, num_processes=12, output_kib=16 * 1024)
_TRUSTED_IMPORTS = (sys.stdlib_module_names | {"pytest"}) - {"antigravity", "this", "idlelib", "turtle", "tkinter"}


class Pool(Protocol):
    """What of a `SandboxPool` is used."""

    async def run(self, execution: Execution) -> ExecutionResult: ...


@dataclass(frozen=True, slots=True)
class Run:
    """Some tests (by index), one after the other in one process, on one fresh import of a module (by index).

    An optional run is left out once `_MAX_TIMEOUTS` others of its module have timed out.
    """

    module: int
    tests: tuple[int, ...]
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One execution. `modules` are imported as `focal`; every test imports `import_name` from there.

    A test may take `cpu_s` of processor time, and `wall_s` if it waits. `measure` are the lines whose coverage is
    wanted, of the first module. With `watch`, a test that leaves functions, classes or the process changed has crashed.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    import_name: str
    runs: tuple[Run, ...]
    hash_seed: int = 0
    cpu_s: float = 1.0
    wall_s: float = 10.0
    memory_mib: int = 512
    measure: tuple[int, int] | None = None
    watch: bool = False


@dataclass(frozen=True, slots=True)
class TestRun:
    """How one test ended in one run."""

    __test__ = False

    outcome: TestOutcome
    detail: str = ""
    lines: tuple[int, ...] = ()
    missing_lines: tuple[int, ...] = ()
    branches: tuple[tuple[int, int], ...] = ()
    missing_branches: tuple[tuple[int, int], ...] = ()

    @property
    def passed(self) -> bool:
        return self.outcome is TestOutcome.PASSED


RunResult = tuple[TestRun, ...]
"""One per test of the run, in its order."""


async def run_suite(
    pool: Pool,
    module_source: str,
    import_name: str,
    tests: Sequence[CandidateTest],
    hash_seed: int = 0,
    order: Sequence[int] | None = None,
    measure: tuple[int, int] | None = None,
) -> dict[str, TestRun]:
    """Each test by its id, run in a process of its own. Raises SandboxUnavailable if there is no sandbox."""
    runs = tuple(Run(0, (index,)) for index in order or range(len(tests)))
    sources = tuple(test.source for test in tests)
    plan = Plan((module_source,), sources, import_name, runs, hash_seed=hash_seed, measure=measure)
    results = await execute(pool, plan)
    return {tests[run.tests[0]].test_id: result for run, (result,) in zip(runs, results, strict=True)}


async def execute(pool: Pool, plan: Plan) -> tuple[RunResult, ...]:
    """The result of every run.

    A test that ends or stops the runner (which it may: both are one user's processes) takes nothing with it but
    itself: what was not reported is run again, the runs of each test in a sandbox of their own, with more time. What
    is not reported then has crashed.
    Raises SandboxUnavailable if there is no sandbox, or if it breaks without any test's doing.
    """
    if not plan.runs:
        return ()
    results = dict(await _attempt(pool, plan, max_waits=_EXPECTED_WAITS))
    missing: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, run in enumerate(plan.runs):
        if index not in results:
            missing[run.tests].append(index)
    if missing:
        await _check_runner(pool)
    for tests, indices in missing.items():
        part = replace(plan, runs=tuple(plan.runs[index] for index in indices))
        alone = await _attempt(pool, part, max_waits=len(indices))
        results |= {indices[place]: result for place, result in alone.items()}
        crash = TestRun(TestOutcome.CRASHED, ENDED_ITS_RUNNER)
        for index in indices:
            if index not in results:
                results[index] = (crash,) * len(tests)
                crash = TestRun(TestOutcome.NOT_RUN)
    return tuple(results[index] for index in range(len(plan.runs)))


async def _check_runner(pool: Pool) -> None:
    """Raises SandboxUnavailable if the runner does not even come to its end with a test that does nothing."""
    plan = Plan(("nothing = None",), ("def test_nothing():\n    pass",), "nothing", (Run(0, (0,)),))
    if not await _attempt(pool, plan, max_waits=1):
        raise SandboxUnavailable("the runner breaks in the sandbox, whatever it runs")


async def _attempt(pool: Pool, plan: Plan, max_waits: int) -> Mapping[int, RunResult]:
    """What one execution reports, by the index of the run, within the time of so many tests that only wait."""
    result = await pool.run(_execution(plan, max_waits))
    heard: dict[int, list[TestRun]] = defaultdict(list)
    for line in result.report.splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # Cut off.
            break
        if "end" not in record:
            heard[record["run"]].append(_test_run(record))
    return {index: tuple(runs) for index, runs in heard.items() if len(runs) == len(plan.runs[index].tests)}


def _execution(plan: Plan, max_waits: int) -> Execution:
    used = sorted({test for run in plan.runs for test in run.tests})
    contents = {
        **asdict(plan),
        "tests": [source if index in used else "" for index, source in enumerate(plan.tests)],
        "runs": [(run.module, run.tests, run.is_optional) for run in plan.runs],
        "max_timeouts": _MAX_TIMEOUTS,
        "preload": _preload([plan.modules[0], *(plan.tests[index] for index in used)]),
    }
    longest_run = max(len(run.tests) for run in plan.runs)
    wall_s = _START_S + plan.wall_s * longest_run * max_waits
    limits = replace(_LIMITS, wall_s=wall_s, memory_mib=plan.memory_mib)
    files = {**_RUNNER, "plan.json": json.dumps(contents)}
    return Execution(files, _ENTRY, hash_seed=plan.hash_seed, packages=_PACKAGES, limits=limits)


def _preload(sources: Sequence[str]) -> list[str]:
    """Modules of the standard library, and pytest, that the sources import at their top."""
    names: set[str] = set()
    for source in sources:
        tree = parse_quietly(source)
        for node in tree.body if tree else ():
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return sorted(name for name in names if name.split(".")[0] in _TRUSTED_IMPORTS and re.fullmatch(r"[\w.]+", name))


def _test_run(record: Mapping[str, Any]) -> TestRun:
    """A record of the runner, in which what a test could have had a hand in is not trusted."""
    try:
        return TestRun(
            TestOutcome(record["outcome"]),
            str(record.get("detail", ""))[:300].encode(errors="replace").decode(),
            _lines(record, "lines"),
            _lines(record, "missing_lines"),
            _branches(record, "branches"),
            _branches(record, "missing_branches"),
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        return TestRun(TestOutcome.CRASHED, "tampered with its report")


def _lines(record: Mapping[str, Any], name: str) -> tuple[int, ...]:
    return tuple(sorted(int(line) for line in record.get(name, ())))


def _branches(record: Mapping[str, Any], name: str) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((int(start), int(end)) for start, end in record.get(name, ())))
