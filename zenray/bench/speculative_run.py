"""`zenray bench speculative`: from options to a finished report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.bench.bandwidth import measure_bandwidth
from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, merge_rows
from zenray.bench.runs import check_outputs, deliver, file_label, model_label, progress_bar, shown_config
from zenray.bench.speculative import Gamma, Side, measure_speculation, num_turns
from zenray.bench.speculative_prompts import SpeculativeKind, SpeculativePrompt, speculative_prompts
from zenray.bench.speculative_report import ROW_KEYS, speculative_rows
from zenray.bench.speculative_tables import speculative_markdown
from zenray.engine.request import Sampling
from zenray.errors import ConfigError

if TYPE_CHECKING:
    from zenray.config import ZenrayConfig
    from zenray.engine.engine import Engine
    from zenray.engine.speculation import Speculator
    from zenray.model.load import LoadedModel

_SEED = 7
"""Of a sampled run: the same noise for every side."""


@dataclass(frozen=True, slots=True)
class SpeculativePlan:
    """Every drafter set with every gamma, on `num_prompts` prompts of each kind."""

    kinds: tuple[SpeculativeKind, ...]
    drafter_sets: tuple[tuple[str, ...], ...]
    gammas: tuple[Gamma, ...]
    num_prompts: int
    repeats: int
    max_tokens: int
    """Most tokens of an answer; 0 leaves what its kind needs."""
    temperature: float
    seed: int

    @property
    def sides(self) -> list[Side]:
        return [
            Side(drafters, gamma, starts_cold=drafters in WORST_CASES)
            for drafters in self.drafter_sets
            for gamma in self.gammas
        ]


LOCAL_DRAFTERS = ("draft_model", "suffix", "recycling")
"""Those a bench of one engine can hold; the pool is measured with a server."""
WRONG, WRONG_MODEL = "wrong", "wrong_model"
"""Sides of their own that are never right, for nothing or at the draft model's cost: the worst case. It has nothing
to learn from but the prompt that is timed."""
WORST_CASES = ((WRONG,), (WRONG_MODEL,))


def parse_drafter_sets(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The sets that words such as `suffix+recycling` or `all` name; none are left for the configuration to say.

    Raises ConfigError for an unknown drafter.
    """
    sets = [LOCAL_DRAFTERS if word == "all" else tuple(word.split("+")) for word in words]
    for drafters in sets:
        if drafters not in WORST_CASES and not set(drafters) <= set(LOCAL_DRAFTERS):
            allowed = f"all, any of {', '.join(LOCAL_DRAFTERS)} joined by +, {WRONG} and {WRONG_MODEL}"
            raise ConfigError(f"--drafters names {'+'.join(drafters)!r}; allowed: {allowed}")
    return tuple(dict.fromkeys(sets))


def default_drafter_sets(has_draft_model: bool) -> tuple[tuple[str, ...], ...]:
    """Each drafter alone, those without a model together, and all."""
    without = (("recycling",), ("suffix",), ("suffix", "recycling"))
    return (*without, ("draft_model",), LOCAL_DRAFTERS) if has_draft_model else without


def parse_gammas(words: Sequence[str]) -> tuple[Gamma, ...]:
    """`auto` or numbers. Raises ConfigError for anything else."""
    if not words or not all(word == "auto" or (word.isdecimal() and 1 <= int(word) <= 64) for word in words):
        raise ConfigError(f"--gamma is {','.join(words)!r}; allowed: a list of auto and numbers from 1 to 64")
    return tuple(dict.fromkeys("auto" if word == "auto" else int(word) for word in words))


def run_speculative_bench(
    profile: str,
    file: Path | None,
    overrides: Sequence[str],
    plan: SpeculativePlan,
    keep: bool,
    json_out: Path | None,
    plot_out: Path | None,
    markdown_out: Path | None,
) -> None:
    """Loads the verifier and the draft model once; every side drafts for the same engine.

    With `keep`, the rows of an earlier report at `json_out` that are not measured again stay: a long measurement
    can be made in pieces. Raises ConfigError for a side that needs a draft model when none is configured.
    """
    from zenray.config_load import load_config
    from zenray.engine.engine import Engine
    from zenray.model.build import build_model, set_num_threads
    from zenray.speculative.step_cost import load_or_measure

    check_outputs(json_out, plot_out, markdown_out)
    config = load_config(profile, file, overrides)
    plan = replace(plan, drafter_sets=plan.drafter_sets or default_drafter_sets(config.draft.model is not None))
    if config.draft.model is None and any(
        {"draft_model", WRONG_MODEL} & set(drafters) for drafters in plan.drafter_sets
    ):
        raise ConfigError("--drafters names the draft model, and no draft model is configured: give --draft-model")
    before, start_s = CpuClock.read(), time.monotonic()
    with progress_bar() as (bar, task):
        total = 3 + len(plan.kinds) * num_turns(plan.num_prompts, plan.repeats)
        bar.update(task, total=total, description="memory bandwidth")
        bandwidth = measure_bandwidth(config.model.num_threads or len(os.sched_getaffinity(0)))
        bar.update(task, advance=1, description=f"{model_label(config)}: loading")
        set_num_threads(config.model.num_threads)
        model = build_model(config.model)
        engine = Engine(model, config.engine, config.model.context_length)
        bar.update(task, advance=1, description="step costs")
        step_ms = load_or_measure(model).step_ms(1)
        make_speculator = speculator_maker(config, model)
        bar.advance(task)

        def advance(what: str) -> None:
            bar.update(task, advance=1, description=what)

        labels = {
            "model": model_label(config),
            "format": config.model.weight_format,
            "draft_model": draft_label(config),
            "temperature": plan.temperature,
        }
        sampling = Sampling(temperature=plan.temperature, seed=_SEED)
        rows: list[dict[str, Any]] = []
        prompts: list[SpeculativePrompt] = []
        for kind in plan.kinds:
            chosen = _prompts(engine, kind, plan)
            prompts += chosen[1:]
            measured = measure_speculation(engine, plan.sides, chosen, make_speculator, plan.repeats, sampling, advance)
            rows += speculative_rows(measured, step_ms, labels)
    if keep and json_out is not None and json_out.exists():
        rows = merge_rows(json.loads(json_out.read_text(encoding="utf-8"))["results"], rows, ROW_KEYS)
    report = make_report(
        "speculative",
        rows,
        prompts=_identity(prompts),
        settings={**asdict(plan), "config": shown_config(config)},
        bandwidth=bandwidth,
        foreign_cpu_share=before.foreign_share(CpuClock.read(), time.monotonic() - start_s),
    )
    deliver(report, json_out, plot_out)
    if markdown_out is not None:
        markdown_out.write_text(speculative_markdown(report) + "\n", encoding="utf-8")


def speculator_maker(config: ZenrayConfig, verifier: LoadedModel) -> Callable[[Side], Speculator]:
    """Speculators for sides over one verifier and one draft model, each with drafters and estimates of its own."""
    from zenray.bench.wrong_drafter import WrongDrafter
    from zenray.speculative.build import build_drafters, build_policy
    from zenray.speculative.draft_model import load_draft_model
    from zenray.speculative.speculator import DraftingSpeculator

    draft = None if config.draft.model is None else load_draft_model(config)

    def make(side: Side) -> Speculator:
        real = tuple("draft_model" if name == WRONG_MODEL else name for name in side.drafters if name != WRONG)
        values = config.speculation.model_dump() | {"drafters": real, "gamma": side.gamma}
        own = config.model_copy(update={"speculation": type(config.speculation).model_validate(values)})
        drafters = build_drafters(own, verifier, draft)
        if side.drafters == (WRONG_MODEL,):
            drafters = [WrongDrafter(spending) for spending in drafters]
        elif side.drafters == (WRONG,):
            drafters = [WrongDrafter()]
        return DraftingSpeculator(drafters, build_policy(own, verifier))

    return make


def draft_label(config: ZenrayConfig) -> str:
    """The draft model's name and format, and what its head is trimmed to; empty for none."""
    draft = config.draft
    if draft.model is None:
        return ""
    head = f", head of {draft.head_tokens}" if draft.head_tokens else ""
    return f"{file_label(draft.model)} {draft.weight_format}{head}"


def _prompts(engine: Engine, kind: SpeculativeKind, plan: SpeculativePlan) -> list[SpeculativePrompt]:
    """One prompt more than are measured, the first to warm up with; all within the engine's context."""
    found = speculative_prompts(engine.model.tokenizer, kind, plan.num_prompts + 1, plan.seed)
    longest = engine.max_sequence_tokens
    shortened = []
    for prompt in found:
        max_tokens = min(prompt.max_tokens, plan.max_tokens or prompt.max_tokens)
        shortened.append(replace(prompt, token_ids=prompt.token_ids[-(longest - max_tokens) :], max_tokens=max_tokens))
    return shortened


def _identity(prompts: Sequence[SpeculativePrompt]) -> dict[str, Any]:
    """What `PromptSet.identity` says of other benchmarks' prompts."""
    text = json.dumps([asdict(prompt) for prompt in prompts])
    return {
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "python": platform.python_version(),
        "count": len(prompts),
    }
