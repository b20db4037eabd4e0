"""Where the time of one decode step goes: every part of the engine timed from outside, one step at a time.

Parts are wrapped for the run only; each is charged its own time without its children's, so the rows add
up to the step. A part this file does not know stays in the row of whatever calls it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.bench.prompts import Prompt
from zenray.bench.statistics import median

if TYPE_CHECKING:
    from zenray.config import ZenrayConfig
    from zenray.engine.engine import Engine

_WARM_STEPS = 4


@dataclass(slots=True)
class Stopwatch:
    """Exclusive seconds and calls per label, of nested timed calls on one thread."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    clock: Callable[[], float] = time.perf_counter
    _children_s: list[float] = field(default_factory=list)

    def timed(self, label: str | Callable[..., str], call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, charged to `label` (or to what `label` makes of its arguments)."""

        def run(*arguments: Any, **keywords: Any) -> Any:
            name = label if isinstance(label, str) else label(*arguments, **keywords)
            self._children_s.append(0.0)
            start_s = self.clock()
            try:
                return call(*arguments, **keywords)
            finally:
                took_s = self.clock() - start_s
                self.seconds[name] += took_s - self._children_s.pop()
                self.calls[name] += 1
                if self._children_s:
                    self._children_s[-1] += took_s

        return run

    def reset(self) -> None:
        self.seconds.clear()
        self.calls.clear()


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Parts of a decode step as (part, milliseconds, calls), largest first.

    `delivery_ms` is what a stream's reader waits beyond the step: waking the event loop and handing the
    events over.
    """

    batch: int
    step_ms: float
    parts: tuple[tuple[str, float, int], ...]
    delivery_ms: float | None


def profile_steps(engine: Engine, prompts: Sequence[Prompt], num_steps: int) -> StepProfile:
    """Decodes one sequence per prompt together and times `num_steps` steps of it. The engine is idle before
    and after."""
    watch = Stopwatch()
    steps: list[tuple[float, dict[str, float], dict[str, int]]] = []
    with instrumented(engine, watch):
        handles = [engine.add(request) for request in _requests(engine, prompts, num_steps + 2 * _WARM_STEPS)]
        engine.step()
        while engine.scheduler.waiting or not all(sequence.is_decoding for sequence in engine.scheduler.running):
            engine.step()
        for _ in range(_WARM_STEPS + num_steps):
            watch.reset()
            start_s = time.perf_counter()
            engine.step()
            steps.append(((time.perf_counter() - start_s) * 1e3, dict(watch.seconds), dict(watch.calls)))
    del steps[:_WARM_STEPS]
    # Medians, because one step that the operating system interrupts would colour a mean.
    parts = {
        part: (median(seconds[part] for _, seconds, _ in steps) * 1e3, calls) for part, calls in steps[-1][2].items()
    }
    rows = tuple((part, ms, calls) for part, (ms, calls) in sorted(parts.items(), key=lambda item: -item[1][0]))
    for handle in handles:
        engine.cancel(handle)
    while engine.has_work:
        engine.step()
    return StepProfile(len(prompts), median(ms for ms, _, _ in steps), rows, None)


@contextmanager
def instrumented(engine: Engine, watch: Stopwatch) -> Iterator[None]:
    """Times the parts of `engine` while entered."""
    with ExitStack() as stack:
        for owner, name, label in _parts(engine):
            if hasattr(owner, name):
                stack.enter_context(_replaced(owner, name, watch.timed(label, getattr(owner, name))))
        yield


def _parts(engine: Engine) -> Iterator[tuple[Any, str, str | Callable[..., str]]]:
    from zenray.engine import output
    from zenray.ops.backend import Backend

    decoder, ops = engine.model.decoder, engine.model.decoder.ops
    yield engine, "step", "engine: loop"
    yield engine, "_take_inbox", "scheduler: inbox, deadlines"
    yield engine.scheduler, "plan", "scheduler: plan"
    yield engine.runner, "run", "batch: hand over"
    yield engine.runner, "_lay_out", "batch: build"
    yield decoder, "states", "model: between kernels"
    roles = _weight_roles(decoder)
    for name in (name for name in dir(Backend) if not name.startswith("_")):
        label: str | Callable[..., str] = f"kernel: {name.rstrip('_')}"
        if name == "linear":
            label = lambda x_TD, weight, *_: f"kernel: linear {roles.get(id(weight), 'other')}"  # noqa: E731
        yield ops, name, label
    yield engine, "_commit", "commit: choose, append"
    yield output.OutputText, "append", "commit: text, stop rules"
    yield output.OutputText, "take", "commit: text, stop rules"


def _weight_roles(decoder: Any) -> dict[int, str]:
    roles = {id(decoder.weights.head): "head"}
    for layer in decoder.weights.layers:
        roles |= {id(layer.qkv): "qkv", id(layer.out): "out"}
        experts = getattr(layer.feed_forward, "experts", None) or (layer.feed_forward,)
        for expert in experts:
            roles |= {id(expert.gate_up): "gate_up", id(expert.down): "down"}
    return roles


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


def _requests(engine: Engine, prompts: Sequence[Prompt], max_tokens: int) -> Iterator[Any]:
    from zenray.engine.request import GenerateRequest, Limits

    for number, prompt in enumerate(prompts):
        ids = tuple(engine.model.tokenizer.encode(prompt.text))
        yield GenerateRequest(f"profile-{number}", ids, limits=Limits(max_tokens=max_tokens, ignore_eos=True))


async def _streamed_step_ms(config: ZenrayConfig, engine: Engine, prompts: Sequence[Prompt], num_steps: int) -> float:
    """Milliseconds per token as the readers of the streams see them, all decoding together."""
    from zenray.bench.load import Bounds, closed_loop
    from zenray.bench.runs import engine_target, opened
    from zenray.bench.statistics import steady_decode_rate
    from zenray.bench.targets import Call

    calls = [Call(prompt, num_steps) for prompt in prompts]
    async with opened(engine_target(config, engine)) as target:
        records = await closed_loop(target, calls, len(calls), Bounds(len(calls)))
    rate = steady_decode_rate(records)
    assert rate is not None, "the streams decode together"
    return len(calls) * 1e3 / rate


def run_step_profile(
    profile: str, file: Path | None, overrides: Sequence[str], batches: Sequence[int], num_steps: int
) -> None:
    """`zenray bench profile`: loads the profile's model and prints a table per batch size."""
    from rich.console import Console

    from zenray.bench.runs import plainly, prompts_of_engine, with_room
    from zenray.build import build_engine
    from zenray.config_load import load_config

    config = plainly(with_room(load_config(profile, file, list(overrides)), max(batches)))
    engine = build_engine(config)
    short = prompts_of_engine(None, engine, num_steps + 3 * _WARM_STEPS).of("short")
    console = Console(highlight=False, emoji=False)
    for batch in batches:
        prompts = [short[number % len(short)].variant(number) for number in range(batch)]
        measured = profile_steps(engine, prompts, num_steps)
        streamed_ms = asyncio.run(_streamed_step_ms(config, engine, prompts, num_steps))
        measured = replace(measured, delivery_ms=streamed_ms - measured.step_ms)
        console.print(profile_table(measured, f"{config.model.name} {config.model.weight_format}"))


def profile_table(profile: StepProfile, title: str) -> Any:
    """A rich table of one profile."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{title}, batch {profile.batch}: {profile.step_ms:.2f} ms a step",
        title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    table.add_column("part")
    for column in ("calls", "ms", "share"):
        table.add_column(column, justify="right")
    total = sum(ms for _, ms, _ in profile.parts)
    for part, ms, calls in profile.parts:
        table.add_row(part, str(calls), f"{ms:.3f}", f"{ms / total:.1%}")
    if profile.delivery_ms is not None:
        table.add_row("event delivery (beyond the step)", "", f"{profile.delivery_ms:.3f}", "")
    return table
