"""What one engine does, in this process: decode at several batch sizes, cold prefill, a repeated long prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zenray.bench.load import Bounds, closed_loop, observe
from zenray.bench.prompts import PromptSet
from zenray.bench.statistics import Distribution, RequestRecord, summarise
from zenray.bench.targets import Call, Target
from zenray.errors import ZenrayError

if TYPE_CHECKING:
    from zenray.model.load import LoadedModel

MEASURES = ("decode", "prefill", "repeat")
_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What to measure, and how often; medians over the rounds are reported."""

    batches: tuple[int, ...] = (1, 8)
    measures: tuple[str, ...] = MEASURES
    max_tokens: int = 64
    rounds: int = 5

    @property
    def num_steps(self) -> int:
        """Calls of `advance` a run makes."""
        per_round = len(self.batches) * ("decode" in self.measures) + len({"prefill", "repeat"} & set(self.measures))
        return self.rounds * per_round


@dataclass(frozen=True, slots=True)
class StepBytes:
    """What one decode step reads: every weight once, and each sequence's keys and values."""

    weights: int
    kv_per_token: int

    @classmethod
    def of(cls, model: LoadedModel) -> StepBytes:
        config, decoder = model.config, model.decoder
        per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * decoder.dtype.itemsize
        return cls(decoder.weight_bytes_per_token, per_token)

    def gb_per_s(self, steps_per_s: float, context_tokens: float) -> float:
        """Achieved read rate at so many steps a second over `context_tokens` of all sequences together."""
        return steps_per_s * (self.weights + self.kv_per_token * context_tokens) / 1e9


async def measure_engine(
    target: Target,
    prompts: PromptSet,
    plan: EnginePlan,
    step_bytes: StepBytes,
    labels: dict[str, Any],
    advance: Callable[[str], None] = lambda what: None,
) -> list[dict[str, Any]]:
    """Rows of the report, each carrying `labels`. The target is open and idle. `advance` is called
    before every round with what comes next.

    Raises ZenrayError when a stream fails: a benchmark of a broken engine is no benchmark.
    """
    short = prompts.of("short")
    await _observe(target, Call(short[0].variant(-1), plan.max_tokens))  # first touches of weights and kernels
    rows: list[dict[str, Any]] = []
    if "decode" in plan.measures:
        for batch in plan.batches:
            row = await _decode(target, prompts, plan, batch, step_bytes, advance)
            rows.append({**labels, "measure": "decode", "batch": batch, **row})
    if "prefill" in plan.measures:
        rows.append({**labels, "measure": "prefill", **await _prefill(target, prompts, plan, advance)})
    if "repeat" in plan.measures:
        rows.append({**labels, "measure": "repeat", **await _repeat(target, prompts, plan, advance)})
    return rows


async def _decode(
    target: Target,
    prompts: PromptSet,
    plan: EnginePlan,
    batch: int,
    step_bytes: StepBytes,
    advance: Callable[[str], None],
) -> dict[str, Any]:
    short = prompts.of("short")
    summaries = []
    for number in range(plan.rounds):
        advance(f"decode, batch {batch}")
        # Other prompts each round, of which no prefix cache can know anything.
        calls = [
            Call(short[(number * batch + index) % len(short)].variant(number * batch + index), plan.max_tokens)
            for index in range(batch)
        ]
        records = await closed_loop(target, calls, batch, Bounds(batch, _TIMEOUT_S))
        _refuse_failures(records)
        summaries.append((summarise(records), records))
    rates = Distribution.of(summary.steady_tokens_per_s for summary, _ in summaries)
    records = [record for _, group in summaries for record in group]
    together = summarise(records)
    context = sum((record.prompt_tokens or 0) + record.num_tokens / 2 for record in records) / plan.rounds
    return {
        "tokens_per_s": asdict(rates),
        "gb_per_s": step_bytes.gb_per_s(rates.p50 / batch, context) if rates.p50 else None,
        "weight_bytes_per_step": step_bytes.weights,
        "kv_bytes_per_step": round(step_bytes.kv_per_token * context),
        **{name: asdict(getattr(together, name)) for name in ("ttft_ms", "itl_ms", "tpot_ms", "tfcl_ms")},
    }


async def _prefill(
    target: Target, prompts: PromptSet, plan: EnginePlan, advance: Callable[[str], None]
) -> dict[str, Any]:
    """Cold prompts of about 512 tokens, one token each."""
    records = []
    for number in range(plan.rounds):
        advance("prefill")
        candidates = prompts.of("prefill")
        records.append(await _observe(target, Call(candidates[number % len(candidates)].variant(number), 1)))
    rates = [(record.prompt_tokens or 0) * 1e3 / record.ttft_ms for record in records if record.ttft_ms]
    return {
        "prompt_tokens": asdict(Distribution.of(record.prompt_tokens for record in records)),
        "tokens_per_s": asdict(Distribution.of(rates)),
        "ttft_ms": asdict(Distribution.of(record.ttft_ms for record in records)),
    }


async def _repeat(
    target: Target, prompts: PromptSet, plan: EnginePlan, advance: Callable[[str], None]
) -> dict[str, Any]:
    """A long prompt cold, then the same with one line appended."""
    cold, warm = [], []
    pairs = list(prompts.pairs())
    for number in range(plan.rounds):
        advance("repeat")
        long, appended = pairs[number % len(pairs)]
        cold.append(await _observe(target, Call(long.variant(number), 1)))
        warm.append(await _observe(target, Call(appended.variant(number), 1)))
    ratios = [second.ttft_ms / first.ttft_ms for first, second in zip(cold, warm, strict=True)
              if first.ttft_ms and second.ttft_ms]  # fmt: skip
    return {
        "prompt_tokens": asdict(Distribution.of(record.prompt_tokens for record in warm)),
        "cached_tokens": asdict(Distribution.of(record.cached_tokens for record in warm)),
        "cold_ttft_ms": asdict(Distribution.of(record.ttft_ms for record in cold)),
        "warm_ttft_ms": asdict(Distribution.of(record.ttft_ms for record in warm)),
        "warm_over_cold": asdict(Distribution.of(ratios)),
    }


async def _observe(target: Target, call: Call) -> RequestRecord:
    now_s = asyncio.get_running_loop().time()
    record = await observe(target, call, now_s, now_s + _TIMEOUT_S)
    _refuse_failures([record])
    return record


def _refuse_failures(records: Sequence[RequestRecord]) -> None:
    for record in records:
        if record.error:
            raise ZenrayError(f"{record.name} failed: {record.error}")
