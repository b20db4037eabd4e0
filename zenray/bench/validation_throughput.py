"""How fast generated tests are validated: functions, sandboxes and runs of tests a second.

    python -m zenray.bench.validation_throughput --functions 40

Every function has six tests, which all pass, twenty mutants and two re-implementations: the dear case, since tests that
fail at once cost little. Prints a table, with the processor time that one function takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage

from zenray.batch.sandbox import Execution, ExecutionResult, SandboxPool, SandboxUnavailable
from zenray.batch.unit_tests.model import (
    Candidates,
    CandidateTest,
    Implementation,
    MinedFunction,
    Provenance,
    SuiteScores,
)
from zenray.batch.unit_tests.validation.settings import ValidationSettings
from zenray.batch.unit_tests.validation.validate import validate

_MODULE = '''\
import re


def parse_size(text, base=1024):
    """Bytes of `12`, `3 kB` or `1.5 MiB`."""
    match = re.fullmatch(r"\\s*(\\d+(?:\\.\\d+)?)\\s*([kMG]?)(i?B)?\\s*", text)
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    number, unit, suffix = match.groups()
    if suffix == "B" and unit:
        base = 1000
    power = 0
    for letter in "kMG":
        power += 1
        if letter == unit:
            break
    else:
        power = 0
    size = float(number) * base**power
    if size != int(size) and power == 0:
        raise ValueError("half a byte")
    return int(size)
'''
_TESTS = (
    "assert parse_size('12') == 12",
    "assert parse_size('3 kB') == 3000",
    "assert parse_size('1.5 MiB') == 1572864",
    "assert parse_size(' 2G ') == 2 * 1024**3",
    "with pytest.raises(ValueError):\n        parse_size('1.5')",
    "with pytest.raises(ValueError, match='not a size'):\n        parse_size('many')",
)


def _function() -> MinedFunction:
    return MinedFunction(
        "row", "parse_size", "parse_size", "parse_size", "", "", "", _MODULE, (), "", Provenance("", "", "", 1, 1)
    )


def _candidates() -> Candidates:
    tests = tuple(
        CandidateTest(f"t{index}", "test_parse_size", f"import pytest\n\n\ndef test_parse_size():\n    {body}\n")
        for index, body in enumerate(_TESTS)
    )
    implementations = (
        Implementation("i0", _MODULE.replace("base**power", "pow(base, power)")),
        Implementation("i1", _MODULE.replace("base = 1000", "pass")),
    )
    return Candidates(tests, implementations, (), 0, ())


@dataclass(slots=True)
class _Counting:
    """A pool that counts what it is given."""

    pool: SandboxPool
    num_sandboxes: int = 0
    num_runs: int = field(default=0)

    async def run(self, execution: Execution) -> ExecutionResult:
        self.num_sandboxes += 1
        self.num_runs += len(json.loads(execution.files["plan.json"])["runs"])
        return await self.pool.run(execution)


async def _validate_all(pool: _Counting, num_functions: int, at_once: int) -> list[SuiteScores]:
    room = asyncio.Semaphore(at_once)

    async def one() -> SuiteScores:
        async with room:
            return await validate(_function(), _candidates(), pool, ValidationSettings())

    return list(await asyncio.gather(*(one() for _ in range(num_functions))))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", type=int, default=40)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="Sandboxes at a time.")
    options = parser.parse_args(arguments)
    try:
        with SandboxPool(options.workers) as sandboxes:
            pool = _Counting(sandboxes)
            start_s, start_cpu_s = time.perf_counter(), _cpu_s()
            scores = asyncio.run(_validate_all(pool, options.functions, 2 * options.workers))
            took_s = time.perf_counter() - start_s
    except SandboxUnavailable as error:
        sys.exit(str(error))
    cpu_s = _cpu_s() - start_cpu_s  # Of the sandboxes too, now that they are gone.
    assert len(set(map(str, scores))) == 1, "equal functions have equal scores"
    print(f"{options.workers} workers, {options.functions} functions of {scores[0].num_mutants} mutants\n")
    print("| functions/s | sandboxes/s | runs of tests/s | processor time, s a function |")
    print("|---|---|---|---|")
    figures = (options.functions / took_s, pool.num_sandboxes / took_s, pool.num_runs / took_s)
    print(f"| {figures[0]:.2f} | {figures[1]:.1f} | {figures[2]:.0f} | {cpu_s / options.functions:.2f} |")


def _cpu_s() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


if __name__ == "__main__":
    main()
