"""From a command's options to a finished report: load, measure with progress, print, write, draw."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.bench.bandwidth import measure_bandwidth
from zenray.bench.engine_bench import EnginePlan, StepBytes, measure_engine
from zenray.bench.load import Bounds, closed_loop, open_loop
from zenray.bench.machine import CpuClock
from zenray.bench.prompts import KINDS, PromptKind, PromptSet, PromptSizes, build_prompts, read_jsonl
from zenray.bench.report import make_report, write_report
from zenray.bench.statistics import summarise
from zenray.bench.targets import Call, Target, remote_target
from zenray.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from zenray.config import ZenrayConfig
    from zenray.context.budget import PromptLimits
    from zenray.engine.engine import Engine

_FILE_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, which have no width of their own."""

LINE_TOKENS = 128
"""Room left in the context for the appended line, the variant's first line and control tokens."""


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """One row of the report per target, kind of prompt, and concurrency or rate."""

    kinds: tuple[PromptKind, ...]
    concurrencies: tuple[int, ...]
    rates: tuple[float, ...]
    max_requests: int
    max_seconds: float
    max_tokens: int
    cold: bool
    seed: int


def run_engine_bench(
    profile: str,
    file: Path | None,
    overrides: Sequence[str],
    model: str,
    formats: Sequence[str],
    plan: EnginePlan,
    prompt_file: Path | None,
    json_out: Path | None,
    plot_out: Path | None,
) -> None:
    """`zenray bench engine`: one engine per weight format, one after the other."""
    from zenray.build import build_engine
    from zenray.config_load import load_config

    check_outputs(json_out, plot_out)
    base = [*overrides, *([f"model.name={model}"] if model else [])]
    configs = [
        load_config(profile, file, [*base, *([f"model.weight_format={name}"] if name else [])])
        for name in (formats or [""])
    ]
    results: list[dict[str, Any]] = []
    before, start_s = CpuClock.read(), time.monotonic()
    with progress_bar() as (bar, task):
        bar.update(task, total=len(configs) * (plan.num_steps + 1) + 1, description="memory bandwidth")
        bandwidth = measure_bandwidth(configs[0].model.num_threads or len(os.sched_getaffinity(0)))
        bar.advance(task)
        for config in configs:
            config = plainly(with_room(config, max(plan.batches)))
            label = f"{model_label(config)} {config.model.weight_format}"
            bar.update(task, description=f"{label}: loading")
            engine = build_engine(config)
            prompts = prompts_of_engine(prompt_file, engine, plan.max_tokens)
            bar.advance(task)

            def advance(what: str, label: str = label) -> None:
                bar.update(task, advance=1, description=f"{label}: {what}")

            labels = {"model": model_label(config), "format": config.model.weight_format}
            results += asyncio.run(_measure_engine(config, engine, prompts, plan, labels, advance))
    report = make_report(
        "engine",
        results,
        prompts=prompts.identity,
        settings={**asdict(plan), "configs": [shown_config(config) for config in configs]},
        bandwidth=bandwidth,
        foreign_cpu_share=before.foreign_share(CpuClock.read(), time.monotonic() - start_s),
    )
    deliver(report, json_out, plot_out)


async def _measure_engine(
    config: ZenrayConfig,
    engine: Engine,
    prompts: PromptSet,
    plan: EnginePlan,
    labels: dict[str, Any],
    advance: Callable[[str], None],
) -> list[dict[str, Any]]:
    async with opened(engine_target(config, engine)) as target:
        return await measure_engine(target, prompts, plan, StepBytes.of(engine.model), labels, advance)


def run_serving_bench(
    specs: Sequence[str],
    model: str,
    plan: ServingPlan,
    prompt_file: Path | None,
    json_out: Path | None,
    plot_out: Path | None,
) -> None:
    """`zenray bench serving`: every target under every load, targets taking turns."""
    check_outputs(json_out, plot_out)
    targets = [remote_target(spec, model) for spec in specs]
    prompts = read_jsonl(prompt_file) if prompt_file else build_prompts()
    for kind in plan.kinds:
        if not prompts.of(kind):
            raise ConfigError(f"--kind {kind}: the prompt file has none; allowed: a list of {','.join(KINDS)}")
    loads = [(count, 0.0) for count in plan.concurrencies] + [(0, rate) for rate in plan.rates]
    num_rows = len(targets) * len(plan.kinds) * len(loads)
    with progress_bar() as (bar, task):
        bar.update(task, total=num_rows * plan.max_requests)
        results = asyncio.run(_measure_serving(targets, prompts, plan, loads, bar, task))
    report = make_report(
        "serving",
        results,
        prompts=prompts.identity,
        settings=asdict(plan),
        bandwidth=None,
        foreign_cpu_share=None,  # the server under test is another process too
    )
    deliver(report, json_out, plot_out)


async def _measure_serving(
    targets: list[Target],
    prompts: PromptSet,
    plan: ServingPlan,
    loads: list[tuple[int, float]],
    bar: Progress,
    task: TaskID,
) -> list[dict[str, Any]]:
    rows = []
    # Equally many digits, so that equally many tokens; each sent once, also where two targets are one server.
    variants = itertools.count(1_000_000)

    def calls(kind: PromptKind, count: int) -> list[Call]:
        chosen = itertools.islice(itertools.cycle(prompts.of(kind)), count)
        return [Call(each.variant(next(variants)) if plan.cold else each, plan.max_tokens) for each in chosen]

    for kind, (concurrency, rate) in itertools.product(plan.kinds, loads):
        for target in targets:
            load = f"{rate:g}/s" if rate else f"{concurrency} at once"
            bar.update(task, description=f"{target.name}: {kind}, {load}")
            bounds = Bounds(plan.max_requests, plan.max_seconds)
            done = 0

            def on_record(_: object) -> None:
                nonlocal done
                done += 1
                bar.advance(task)

            async with opened(target):
                await closed_loop(target, calls(kind, 1), 1, Bounds(1, plan.max_seconds))  # warms the connection up
                mine = calls(kind, plan.max_requests)
                if rate:
                    records = await open_loop(target, mine, rate, plan.seed, bounds, on_record)
                else:
                    records = await closed_loop(target, mine, concurrency, bounds, on_record)
            bar.advance(task, plan.max_requests - done)
            row = {"measure": "serving", "target": target.name, "prompts": kind, "concurrency": concurrency or None}
            rows.append({**row, "rate_per_s": rate or None, **summarise(records).as_dict()})
    return rows


def engine_target(config: ZenrayConfig, engine: Engine) -> Target:
    """The engine as a target, prompts within the configuration's limits."""
    from zenray.bench.targets.engine_door import EngineTarget

    return EngineTarget(engine, prompt_limits(config, engine))


def prompt_limits(config: ZenrayConfig, engine: Engine) -> PromptLimits:
    """Of a prompt for the engine, as the configuration says."""
    from zenray.context.budget import PromptLimits
    from zenray.model.catalog import trained_order

    return PromptLimits.of(config.context, engine.max_sequence_tokens, trained_order(config.model.name))


@asynccontextmanager
async def opened(target: Target) -> AsyncIterator[Target]:
    """`async with opened(target)`: opens it, and closes it whatever happens."""
    await target.open()
    try:
        yield target
    finally:
        await target.close()


def prompts_for_model(model: str) -> PromptSet:
    """The benchmark's prompts, exact for a catalog model's tokenizer; estimated for no model."""
    if not model:
        return build_prompts()
    from zenray.model.catalog import Catalog
    from zenray.model.load import PRESET_PREFIX, load_tokenizer

    tokenizer = load_tokenizer(model if model.startswith(PRESET_PREFIX) else Catalog.load().resolve(model))
    return build_prompts(lambda text: len(tokenizer.encode(text)))


def check_outputs(json_out: Path | None, plot_out: Path | None, markdown_out: Path | None = None) -> None:
    """Raises ConfigError for what could not be written, before minutes of measuring rather than after."""
    for option, path in (("--json", json_out), ("--plot", plot_out), ("--markdown", markdown_out)):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no folder {path.parent}")
    if plot_out is not None and importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'zenray[bench]'")


def deliver(report: dict[str, Any], json_out: Path | None, plot_out: Path | None) -> None:
    """Prints the report, and writes what was asked for."""
    from rich.console import Console

    from zenray.bench.tables import show

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=_FILE_WIDTH)
    for part in show(report):
        console.print(part)
    if json_out is not None:
        write_report(report, json_out)
    if plot_out is not None:
        from zenray.bench.plot import plot_report

        plot_report(report, plot_out)


def prompts_of_engine(prompt_file: Path | None, engine: Engine, max_tokens: int) -> PromptSet:
    """The prompts of a file, or the benchmark's own, exact to a token and within the engine's context."""
    if prompt_file is not None:
        return read_jsonl(prompt_file)
    tokenizer = engine.model.tokenizer
    sizes = PromptSizes().within(engine.max_sequence_tokens - max_tokens - LINE_TOKENS)
    return build_prompts(lambda text: len(tokenizer.encode(text)), sizes=sizes)


def model_label(config: ZenrayConfig) -> str:
    """The model's name, or its file's without the way there: a report may be published."""
    return file_label(config.model.name)


def file_label(name: str) -> str:
    return Path(name).name.removesuffix(".gguf") if "/" in name else name


def shown_config(config: ZenrayConfig) -> dict[str, Any]:
    """The configuration as a report shows it."""
    values = config.model_dump(mode="json")
    values["model"]["name"] = model_label(config)
    if config.draft.model is not None:
        values["draft"]["model"] = file_label(config.draft.model)
    return values


def with_room(config: ZenrayConfig, batch: int) -> ZenrayConfig:
    """The configuration with places for `batch` sequences at once."""
    places = max(config.engine.max_running_sequences, batch)
    return config.model_copy(update={"engine": config.engine.model_copy(update={"max_running_sequences": places})})


def plainly(config: ZenrayConfig) -> ZenrayConfig:
    """The configuration without drafters: what a step costs, not what speculation makes of it."""
    return config.model_copy(update={"speculation": config.speculation.model_copy(update={"drafters": ()})})


@contextmanager
def progress_bar() -> Iterator[tuple[Progress, TaskID]]:
    """A bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar, bar.add_task("starting", total=None)
