"""What sharing experts out costs and gives: an MoE in one process, on shards, and the dense model it came from.

    python -m zenray.bench.experts --profile moe --dense qwen2.5-coder-0.5b --doc docs/experts.md

Sides take turns, round by round, on the same prompts; plain decoding. Decode runs at several batch sizes, prefill
reads a batch of cold prompts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from zenray.bench.document import replace_block
from zenray.bench.runs import progress_bar
from zenray.bench.speculative_prompts import speculative_prompts
from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.engine import Engine
from zenray.engine.request import Delta, GenerateRequest, Limits
from zenray.experts.build import expert_status
from zenray.experts.placement import LEADER
from zenray.experts.sharded import ShardedExperts
from zenray.model.build import set_num_threads

PLAIN = ["speculation.drafters=[]", "engine.prefix_cache=false", "engine.max_running_sequences=16"]
PREFILL_TOKENS = 256
"""Of each prompt of a prefill batch."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Time spent on asking shards and waiting for them, beside the leader's own computing; so far, or of a round."""

    dispatch_ms: float = 0.0
    step_ms: float = 0.0
    num_layers: int = 0

    @classmethod
    def of(cls, engine: Engine) -> Dispatch:
        experts = engine.model.decoder.experts
        if not isinstance(experts, ShardedExperts):
            return cls()
        status = experts.status()
        return cls(status.dispatch_ms, status.step_ms, experts.num_dispatches)

    def __sub__(self, other: Dispatch) -> Dispatch:
        return Dispatch(
            self.dispatch_ms - other.dispatch_ms, self.step_ms - other.step_ms, self.num_layers - other.num_layers
        )


@dataclass
class Side:
    """One way to run the model, and what its rounds gave: tokens per second by measure."""

    name: str
    overrides: list[str]
    num_threads: int
    engine: Engine | None = None
    rates: dict[str, list[float]] = field(default_factory=dict)
    dispatches: dict[str, list[Dispatch]] = field(default_factory=dict)


def sides(dense: str, num_cores: int) -> list[Side]:
    each = max(1, num_cores // 2)
    return [
        Side("dense source", [f"model.name={dense}", "experts.num_shards=1"], num_cores),
        Side("MoE, one process", ["experts.num_shards=1"], num_cores),
        Side(f"MoE, two shards, {each} + {each} threads", _two_shards(each), each),
        Side(f"MoE, two shards, {num_cores} + {num_cores} threads", _two_shards(num_cores), num_cores),
    ]


def _two_shards(num_threads: int) -> list[str]:
    return ["experts.num_shards=2", "experts.redundant_experts=0", f"experts.num_threads={num_threads}"]


def measure(
    compared: Sequence[Side], profile: str, overrides: list[str], batches: Sequence[int], rounds: int, max_tokens: int
) -> str:
    """Fills in the sides' rates; says what memory the shards of the last side take."""
    measures = [f"decode, batch {batch}" for batch in batches] + [f"prefill, batch {max(batches)}"]
    with progress_bar() as (bar, task):
        bar.update(task, total=len(compared) + rounds * len(compared) * len(measures))
        try:
            for side in compared:
                bar.update(task, description=f"loading: {side.name}")
                config = load_config(profile, None, [*PLAIN, *overrides, *side.overrides])
                side.engine = build_engine(config)
                set_num_threads(side.num_threads)
                _decode(side, 1, 4, 0)
                bar.advance(task)
            for number in range(rounds):
                for turn in range(len(compared)):
                    side = compared[(number + turn) % len(compared)]
                    set_num_threads(side.num_threads)
                    for name, batch in zip(measures, [*batches, max(batches)], strict=True):
                        bar.update(task, description=f"{name}: {side.name}")
                        assert side.engine is not None
                        before = Dispatch.of(side.engine)
                        is_decode = name.startswith("decode")
                        rate = _decode(side, batch, max_tokens, number) if is_decode else _prefill(side, batch, number)
                        side.rates.setdefault(name, []).append(rate)
                        side.dispatches.setdefault(name, []).append(Dispatch.of(side.engine) - before)
                        bar.advance(task)
            return _memory(compared[-1])
        finally:
            for side in compared:
                if side.engine is not None:
                    side.engine.shutdown()


def _decode(side: Side, batch: int, max_tokens: int, number: int) -> float:
    """Tokens per second from the moment every sequence has its first token."""
    prompts = list(_prompts(side, batch, 64, number))
    waiting = {_add(side, prompt, max_tokens) for prompt in prompts}
    num_tokens, begun_s = 0, 0.0
    assert side.engine is not None
    while side.engine.has_work:
        events = side.engine.step()
        now_s = time.perf_counter()
        if waiting:
            waiting -= {handle for handle, event in events if isinstance(event, Delta)}
            begun_s = now_s
        else:
            num_tokens += sum(len(event.token_ids) for _, event in events if isinstance(event, Delta))
    return num_tokens / (time.perf_counter() - begun_s)


def _prefill(side: Side, batch: int, number: int) -> float:
    """Prompt tokens per second of a batch of cold prompts."""
    prompts = list(_prompts(side, batch, PREFILL_TOKENS, number))
    for prompt in prompts:
        _add(side, prompt, 1)
    begun_s = time.perf_counter()
    assert side.engine is not None
    while side.engine.has_work:
        side.engine.step()
    return sum(map(len, prompts)) / (time.perf_counter() - begun_s)


def _prompts(side: Side, count: int, num_tokens: int, number: int) -> Iterator[tuple[int, ...]]:
    """Real code, other code in every round, all of one length."""
    assert side.engine is not None
    pieces = speculative_prompts(side.engine.model.tokenizer, "edit", count * 4, seed=number)
    text = [token for piece in pieces for token in piece.token_ids]
    stride = max(1, (len(text) - num_tokens) // count)
    for index in range(count):
        yield tuple(text[index * stride : index * stride + num_tokens])


def _add(side: Side, prompt: tuple[int, ...], max_tokens: int) -> int:
    assert side.engine is not None
    return side.engine.add(GenerateRequest("bench", prompt, limits=Limits(max_tokens, ignore_eos=True)))


def as_markdown(compared: Sequence[Side], memory: str) -> str:
    """Rates with their ratio to the dense source and to one process; what dispatch takes; memory."""
    dense, whole = compared[0], compared[1]
    lines = ["| side | measure | tok/s | of dense | of one process | dispatch |", "|---|---|---|---|---|---|"]
    for name in dense.rates:
        for side in compared:
            against = "" if side is dense else _ratio(side, whole, name)
            cells = (side.name, name, _spread(side.rates[name]), _ratio(side, dense, name), against)
            lines.append(f"| {' | '.join(cells)} | {_dispatch(side.dispatches[name])} |")
    explained = (
        "Medians over rounds, in brackets the smallest and the largest; ratios are medians of each round's own. "
        "Dispatch: what a layer spends on asking shards and waiting for them beside the leader's own computing, and "
        "its share of the step."
    )
    return "\n".join([*lines, "", explained, "", memory])


def _dispatch(rounds: Sequence[Dispatch]) -> str:
    layers, step_ms = sum(each.num_layers for each in rounds), sum(each.step_ms for each in rounds)
    if not layers:
        return ""
    dispatch_ms = sum(each.dispatch_ms for each in rounds)
    return f"{dispatch_ms * 1000 / layers:.0f} µs a layer, {dispatch_ms / step_ms:.0%}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f} to {max(values):.1f}]"


def _ratio(side: Side, other: Side, name: str) -> str:
    pairs = zip(side.rates[name], other.rates[name], strict=True)
    return "" if side is other else f"{statistics.median(own / theirs for own, theirs in pairs):.2f}"


def _memory(side: Side) -> str:
    """How much of the expert weights each shard of a side holds."""
    assert side.engine is not None
    experts = side.engine.model.decoder.experts
    status = expert_status(experts)
    assert status is not None
    held = {shard.shard: len(status.placement.held_by(shard.shard)) for shard in status.shards}
    total = len({at for shard in held for at in status.placement.held_by(shard)})
    shares = ", ".join(f"shard {shard} {count / total:.2f}" for shard, count in held.items())
    resident = ", ".join(
        f"shard {shard.shard} {shard.report.weight_bytes / 2**20:.0f} MiB of expert weights in "
        f"{shard.report.rss_bytes / 2**20:.0f} MiB resident"
        for shard in status.shards
        # The leader is this process, which holds every other side too.
        if shard.report is not None and shard.shard != LEADER
    )
    return f"Of the expert weights: {shares}; {resident}."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.experts", description=__doc__)
    parser.add_argument("--profile", default="moe")
    parser.add_argument("--dense", default="qwen2.5-coder-0.5b", help="the model the MoE was made from")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--doc", type=Path, help="a document with the block to write the table into")
    parser.add_argument("--block", default="shards")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    compared = sides(given.dense, len(os.sched_getaffinity(0)))
    memory = measure(compared, given.profile, given.overrides, given.batches, given.rounds, given.max_tokens)
    table = as_markdown(compared, memory)
    print(table)
    if given.doc is not None:
        written = replace_block(given.doc.read_text(encoding="utf-8"), given.block, table)
        given.doc.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
