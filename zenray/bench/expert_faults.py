"""Kills and stops expert shards under load, again and again: how long streams pause, and that no token changes.

    python -m zenray.bench.expert_faults --profile moe --faults 20 --doc docs/experts.md

Shards are child processes. Streams of one undisturbed run are the truth; the same requests run again while shards are
killed (SIGKILL) or stopped (SIGSTOP) at random moments, each once the last one is replaced, without redundant copies
(somebody else reads the lost experts) and with a copy of every expert.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import statistics
import threading
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
from zenray.engine.request import Delta, Failed, Final, GenerateRequest, Limits, Sampling
from zenray.experts.build import expert_status
from zenray.experts.placement import LEADER
from zenray.experts.status import ExpertStatus

NUM_STREAMS = 16
_MOST_STEPS_BETWEEN_FAULTS = 40
_FAULTS = {"SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}


@dataclass
class Outcome:
    """One way of keeping copies, and what its faults did."""

    name: str
    overrides: list[str]
    pauses_ms: dict[str, list[float]] = field(default_factory=dict)
    """By kind of fault: the longest time between two steps that committed tokens, while the fault lasted."""
    replaced_s: list[float] = field(default_factory=list)
    """From the fault until the new shard holds its experts."""
    num_streams: int = 0
    num_failed: int = 0
    num_different: int = 0
    usual_step_ms: float = 0.0


def outcomes() -> list[Outcome]:
    return [
        Outcome("lost experts are read again", ["experts.redundant_experts=0"]),
        # More than there are: as many as there can be.
        Outcome("a copy of every expert", ["experts.redundant_experts=1024"]),
    ]


class Load:
    """Sixteen streams at any time, over and over the same requests: half greedy, half sampled."""

    def __init__(self, engine: Engine, max_tokens: int) -> None:
        prompts = speculative_prompts(engine.model.tokenizer, "fresh", NUM_STREAMS)
        self._engine = engine
        self._requests = [
            GenerateRequest(
                prompt.name,
                prompt.token_ids,
                sampling=Sampling(temperature=0.8 * (number % 2), seed=number),
                limits=Limits(max_tokens, ignore_eos=True),
            )
            for number, prompt in enumerate(prompts)
        ]
        self._streams: dict[int, tuple[int, list[int]]] = {}
        self.truth: dict[int, list[int]] = {}
        self.num_ended = self.num_failed = self.num_different = 0

    def run_undisturbed(self) -> None:
        """Every request once: the truth."""
        self.start_all()
        while self._engine.has_work:
            self.step()
        self.num_ended = 0

    def start_all(self) -> None:
        for number in range(len(self._requests)):
            self._start(number)

    def step(self, *, refill: bool = False) -> bool:
        """One step of the engine; whether it committed tokens."""
        committed = False
        for handle, event in self._engine.step():
            number, tokens = self._streams[handle]
            if isinstance(event, Delta):
                tokens += event.token_ids
                committed = True
            elif isinstance(event, Final | Failed):
                del self._streams[handle]
                self.num_ended += 1
                self.num_failed += isinstance(event, Failed)
                self.num_different += self.truth.setdefault(number, tokens) != tokens
                if refill:
                    self._start(number)
        return committed

    def finish(self) -> None:
        while self._engine.has_work:
            self.step()
        self._engine.check_integrity()

    def _start(self, number: int) -> None:
        self._streams[self._engine.add(self._requests[number])] = (number, [])


def measure(outcome: Outcome, profile: str, overrides: list[str], faults: int, max_tokens: int, seed: int) -> None:
    """Fills in the outcome: a fault of each kind in turn, at a random moment of the load."""
    own = ["engine.max_running_sequences=16", "experts.rebalance_period_s=5", *overrides, *outcome.overrides]
    engine = build_engine(load_config(profile, None, own))
    chance = random.Random(seed)
    try:
        load = Load(engine, max_tokens)
        load.run_undisturbed()
        load.start_all()
        with progress_bar() as (bar, task):
            bar.update(task, description=outcome.name, total=faults)
            for kind in itertools.islice(itertools.cycle(_FAULTS), faults):
                usual_ms = list(_step_times_ms(load, chance.randint(1, _MOST_STEPS_BETWEEN_FAULTS)))
                outcome.usual_step_ms = statistics.median(usual_ms)
                _disturb(engine, load, outcome, kind, chance)
                bar.advance(task)
        load.finish()
        outcome.num_streams, outcome.num_failed, outcome.num_different = (
            load.num_ended,
            load.num_failed,
            load.num_different,
        )
    finally:
        engine.shutdown()


def _disturb(engine: Engine, load: Load, outcome: Outcome, kind: str, chance: random.Random) -> None:
    """Sends a signal to a shard somewhere within a step, and runs on until it is replaced."""
    victim = chance.choice([shard for shard in _status(engine).shards if shard.shard != LEADER])
    assert victim.report is not None, "the load ran for longer than a report takes"
    hurt = threading.Timer(chance.random() * outcome.usual_step_ms / 1000, os.kill, (victim.report.pid, _FAULTS[kind]))
    hurt.start()
    last_s = hurt_at_s = time.perf_counter()
    longest_ms = 0.0
    while not _is_replaced(engine, victim.shard, victim.report.pid):
        if load.step(refill=True):
            now_s = time.perf_counter()
            longest_ms, last_s = max(longest_ms, (now_s - last_s) * 1000), now_s
    hurt.join()
    outcome.pauses_ms.setdefault(kind, []).append(longest_ms)
    outcome.replaced_s.append(time.perf_counter() - hurt_at_s)


def _is_replaced(engine: Engine, number: int, pid: int) -> bool:
    """Another process serves under the shard's number."""
    shard = next(shard for shard in _status(engine).shards if shard.shard == number)
    return shard.state == "serving" and shard.report is not None and shard.report.pid != pid


def _step_times_ms(load: Load, count: int) -> Iterator[float]:
    for _ in range(count):
        begun_s = time.perf_counter()
        load.step(refill=True)
        yield (time.perf_counter() - begun_s) * 1000


def _status(engine: Engine) -> ExpertStatus:
    status = expert_status(engine.model.decoder.experts)
    assert status is not None, "experts.num_shards is at least 2"
    return status


def as_markdown(found: Sequence[Outcome], max_tokens: int) -> str:
    lines = [
        "| copies | fault | faults | usual step, ms | pause p50, ms | p99, ms | replaced after, s | streams | failed | "
        "different |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for outcome in found:
        for kind, pauses_ms in outcome.pauses_ms.items():
            ordered = sorted(pauses_ms)
            p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            lines.append(
                f"| {outcome.name} | {kind} | {len(ordered)} | {outcome.usual_step_ms:.0f} | "
                f"{statistics.median(ordered):.0f} | {p99:.0f} | {statistics.median(outcome.replaced_s):.1f} | "
                f"{outcome.num_streams} | {outcome.num_failed} | {outcome.num_different} |"
            )
    explained = (
        f"{NUM_STREAMS} streams of {max_tokens} tokens at any time, half greedy, half sampled, with speculation and "
        "rebalancing as configured. A pause is the longest time without a token for anybody from the fault until the "
        "shard is replaced. Streams, failed and different count all faults of a row's copies together."
    )
    return "\n".join([*lines, "", explained])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.expert_faults", description=__doc__)
    parser.add_argument("--profile", default="moe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--faults", type=int, default=20, help="for each way of keeping copies")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--doc", type=Path, help="a document with an `expert-faults` block to write the table into")
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    found = outcomes()
    for outcome in found:
        measure(outcome, given.profile, given.overrides, given.faults, given.max_tokens, given.seed)
    table = as_markdown(found, given.max_tokens)
    print(table)
    if given.doc is not None:
        written = replace_block(given.doc.read_text(encoding="utf-8"), "expert-faults", table)
        given.doc.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
