"""From the timed runs of a speculative benchmark to the rows of its report. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from zenray.api.totals import total_drafter_usage
from zenray.bench.speculative import PLAIN, Reference, Run, SpeculativeMeasurement
from zenray.bench.statistics import Distribution, median
from zenray.speculative.gamma import accepted_share_speedup

NEVER_BELOW = 0.95
"""Of plain decoding, on any prompt: what a drafter that is no use may cost."""

MIN_TOKENS = 16
"""Answers with fewer tokens to time say more of the clock than of the decoding; they are left out of rates."""
ROW_KEYS = ("model", "format", "draft_model", "temperature", "kind", "drafters", "gamma")
"""What tells rows of a report apart."""


def speculative_rows(
    measurement: SpeculativeMeasurement, step_ms: Callable[[int], float], labels: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row per kind of prompt and side, plain decoding first. `step_ms` is the measured cost of a step by its
    rows, which the gamma policy plans with."""
    rows = []
    sides = dict.fromkeys(run.side for run in measurement.runs)
    for kind in dict.fromkeys(run.prompt.kind for run in measurement.runs):
        own = [run for run in measurement.runs if run.prompt.kind == kind]
        plain = _plain_rates(own)
        for side in sides:
            runs = [run for run in own if run.side == side]
            shown = {"drafters": list(side.drafters), "gamma": side.gamma if side.drafters else None}
            differing = _differing(runs, measurement.references)
            rows.append({"measure": "speculative", **labels, "kind": kind, **shown, **_speed(runs, plain),
                         **_rounds(runs, step_ms), **differing})  # fmt: skip
    return rows


def _plain_rates(runs: Iterable[Run]) -> dict[tuple[str, int], float]:
    """Plain decoding's tokens per second by prompt and repeat: the mean of the runs around the sides."""
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for run in runs:
        if run.side == PLAIN and run.num_tokens >= MIN_TOKENS and run.tokens_per_s:
            rates[run.prompt.name, run.repeat].append(run.tokens_per_s)
    return {key: math.fsum(found) / len(found) for key, found in rates.items()}


def _speed(runs: Sequence[Run], plain: dict[tuple[str, int], float]) -> dict[str, Any]:
    """Rates, and the speed-up of each prompt (median of its repeats) over plain decoding around the same turn."""
    timed = [run for run in runs if run.num_tokens >= MIN_TOKENS and (run.prompt.name, run.repeat) in plain]
    ratios: dict[str, list[float]] = defaultdict(list)
    for run in timed:
        if run.tokens_per_s:
            ratios[run.prompt.name].append(run.tokens_per_s / plain[run.prompt.name, run.repeat])
    speedups = {name: median(found) for name, found in ratios.items()}
    worst = min(speedups, key=lambda name: speedups[name], default=None)
    return {
        "tokens_per_s": asdict(Distribution.of(run.tokens_per_s for run in timed)),
        "speedup": asdict(Distribution.of(speedups.values())),
        "worst_prompt": worst,
        "num_below": sum(value < NEVER_BELOW for value in speedups.values()),
        "num_too_short": len({run.prompt.name for run in runs}) - len(speedups),
    }


def _rounds(runs: Sequence[Run], step_ms: Callable[[int], float]) -> dict[str, Any]:
    """What the drafters did, where the milliseconds of a round went, and what two models make of it.

    `predicted_speedup` is the policy's: the tokens of each round in the measured time of drafting them plus the
    start-up measurement of a step of that size. `model_speedup` is the paper's, S = (gamma + 1) / (1 + gamma
    (1 - beta)), at the mean draft length and accepted share.
    """
    usages = [run.usage for run in runs]
    drafters = total_drafter_usage(drafter for usage in usages for drafter in usage.drafters)
    num_rounds = sum(usage.rounds for usage in usages)
    drafted = sum(drafter.drafted_tokens for drafter in drafters)
    accepted = sum(drafter.accepted_tokens for drafter in drafters)
    rounds = [times for run in runs for times in run.rounds]
    mean_gamma = sum(times.num_draft for times in rounds) / len(rounds) if rounds else None
    predicted_ms = math.fsum(step_ms(1 + times.num_draft) + times.draft_ms for times in rounds)
    predicted = sum(times.num_committed for times in rounds) * step_ms(1) / predicted_ms if rounds else None
    beta = accepted / drafted if drafted else None
    return {
        "rounds": num_rounds,
        "tokens_per_round": sum(usage.completion_tokens for usage in usages) / num_rounds if num_rounds else None,
        "drafted_tokens": drafted,
        "accepted_tokens": accepted,
        "acceptance": beta,
        "mean_gamma": mean_gamma,
        "by_drafter": [asdict(drafter) for drafter in drafters],
        "predicted_speedup": predicted,
        "model_speedup": None if mean_gamma is None else accepted_share_speedup(mean_gamma, beta or 0.0),
        "round_ms": {
            name: asdict(Distribution.of(getattr(times, f"{name}_ms") for times in rounds))
            for name in ("draft", "verify", "learn")
        },
    }


def _differing(runs: Sequence[Run], references: dict[Any, Reference]) -> dict[str, Any]:
    """Prompts whose tokens are not those of plain decoding, with the margin at the first difference: how far
    the plain token was ahead of the next best one there, in units of log p. Rounding parts near-ties only."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        reference = references[run.prompt]
        if run.token_ids == reference.token_ids or run.prompt.name in found:
            continue
        at = first_difference(run.token_ids, reference.token_ids)
        margin = reference.margins[at] if at < len(reference.margins) else None
        found[run.prompt.name] = {"prompt": run.prompt.name, "at": at, "margin": margin}
    return {"num_prompts": len({run.prompt.name for run in runs}), "differing": list(found.values())}


def first_difference(left: Sequence[int], right: Sequence[int]) -> int:
    """The first place where two token sequences part."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))
