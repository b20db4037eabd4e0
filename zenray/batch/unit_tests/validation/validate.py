"""Which generated tests are worth keeping: every check of one function's candidates, in the order of `Verdict`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from zenray.batch.job import RowError
from zenray.batch.rows import derive_seed
from zenray.batch.unit_tests.model import (
    Candidates,
    CandidateTest,
    MinedFunction,
    SuiteScores,
    TestOutcome,
    TestScores,
    Verdict,
)
from zenray.batch.unit_tests.validation.assertions import why_no_assertion
from zenray.batch.unit_tests.validation.conflicts import settle_conflicts
from zenray.batch.unit_tests.validation.execution import ENDED_ITS_RUNNER, Plan, Pool, Run, RunResult, TestRun, execute
from zenray.batch.unit_tests.validation.focal_function import FunctionText
from zenray.batch.unit_tests.validation.minimise import minimise
from zenray.batch.unit_tests.validation.mutants import make_mutants
from zenray.batch.unit_tests.validation.settings import ValidationSettings
from zenray.batch.unit_tests.validation.stub import make_stubs

_LIMITS_EXCEEDED = frozenset({TestOutcome.TIMED_OUT, TestOutcome.OUT_OF_MEMORY, TestOutcome.CRASHED})
_NOTICED = _LIMITS_EXCEEDED | {TestOutcome.FAILED, TestOutcome.RAISED}
_TEST_OF_IMPORT = "def test_import():\n    pass\n"
_MUTANT_SLOWDOWN = 2.0
_COVERAGE_SLOWDOWN = 100.0


async def validate(
    function: MinedFunction, candidates: Candidates, pool: Pool, settings: ValidationSettings
) -> SuiteScores:
    """Everything the tests of one function are worth. Raises SandboxUnavailable, and RowError for a
    function that its module does not define; nothing that the code does raises."""
    return await _Validation(function, candidates, pool, settings).run()


@dataclass(slots=True)
class _Case:
    """A candidate and what is known of it so far."""

    test: CandidateTest
    verdict: Verdict | None = None
    detail: str = ""
    passes: int = 0
    fails_on_stub: bool = False
    killed: set[str] = field(default_factory=set)
    coverage: TestRun | None = None
    implementations: list[str] = field(default_factory=list)

    def reject(self, verdict: Verdict, detail: str) -> None:
        self.verdict, self.detail = verdict, detail

    @property
    def achievements(self) -> frozenset[object]:
        branches = self.coverage.branches if self.coverage else ()
        return frozenset([*self.killed, *branches])

    def scores(self) -> TestScores:
        assert self.verdict is not None
        return TestScores(
            self.test.test_id,
            self.verdict,
            self.detail,
            self.passes,
            self.fails_on_stub,
            tuple(sorted(self.killed)),
            self.coverage.branches if self.coverage else (),
            self.coverage.lines if self.coverage else (),
            tuple(self.implementations),
        )


class _Validation:
    """One function on its way through the checks; each leaves fewer open cases to the next."""

    def __init__(
        self, function: MinedFunction, candidates: Candidates, pool: Pool, settings: ValidationSettings
    ) -> None:
        self._function, self._pool, self._settings = function, pool, settings
        self._implementations = candidates.implementations
        self._cases = [_Case(test) for test in candidates.tests]
        text = FunctionText.find(function.module_source, function.call_name)
        if text is None:
            raise RowError(f"{function.call_name} is not defined in its module")
        self._body_lines, self._def_line = text.body_lines, text.node.lineno
        self._mutant_names: tuple[str, ...] = ()

    async def run(self) -> SuiteScores:
        for case in self._cases:
            if reason := why_no_assertion(case.test.source):
                case.reject(Verdict.NO_ASSERTION, reason)
        runs_on_reference = await self._run_first()
        await self._run_again()
        if self._open:
            await asyncio.gather(self._run_changed(), self._measure())
        self._choose()
        return self._scores(runs_on_reference)

    @property
    def _open(self) -> list[_Case]:
        return [case for case in self._cases if case.verdict is None]

    def _plan(self, cases: Sequence[_Case], runs: Iterable[Run]) -> Plan:
        settings = self._settings
        return Plan(
            (self._function.module_source,),
            tuple(case.test.source for case in cases),
            self._function.import_name,
            tuple(runs),
            cpu_s=settings.test_cpu_s,
            wall_s=settings.test_wall_s,
            memory_mib=settings.memory_mib,
            watch=True,
        )

    async def _run_first(self) -> bool:
        """Each test once, alone. Whether the module can be imported."""
        cases = self._open
        plan = self._plan(cases, (Run(0, (index,)) for index in range(len(cases) + 1)))
        results = await execute(self._pool, replace(plan, tests=(*plan.tests, _TEST_OF_IMPORT)))
        for case, (run,) in zip(cases, results, strict=False):
            if run.passed:
                case.passes = 1
            elif run.outcome in _LIMITS_EXCEEDED:
                case.reject(Verdict.LIMIT_EXCEEDED, run.detail)
            else:
                case.reject(Verdict.FAILS_ON_REFERENCE, run.detail)
        return results[-1][0].passed

    async def _run_again(self) -> None:
        """With other hash seeds, each test alone, then all in one process in another order each time."""
        cases = self._open
        if not cases:
            return
        rounds = range(1, self._settings.reference_runs)
        orders = [self._order(len(cases), number) for number in rounds]
        results = await asyncio.gather(*map(partial(self._run_round, cases), rounds, orders))
        failed_together: set[int] = set()
        for number, order, result in zip(rounds, orders, results, strict=True):
            for index, (run,) in zip(order, result, strict=False):
                cases[index].passes += run.passed
                if not run.passed and cases[index].verdict is None:
                    cases[index].reject(Verdict.FLAKY, f"with hash seed {number}: {run.detail or run.outcome.value}")
            if order[1:]:
                failed_together.update(index for index, run in zip(order, result[-1], strict=True) if not run.passed)
        failed = [cases[index] for index in sorted(failed_together) if cases[index].verdict is None]
        if failed:
            await self._settle_conflicts(failed)

    async def _run_round(self, cases: Sequence[_Case], number: int, order: tuple[int, ...]) -> tuple[RunResult, ...]:
        """Each test of `order` alone, then, if there are several, all of them in one process."""
        runs = [Run(0, (index,)) for index in order]
        if len(order) > 1:
            runs.append(Run(0, order))
        return await execute(self._pool, replace(self._plan(cases, runs), hash_seed=number))

    def _order(self, size: int, number: int) -> tuple[int, ...]:
        order = list(range(size))
        random.Random(derive_seed(0, self._function.row_id, "order", number)).shuffle(order)
        return tuple(order)

    async def _settle_conflicts(self, failed: Sequence[_Case]) -> None:
        """Tests that pass alone and not together: pair by pair shows who disturbs whom."""
        cases = self._open
        pairs = [(first, second) for first in range(len(cases)) for second in range(len(cases)) if first != second]
        results = await execute(self._pool, self._plan(cases, (Run(0, pair) for pair in pairs)))
        disturbs = {pair for pair, (_, second) in zip(pairs, results, strict=True) if not second.passed}
        for index, other in settle_conflicts(disturbs):
            verb = "changes what" if (index, other) in disturbs else "depends on what"
            what = "sees" if (index, other) in disturbs else "leaves behind"
            cases[index].reject(Verdict.FLAKY, f"{verb} {cases[other].test.name} {what}")
        explained = {cases[index].test.test_id for pair in disturbs for index in pair}
        for case in failed:
            if case.test.test_id not in explained:
                case.reject(Verdict.FLAKY, "fails after several other tests")

    async def _run_changed(self) -> None:
        """On stubs, on mutants and on other implementations, all in one execution."""
        function, cases = self._function, self._open
        stubs = make_stubs(function.module_source, function.call_name)
        mutants = make_mutants(function.module_source, function.call_name, self._settings.max_mutants)
        implementations = self._implementations
        self._mutant_names = tuple(mutant.mutant_id for mutant in mutants)
        modules = [*stubs, *(each.module_source for each in mutants), *(each.module_source for each in implementations)]
        runs = [
            Run(module, (test,), is_optional=module >= len(stubs))
            for module in range(len(modules))
            for test in range(len(cases))
        ]
        plan = self._plan(cases, runs)
        cpu_s = _MUTANT_SLOWDOWN * self._settings.test_cpu_s
        plan = replace(plan, modules=tuple(modules), cpu_s=cpu_s, watch=False)
        for run, result in (await self._run_worthy(plan)).items():
            case = cases[run.tests[0]]
            if result.detail == ENDED_ITS_RUNNER:
                case.reject(Verdict.LIMIT_EXCEEDED, result.detail)
            if run.module < len(stubs):
                case.fails_on_stub |= result.outcome in _NOTICED
            elif run.module < len(stubs) + len(mutants):
                if result.outcome in _NOTICED:
                    case.killed.add(self._mutant_names[run.module - len(stubs)])
            elif result.passed:
                case.implementations.append(implementations[run.module - len(stubs) - len(mutants)].implementation_id)

    async def _run_worthy(self, plan: Plan) -> dict[Run, TestRun]:
        """The result of every run. Those left out of a module because of tests that pass on the stubs, and so are
        worth nothing, are made up for: else such tests would hide what the others notice."""
        results = {run: result for run, (result,) in zip(plan.runs, await execute(self._pool, plan), strict=True)}
        worthy = {run.tests for run, result in results.items() if not run.is_optional and result.outcome in _NOTICED}
        worthy -= {run.tests for run, result in results.items() if result.detail == ENDED_ITS_RUNNER}
        judged = {
            run.module
            for run, result in results.items()
            if run.tests in worthy and result.outcome is TestOutcome.TIMED_OUT
        }
        left_out = tuple(
            run
            for run, result in results.items()
            if run.tests in worthy and result.outcome is TestOutcome.NOT_RUN and run.module not in judged
        )
        made_up = await execute(self._pool, replace(plan, runs=left_out))
        return results | {run: result for run, (result,) in zip(left_out, made_up, strict=True)}

    async def _measure(self) -> None:
        cases = self._open
        plan = self._plan(cases, (Run(0, (index,)) for index in range(len(cases))))
        cpu_s = _COVERAGE_SLOWDOWN * self._settings.test_cpu_s
        plan = replace(plan, cpu_s=cpu_s, watch=False, measure=self._body_lines)
        for case, (run,) in zip(cases, await execute(self._pool, plan), strict=True):
            if run.passed:
                case.coverage = replace(
                    run, branches=self._inside(run.branches), missing_branches=self._inside(run.missing_branches)
                )

    def _inside(self, branches: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        """Without those of the line of `def`: where the body stands on it too, that it is defined and that it is called
        look like a branch."""
        return tuple(branch for branch in branches if branch[0] != self._def_line)

    def _choose(self) -> None:
        """Verdicts of those that hold: what they are worth beside each other."""
        for case in self._open:
            if not case.fails_on_stub:
                case.reject(Verdict.PASSES_ON_STUB, "passes whatever the function returns")
        cases = {case.test.test_id: case for case in self._open}
        kept = minimise(
            {name: case.achievements for name, case in cases.items()},
            {name: len(case.test.source) for name, case in cases.items()},
        )
        achieved: set[object] = set()
        for name, case in cases.items():
            if name in kept:
                case.verdict = Verdict.KEPT
            elif case.achievements <= achieved:
                case.reject(Verdict.ADDS_NOTHING, "no mutant and no branch that tests before it have not")
            else:
                case.reject(Verdict.REDUNDANT, "the tests that are kept do what it does")
            achieved |= case.achievements

    def _scores(self, runs_on_reference: bool) -> SuiteScores:
        kept = [case for case in self._cases if case.verdict is Verdict.KEPT]
        killed = {mutant for case in kept for mutant in case.killed}
        measured = next((case.coverage for case in self._cases if case.coverage), TestRun(TestOutcome.NOT_RUN))
        runs = [case.coverage for case in kept if case.coverage]
        num_agreeing = sum(
            all(each.implementation_id in case.implementations for case in kept) for each in self._implementations
        )
        return SuiteScores(
            runs_on_reference=runs_on_reference,
            tests=tuple(case.scores() for case in self._cases),
            num_mutants=len(self._mutant_names),
            num_mutants_killed=len(killed),
            surviving_mutants=tuple(name for name in self._mutant_names if name not in killed),
            num_lines=len(measured.lines) + len(measured.missing_lines),
            num_lines_covered=len({line for run in runs for line in run.lines}),
            num_branches=len(measured.branches) + len(measured.missing_branches),
            num_branches_covered=len({branch for run in runs for branch in run.branches}),
            num_implementations=len(self._implementations),
            agreement=num_agreeing / len(self._implementations) if kept and self._implementations else None,
        )
