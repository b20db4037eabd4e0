"""What it costs to ask an expert shard: round trips by every transport, to a shard that computes nothing.

    python -m zenray.bench.expert_transports --doc docs/experts.md

The shard is a process that copies each pair's row back, so what is timed is the way there and back: packing, copies,
system calls and waking up. Before each call the leader works for a while, as it does between two MoE layers. Rounds
alternate between transports, so that a disturbance hits all of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from zenray.bench.document import replace_block
from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, write_report
from zenray.bench.statistics import Distribution
from zenray.config import ExpertSettings, ModelSettings
from zenray.experts.in_process import InProcessLink
from zenray.experts.link import ExpertCall, ShardLink
from zenray.experts.placement import ExpertId
from zenray.experts.shard_server import ShardServer
from zenray.experts.store import ExpertStore
from zenray.experts.stream_link import connect
from zenray.model.build import open_weights
from zenray.model.load import OpenedWeights
from zenray.ops.reference import ReferenceBackend
from zenray.ops.weights import PackedWeight

NUM_TOKENS = (1, 8, 512)
TRANSPORTS = {"in-process": None, "unix": "unix", "tcp": "127.0.0.1", "gloo": "unix"}
"""And what the shard binds to."""
_TOKEN = "of a benchmark"  # noqa: S105
_EXPERTS = tuple(range(16))
_SHAPE = {"hidden_size": 896, "num_layers": 1, "num_experts": len(_EXPERTS), "expert_intermediate_size": 16}
_MODEL = ModelSettings(name="preset:tiny-moe", weight_format="bf16", preset_overrides=_SHAPE)
_ALL = tuple(ExpertId(0, expert) for expert in _EXPERTS)


class _Echo(ReferenceBackend):
    """Every expert is the identity."""

    def swiglu_rows(
        self,
        x_ND: torch.Tensor,
        experts: Sequence[tuple[PackedWeight, PackedWeight]],
        counts: Sequence[int],
        rows_P: torch.Tensor,
    ) -> torch.Tensor:
        return x_ND[rows_P]


def round_trips(rounds: int, calls: int, work_us: float) -> list[dict[str, Any]]:
    """One row for each number of tokens and transport: microseconds from before `send` to the rows' arrival."""
    torch.set_num_threads(1)
    weights = open_weights(_MODEL)
    with ExitStack() as ends:
        links = {transport: _open(ends, transport, weights) for transport in TRANSPORTS}
        rows = []
        for num_tokens in NUM_TOKENS:
            call = _call(num_tokens, weights)
            times_us: dict[str, list[float]] = {transport: [] for transport in links}
            for turn in range(rounds + 1):
                for transport, link in links.items():
                    found = [_time_us(link, call, work_us) for _ in range(calls)]
                    times_us[transport] += found if turn else []  # the first round warms up
            for transport, us in times_us.items():
                taken = asdict(Distribution.of(us))
                rows.append({"tokens": num_tokens, "pairs": call.num_pairs, "transport": transport, "us": taken})
    return rows


def _time_us(link: ShardLink, call: ExpertCall, work_us: float) -> float:
    until = time.perf_counter() + work_us / 1e6
    while time.perf_counter() < until:
        pass
    started = time.perf_counter()
    link.send(call)
    link.receive()
    return (time.perf_counter() - started) * 1e6


def _call(num_tokens: int, weights: OpenedWeights) -> ExpertCall:
    """Two experts a token, spread over all of them."""
    chosen = sorted((expert, token) for token in range(num_tokens) for expert in (token * 2 % 16, token * 2 % 16 + 1))
    expert_ids = sorted({expert for expert, _ in chosen})
    counts = [sum(expert == other for other, _ in chosen) for expert in expert_ids]
    rows_P = torch.tensor([token for _, token in chosen])
    x_ND = torch.randn(num_tokens, weights.config.hidden_size).to(weights.provider.dtype)
    return ExpertCall(1, 0, expert_ids, counts, rows_P, x_ND)


def _open(ends: ExitStack, transport: str, weights: OpenedWeights) -> ShardLink:
    bind = TRANSPORTS[transport]
    link: ShardLink
    if bind is None:
        link = InProcessLink(1, ExpertStore(weights.provider), _Echo(weights.provider.dtype))
    else:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(theirs, bind), daemon=True)
        process.start()
        ends.callback(process.join)
        settings = ExpertSettings.model_validate({"transport": transport})
        link = connect(ours.recv(), _TOKEN, weights.provider.digest, 1, settings)
        ends.callback(link.close)
    link.load(_ALL)
    return link


def _serve(leader: Pipe, bind: str) -> None:
    torch.set_num_threads(1)
    weights = open_weights(_MODEL)
    echoing = OpenedWeights(weights.config, weights.provider, _Echo(weights.provider.dtype))
    server = ShardServer(1, echoing, ExpertSettings(), _TOKEN, bind=bind)
    leader.send(server.address)
    server.serve()


def as_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    settings, machine = report["settings"], report["machine"]
    lines = [
        f"Measured {report['created'][:10]} on {machine['cores']} cores; other processes used "
        f"{report['foreign_cpu_share']:.0%} of them. Rows of 896 bfloat16, two experts a token, a shard that computes "
        f"nothing, {settings['rounds']} rounds of {settings['calls']} calls, {settings['work_us']:g} µs of other work "
        "before each call. Microseconds for one round trip, p50 (p95).",
        "",
        "| tokens | pairs | " + " | ".join(TRANSPORTS) + " |",
        "|---|---|" + "---|" * len(TRANSPORTS),
    ]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in _cells(report))])


def _cells(report: dict[str, Any]) -> list[list[str]]:
    lines: dict[int, list[str]] = {}
    for row in report["results"]:
        line = lines.setdefault(row["tokens"], [str(row["tokens"]), str(row["pairs"])])
        line.append(f"{row['us']['p50']:.0f} ({row['us']['p95']:.0f})")
    return list(lines.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.expert_transports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300, help="in each round, by each transport")
    parser.add_argument("--work-us", type=float, default=500, help="what the leader does before each call")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--doc", type=Path, help="a document with an `expert-transports` block to write the table into")
    given = parser.parse_args()
    before, begun_s = CpuClock.read(), time.perf_counter()
    results = round_trips(given.rounds, given.calls, given.work_us)
    report = make_report(
        "expert-transports",
        results,
        prompts={},
        settings={"rounds": given.rounds, "calls": given.calls, "work_us": given.work_us},
        bandwidth=None,
        foreign_cpu_share=before.foreign_share(CpuClock.read(), time.perf_counter() - begun_s),
    )
    table = Table("tokens", "pairs", *TRANSPORTS, title="Round trip, µs: p50 (p95)")
    for cells in _cells(report):
        table.add_row(*cells)
    Console().print(table)
    if given.json is not None:
        write_report(report, given.json)
    if given.doc is not None:
        written = replace_block(given.doc.read_text(encoding="utf-8"), "expert-transports", as_markdown(report))
        given.doc.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
