"""What a run in the sandbox costs: executions a second, and how long one takes with its sandbox ready or not.

    python -m zenray.bench.sandbox_throughput --count 200 [--doc docs/batch.md]

Prints a table. Every execution has a sandbox of its own, and every one must end well.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from zenray.batch.sandbox import Execution, SandboxPool, SandboxUnavailable
from zenray.bench.document import replace_block

_FOCAL = "def clamp(x, low, high):\n    return max(low, min(x, high))\n"
_TEST = "from focal import clamp\n\ndef test_clamp():\n    assert clamp(5, 0, 3) == 3 and clamp(-1, 0, 3) == 0\n"
_PAUSE_S = 0.1  # Long enough for the next sandbox to be ready.


@dataclass(frozen=True, slots=True)
class Program:
    """Something to run, and how often for a whole measurement of one."""

    name: str
    entry: str
    packages: tuple[str, ...] = ()

    def execution(self, hash_seed: int = 0) -> Execution:
        files = {"focal.py": _FOCAL, "test_focal.py": _TEST, "run.py": self.entry}
        return Execution(files, "run.py", hash_seed, packages=self.packages)


PROGRAMS = (
    Program("nothing", "pass"),
    Program("one test", "from test_focal import test_clamp\ntest_clamp()"),
    Program(
        "one test under coverage.py",
        "import coverage\ncov = coverage.Coverage(data_file=None, branch=True, config_file=False)\ncov.start()\n"
        "from test_focal import test_clamp\ntest_clamp()\ncov.stop()",
        ("coverage",),
    ),
    Program("one test under pytest", "import pytest\nraise SystemExit(pytest.main(['-q']))", ("pytest",)),
)


def run(pool: SandboxPool, execution: Execution) -> float:
    """Seconds from the order to the result."""
    start_s = time.perf_counter()
    result = pool.run_blocking(execution)
    took_s = time.perf_counter() - start_s
    assert result.exited_cleanly, result
    return took_s


def latency_ms(count: int, run_one: Callable[[int], float]) -> float:
    """The median of `count`, with pauses in between."""
    times = []
    for number in range(count):
        time.sleep(_PAUSE_S)
        times.append(run_one(number))
    return statistics.median(times) * 1000


async def busy(pool: SandboxPool, program: Program, count: int, num_seeds: int) -> tuple[float, float]:
    """Executions a second with all workers busy, and milliseconds of processor time for each, ours included."""
    start_s, start_cpu_s = time.perf_counter(), _cpu_s()
    results = await asyncio.gather(*(pool.run(program.execution(number % num_seeds)) for number in range(count)))
    took_s, cpu_s = time.perf_counter() - start_s, _cpu_s() - start_cpu_s
    assert all(result.exited_cleanly for result in results)
    return count / took_s, cpu_s / count * 1000


def _cpu_s() -> float:
    """Of this process and all that it has waited for: a sandbox is buried with all that was in it."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(count: int, num_workers: int) -> Iterator[list[str]]:
    """A row per program."""
    with SandboxPool(num_workers) as many, SandboxPool(1) as one:
        for program in PROGRAMS:
            for pool in (many, one):  # Copies packages and reads files for the first time.
                run(pool, program.execution())

            def run_ready(_: int, program: Program = program) -> float:
                return run(one, program.execution())

            def run_other_seed(number: int, program: Program = program) -> float:
                return run(one, program.execution(number + 1))

            def run_cold(number: int, program: Program = program) -> float:
                odd = replace(one.limits, scratch_mib=one.limits.scratch_mib + number % 2)  # Like none that waits.
                return run(one, replace(program.execution(), limits=odd))

            alone = [latency_ms(max(5, count // 10), kind) for kind in (run_ready, run_other_seed, run_cold)]
            same, cpu_ms = asyncio.run(busy(many, program, count, num_seeds=1))
            mixed, _ = asyncio.run(busy(many, program, count, num_seeds=5))
            possible = 1000 * len(os.sched_getaffinity(0)) / cpu_ms
            yield [program.name, *(f"{number:.0f}" for number in (*alone, cpu_ms, possible, same, mixed))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.sandbox_throughput", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="executions per rate")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--doc", type=Path, help="write the table into its block of this document")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    head = [
        "program", "ready, ms", "ready but for the seed, ms", "cold, ms",
        "processor time, ms", "cores allow, per s", "one seed, per s", "five seeds, per s",
    ]  # fmt: skip
    lines: list[str] = []
    try:
        for row in chain((head, ["---", *["---:"] * (len(head) - 1)]), measure(arguments.count, arguments.workers)):
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    except SandboxUnavailable as reason:
        sys.exit(str(reason))
    lines += ["", f"{os.cpu_count()} cores, {arguments.workers} workers, load before the run {load:.1f}."]
    print("\n".join(lines[-2:]))
    if arguments.doc is not None:
        written = replace_block(arguments.doc.read_text(encoding="utf-8"), "sandbox", "\n".join(lines))
        arguments.doc.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
