"""What a job costs the editors, and what the editors cost a job, on one running platform.

    python -m zenray.bench.coserving [--job unit-tests] [--json REPORT] [--plot PNG] [--doc docs/batch.md]

Four spans of time on one platform: editors alone, a job alone, both, and the job alone again. An editor types a real
file on, a line at a time: its prompts share all but their end, as keystrokes do, and it pauses between them. The job
works through the generator that every job uses, with as many requests as that sees fit. `unit-tests` asks for tests of
library functions, and runs code in sandboxes for as much of the time as validating such tests takes; `teacher-logits`
has windows of library code scored.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from zenray.batch.client.generator import VerifierGenerator, connected
from zenray.batch.client.settings import ClientSettings
from zenray.batch.sandbox.model import Execution
from zenray.batch.sandbox.pool import SandboxPool
from zenray.bench.coserving_report import JobTokens, Span, coserving_row, plot_coserving
from zenray.bench.document import write_blocks
from zenray.bench.load import observe
from zenray.bench.machine import CpuClock
from zenray.bench.prompts import Prompt, PromptSet, PromptSizes, build_prompts
from zenray.bench.report import make_report, write_report
from zenray.bench.statistics import RequestRecord
from zenray.bench.targets import Call
from zenray.bench.targets.grpc_door import GrpcTarget
from zenray.config import ZenrayConfig
from zenray.config_load import load_config
from zenray.engine.request import Limits, Sampling
from zenray.engine.scoring import Scoring

NUM_EDITORS = 2
PAUSE_S = 8.0
EDITOR_TOKENS, JOB_TOKENS = 16, 160
_JOB_CHOICES = 4
_WINDOW_TOKENS = 2048
_WARM_UP_S = 20.0
_GRACE_S = 60.0
"""After which an editor's request is given up."""
_SANDBOX_PROGRAM = "import os, time\nos.nice(5)  # As a worker of a job.\nwhile time.process_time() < 0.3: pass"
_SANDBOX_PERIOD_S = 1.0
"""A function's answers take five seconds or so of generating here, and a second or so of a core to validate."""
_JOB_AT_ONCE = 64
"""Requests offered to the generator, which sends on only what fills the engines."""


def keystrokes(prompt: Prompt) -> list[Call]:
    """The requests of one editor: the text up to each line of the last third, which the document is then longer by."""
    lines = prompt.text.splitlines(keepends=True)
    first = len(lines) * 2 // 3
    texts = ("".join(lines[:end]) for end in range(first, len(lines)))
    return [Call(Prompt("fim", prompt.name, text, suffix=""), EDITOR_TOKENS) for text in texts]


async def editor(target: GrpcTarget, calls: Sequence[Call], seed: int, until_s: float) -> list[RequestRecord]:
    """One request at a time, with pauses of `PAUSE_S` on average, until a moment of the loop's clock."""
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    records: list[RequestRecord] = []
    for call in itertools.cycle(calls):
        due_s = loop.time() + chance.expovariate(1 / PAUSE_S)
        if due_s >= until_s:
            return records
        await asyncio.sleep(due_s - loop.time())
        records.append(await observe(target, call, due_s, due_s + _GRACE_S))
    return records


async def unit_tests(generator: VerifierGenerator, pool: SandboxPool, prompts: PromptSet) -> None:
    """Asks for tests of real functions, `_JOB_AT_ONCE` requests at once, and runs code, until cancelled."""
    numbers = itertools.count()
    texts = [prompt.text for prompt in prompts.of("prefill")]
    longest = generator.model.context_length - JOB_TOKENS

    async def client() -> None:
        while True:
            number = next(numbers)
            text = f"{texts[number % len(texts)]}\n\n# Test {number} of the code above\ndef test_"
            sampling = Sampling(temperature=0.8, seed=number, n=_JOB_CHOICES)
            limits = Limits(max_tokens=JOB_TOKENS, ignore_eos=True)
            await generator.generate(generator.tokenizer.encode(text)[-longest:], sampling, limits)

    async def validate() -> None:
        while True:
            await asyncio.gather(
                pool.run(Execution({"busy.py": _SANDBOX_PROGRAM}, "busy.py")), asyncio.sleep(_SANDBOX_PERIOD_S)
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(validate())
        for _ in range(_JOB_AT_ONCE):
            group.create_task(client())


async def teacher_logits(generator: VerifierGenerator, pool: SandboxPool, prompts: PromptSet) -> None:
    """Has windows of real code scored, `_JOB_AT_ONCE` requests at once, until cancelled."""
    token_ids = [token for prompt in prompts.of("prefill") for token in generator.tokenizer.encode(prompt.text)]
    numbers = itertools.count()

    async def client() -> None:
        while True:
            number = next(numbers)
            start = number * _WINDOW_TOKENS % max(1, len(token_ids) - _WINDOW_TOKENS)
            # Its number first, so that no window is found in the prefix cache.
            named = generator.tokenizer.encode(f"# {number}\n") + token_ids[start : start + _WINDOW_TOKENS]
            await generator.score(named, Scoring(), seed=number)

    async with asyncio.TaskGroup() as group:
        for _ in range(_JOB_AT_ONCE):
            group.create_task(client())


JOBS = {"unit-tests": unit_tests, "teacher-logits": teacher_logits}


async def measure(
    config: ZenrayConfig, job: str, address: str, pool: SandboxPool, seconds: float, say: Console
) -> tuple[dict[str, object], str]:
    """The row of a report, and the digest of the prompts. `seconds` is the length of each span."""
    from zenray.serving.directory import watch
    from zenray.serving.verifier_service import SERVICE_NAME

    prompts = build_prompts(per_kind=NUM_EDITORS + 8, sizes=PromptSizes(long=config.context.max_prompt_tokens * 3 // 4))
    calls = [keystrokes(prompt) for prompt in prompts.of("long")[:NUM_EDITORS]]
    loop, tokens = asyncio.get_running_loop(), list[JobTokens]()
    records: list[RequestRecord] = []
    spans: list[Span] = []
    target = GrpcTarget(address)
    await target.open()

    async def span(name: str, length_s: float, *, has_editors: bool, has_job: bool) -> None:
        say.print(f"{length_s:4.0f} s  {name or 'the job begins'}")
        begin_s = loop.time()
        if has_editors:
            typing = (editor(target, calls[n], len(spans) * 100 + n, begin_s + length_s) for n in range(NUM_EDITORS))
            for done in await asyncio.gather(*typing):
                records.extend(done)
        await asyncio.sleep(begin_s + length_s - loop.time())
        spans.append(Span(name, begin_s, loop.time(), has_editors, has_job))

    try:
        await span("warm-up", _WARM_UP_S, has_editors=True, has_job=False)
        spans.clear()
        records.clear()
        await span("editors alone", seconds, has_editors=True, has_job=False)
        hear = lambda count: tokens.append(JobTokens(loop.time(), count))  # noqa: E731
        async with connected(partial(watch, SERVICE_NAME), ClientSettings(), hear) as generator:
            working = asyncio.create_task(JOBS[job](generator, pool, prompts))
            await span("", _WARM_UP_S, has_editors=False, has_job=False)
            await span("job alone", seconds / 2, has_editors=False, has_job=True)
            await span("both", seconds, has_editors=True, has_job=True)
            await span("job alone", seconds / 2, has_editors=False, has_job=True)
            if working.done():
                working.result()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    finally:
        await target.close()
    return coserving_row(spans, tokens, sorted(records, key=lambda record: record.due_s)), prompts.sha256


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m zenray.bench.coserving", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--job", choices=JOBS, default="unit-tests")
    parser.add_argument("--profile", default="local")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="laid over the profile")
    parser.add_argument("--seconds", type=float, default=180.0, help="length of each span (default: 180)")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--plot", type=Path, help="draw the report as this PNG")
    parser.add_argument("--doc", type=Path, help="write the table into its block of this document")
    arguments = parser.parse_args()

    from zenray.serving import app

    say = Console(stderr=True, highlight=False)
    config = load_config(arguments.profile, None, ["server.grpc_port=0", "server.http_port=0", *arguments.set])
    starting = partial(app.start, config, lambda what: say.print(f"starting: {what}"))
    with SandboxPool(num_workers=1) as pool, starting() as platform:
        clock, begun_s = CpuClock.read(), time.monotonic()
        row, digest = asyncio.run(
            measure(platform.config, arguments.job, platform.grpc_address, pool, arguments.seconds, say)
        )
        foreign = clock.foreign_share(CpuClock.read(), time.monotonic() - begun_s)
    load = {
        "editors": NUM_EDITORS,
        "pause_s": PAUSE_S,
        "job": arguments.job,
        "job_tokens": JOB_TOKENS if arguments.job == "unit-tests" else _WINDOW_TOKENS,
        "seconds": arguments.seconds,
    }
    report = make_report(
        "coserving",
        [row],
        prompts={"sha256": digest},
        settings={"config": config.model_dump(mode="json"), "load": load},
        bandwidth=None,
        foreign_cpu_share=foreign,
    )
    if arguments.json is not None:
        write_report(report, arguments.json)
    if arguments.plot is not None:
        plot_coserving(report, arguments.plot)
    if arguments.doc is not None:
        write_blocks(arguments.doc, report)
    print(json.dumps({key: value for key, value in row.items() if not isinstance(value, list)}, indent=2))


if __name__ == "__main__":
    main()
