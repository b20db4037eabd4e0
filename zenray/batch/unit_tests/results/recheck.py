"""Are the tests of an output what its record says? Looked at again, by other means than those that made it.

    python -m zenray.batch.unit_tests.results.recheck OUT [--sample 20] [--workers 2]

Every kept test runs under plain pytest in a fresh process, from the tree as it lies on the disk. For a sample of the
functions mutation score and coverage are measured again: each mutant is written to disk and pytest runs on it, and
`coverage run --branch -m pytest` reports lines and branches. All of it runs in the sandbox. Exit status 1 means that
something differs, or that no test was kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zenray.batch.output.layout import RUNS
from zenray.batch.output.read import read_job, read_shards
from zenray.batch.sandbox.pool import SandboxPool
from zenray.batch.unit_tests.results.recheck_run import Measured, run_coverage, run_pytest, survives
from zenray.batch.unit_tests.results.record import kept_tests
from zenray.batch.unit_tests.results.tree import function_files, function_folder
from zenray.batch.unit_tests.validation.execution import Pool
from zenray.batch.unit_tests.validation.focal_function import FunctionText
from zenray.batch.unit_tests.validation.mutants import make_mutants
from zenray.batch.unit_tests.validation.suite_source import join_tests

_FOCAL, _TESTS = "focal.py", "test_focal"
_FUNCTIONS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Rechecked:
    """One function: how its tests ran, and for those of the sample the record's figures beside the new ones."""

    name: str
    num_tests: int
    num_passed: int
    sampled: bool
    figures: tuple[Figure, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """`recorded` and `found` of `whole`, such as mutants killed of all there are."""

    name: str
    recorded: int
    found: int
    whole: int


async def recheck(
    output: Path, pool: Pool, sample: int, tick: Callable[[int], None] = lambda num_done: None
) -> list[Rechecked]:
    """All functions with kept tests, in the order of the output, one shard in memory at a time. The first `sample` of
    them are measured again: they are ordered by their ids, so that they are as good as drawn by lot. `tick` hears how
    many are done."""
    max_mutants = read_job(output)["parameters"]["validation"]["max_mutants"]
    places = asyncio.Semaphore(_FUNCTIONS_AT_ONCE)
    results: list[Rechecked] = []

    async def one(index: int, record: Mapping[str, Any]) -> Rechecked:
        async with places:
            return await _recheck_function(output, record, pool, max_mutants if index < sample else None)

    for table in read_shards(output):
        records = [record for record in table.to_pylist() if kept_tests(record)]
        results += await asyncio.gather(*(one(len(results) + place, record) for place, record in enumerate(records)))
        tick(len(results))
    return results


async def _recheck_function(output: Path, record: Mapping[str, Any], pool: Pool, max_mutants: int | None) -> Rechecked:
    tree = output / "tests"
    folder = function_folder(record)
    names = [f"{folder}/{name}" for name in function_files(record)]
    files = {name: (tree / name).read_text(encoding="utf-8") for name in ("pytest.ini", *names)}
    run = await run_pytest(pool, files)
    num_tests = len(kept_tests(record))
    problems = [*run.failed, *([run.problem] if run.problem else [])]
    if run.num_passed != num_tests and not problems:
        problems.append(f"{run.num_passed} of {num_tests} tests passed, exit status {run.status}")
    figures: list[Figure] = []
    if max_mutants is not None:
        mutation, coverage = await asyncio.gather(_mutation(record, pool, max_mutants), _coverage(record, pool))
        figures = [*mutation, *coverage[0]]
        problems += coverage[1]
        problems += [
            f"{figure.name}: recorded {figure.recorded}, found {figure.found} of {figure.whole}"
            for figure in figures
            if figure.recorded != figure.found
        ]
    return Rechecked(
        record["qualified_name"], num_tests, run.num_passed, max_mutants is not None, tuple(figures), tuple(problems)
    )


async def _mutation(record: Mapping[str, Any], pool: Pool, max_mutants: int) -> list[Figure]:
    """Mutants killed. A mutant is killed when pytest does not pass on it, for whatever reason."""
    mutants = make_mutants(record["module_source"], record["call_name"], max_mutants)
    tests, num_tests = _test_files(record), len(kept_tests(record))
    runs = await asyncio.gather(
        *(survives(pool, {_FOCAL: mutant.module_source, **tests}, num_tests) for mutant in mutants)
    )
    survivors = {mutant.mutant_id for mutant, passed in zip(mutants, runs, strict=True) if passed}
    recorded = set(record["surviving_mutants"])
    return [
        Figure("mutants", record["num_mutants"], len(mutants), len(mutants)),
        Figure("mutants killed", record["num_mutants_killed"], len(mutants) - len(survivors), len(mutants)),
        Figure("survivors in common", len(recorded), len(recorded & survivors), len(recorded)),
    ]


async def _coverage(record: Mapping[str, Any], pool: Pool) -> tuple[list[Figure], list[str]]:
    """Lines and branches of the function that its tests reach. What runs while the module is imported is nobody's
    merit and left out on both sides."""
    source = record["module_source"]
    function = FunctionText.find(source, record["call_name"])
    assert function is not None, "its mutants were made"
    files = {_FOCAL: source, **_test_files(record)}
    importing = {_FOCAL: source, f"{_TESTS}.py": "import focal\n\n\ndef test_nothing():\n    pass\n"}
    measured, imported = await asyncio.gather(run_coverage(pool, files, _FOCAL), run_coverage(pool, importing, _FOCAL))
    if isinstance(measured, str) or isinstance(imported, str):
        return [], [f"coverage: {each}" for each in (measured, imported) if isinstance(each, str)]
    first, last = function.body_lines
    kept = [test for test in record["tests"] if test["kept"]]
    lines = {line for test in kept for line in test["covered_lines"]}
    branches = {(arc["from_line"], arc["to_line"]) for test in kept for arc in test["covered_branches"]}
    found = _within(measured, first, last)
    inert = _within(imported, first, last)
    if lines - inert.lines != found.lines - inert.lines or branches - inert.branches != found.branches - inert.branches:
        return _coverage_figures(record, found), ["coverage: other lines or branches than the record names"]
    return _coverage_figures(record, found), []


def _coverage_figures(record: Mapping[str, Any], found: Measured) -> list[Figure]:
    num_lines, num_branches = len(found.lines | found.missing_lines), len(found.branches | found.missing_branches)
    return [
        Figure("lines", record["num_lines"], num_lines, num_lines),
        Figure("lines covered", record["num_lines_covered"], len(found.lines), num_lines),
        Figure("branches", record["num_branches"], num_branches, num_branches),
        Figure("branches covered", record["num_branches_covered"], len(found.branches), num_branches),
    ]


def _within(measured: Measured, first: int, last: int) -> Measured:
    """Of the function alone; a branch belongs to where it begins."""
    return Measured(
        frozenset(line for line in measured.lines if first <= line <= last),
        frozenset(line for line in measured.missing_lines if first <= line <= last),
        frozenset(arc for arc in measured.branches if first <= arc[0] <= last),
        frozenset(arc for arc in measured.missing_branches if first <= arc[0] <= last),
    )


def _test_files(record: Mapping[str, Any]) -> dict[str, str]:
    modules = join_tests(kept_tests(record), "focal", record["import_name"])
    return {f"{_TESTS}{place or ''}.py": text for place, text in enumerate(modules)}


def summary(results: Sequence[Rechecked]) -> dict[str, Any]:
    """The figures of a recheck, for scripts."""
    sampled = [each for each in results if each.sampled]
    return {
        "functions": len(results),
        "tests": sum(each.num_tests for each in results),
        "tests_passed": sum(each.num_passed for each in results),
        "sampled": len(sampled),
        "sampled_agreeing": sum(not each.problems for each in sampled),
        "figures": [
            {
                "name": name,
                "recorded": sum(figure.recorded for figure in figures),
                "found": sum(figure.found for figure in figures),
            }
            for name, figures in _by_name(sampled).items()
        ],
        "problems": [f"{each.name}: {problem}" for each in results for problem in each.problems],
    }


def _by_name(results: Sequence[Rechecked]) -> dict[str, list[Figure]]:
    names: dict[str, list[Figure]] = {}
    for each in results:
        for figure in each.figures:
            names.setdefault(figure.name, []).append(figure)
    return names


def print_results(results: Sequence[Rechecked], console: Console) -> None:
    """How the tests ran, the sample's figures, and what differs."""
    told = summary(results)
    if not results:
        console.print("nothing to run again: the output has no kept test")
        return
    console.print(
        f"{told['tests_passed']} of {told['tests']} kept tests of {told['functions']} functions pass under plain "
        f"pytest; {told['sampled_agreeing']} of {told['sampled']} functions measured again agree"
    )
    table = Table("measured again", "recorded", "found")
    for figure in told["figures"]:
        table.add_row(figure["name"], str(figure["recorded"]), str(figure["found"]))
    if told["figures"]:
        console.print(table)
    for problem in told["problems"]:
        console.print(problem, style="red", markup=False)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--sample", type=int, default=20, help="functions to measure again")
    parser.add_argument("--workers", type=int, default=None, help="sandboxes at once; one per core if not given")
    options = parser.parse_args(arguments)
    console = Console()
    with SandboxPool(options.workers) as pool, console.status("looking at the tests again") as status:

        def tick(num_done: int) -> None:
            status.update(f"looking at the tests again: {num_done} functions done")

        results = asyncio.run(recheck(options.output, pool, options.sample, tick))
    print_results(results, console)
    told = summary(results)
    runs = options.output / RUNS
    runs.mkdir(exist_ok=True)
    (runs / "recheck.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    return 1 if told["problems"] or not results else 0


if __name__ == "__main__":
    sys.exit(main())
