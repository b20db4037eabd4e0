"""Where the draft model lives: in a pool beside the verifier, against in its process. One request at a time.

    python -m zenray.bench.placement --prompts 12

Sides take turns prompt by prompt on the same verifier weights. The pool's side gives the verifier one thread and a
replica, a process of its own behind gRPC, another; the colocated sides get two threads and one.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import torch

from zenray.bench.document import replace_block
from zenray.bench.speculative_prompts import SpeculativePrompt, speculative_prompts
from zenray.config import ZenrayConfig
from zenray.config_load import load_config
from zenray.engine.engine import Engine
from zenray.engine.request import Final, GenerateRequest, Limits, Started, Usage
from zenray.model.build import build_model, set_num_threads
from zenray.model.load import LoadedModel
from zenray.serving.channels import bind
from zenray.serving.directory import Endpoint
from zenray.serving.draft_client import PoolDrafter
from zenray.serving.draft_pool import draft_info
from zenray.serving.draft_service import SERVER_OPTIONS, DraftServicer
from zenray.serving.harness import eventually
from zenray.speculative.build import build_speculator
from zenray.speculative.draft_model import DraftModel, load_draft_model
from zenray.speculative.warm_up import warm_up
from zenray.v1 import draft_pb2_grpc


@dataclass
class Side:
    """One placement, and what its runs gave."""

    name: str
    drafters: str
    num_threads: int
    engine: Engine | None = None
    tokens_per_s: list[float] = field(default_factory=list)
    num_tokens: int = 0
    decode_s: float = 0.0
    usages: list[Usage] = field(default_factory=list)


def sides() -> list[Side]:
    return [
        Side("pool, 1 + 1 threads", "[draft_pool]", 1),
        Side("colocated, 2 threads", "[draft_model]", 2),
        Side("colocated, 1 thread", "[draft_model]", 1),
        Side("plain, 2 threads", "[]", 2),
        Side("plain, 1 thread", "[]", 1),
    ]


def measure(profile: str, overrides: list[str], num_prompts: int, max_tokens: int) -> list[dict[str, Any]]:
    """One row per side."""
    compared = sides()
    configs = {side.name: config_of(side, profile, overrides) for side in compared}
    model = build_model(configs[compared[0].name].model)
    prompts = speculative_prompts(model.tokenizer, "fresh", num_prompts + 1)
    with draft_replica(profile, overrides) as endpoint:
        try:
            for side in compared:
                set_num_threads(side.num_threads)
                side.engine = make_engine(configs[side.name], model, endpoint)
            for number, prompt in enumerate(prompts):
                for turn in range(len(compared)):
                    run(compared[(number + turn) % len(compared)], prompt, max_tokens, is_counted=number > 0)
            return [report(side, compared[1]) for side in compared]
        finally:
            for side in compared:
                if side.engine is not None:
                    side.engine.shutdown()


def config_of(side: Side, profile: str, overrides: list[str]) -> ZenrayConfig:
    own = [f"speculation.drafters={side.drafters}", f"model.num_threads={side.num_threads}"]
    return load_config(profile, None, [*overrides, *own])


def make_engine(config: ZenrayConfig, model: LoadedModel, endpoint: Endpoint) -> Engine:
    remote = []
    if config.has_draft_pool:

        async def watch() -> AsyncGenerator[list[Endpoint], None]:
            yield [endpoint]
            await asyncio.Event().wait()

        remote.append(PoolDrafter(config.speculation, model.config.vocab_size, watch))
        eventually(lambda: remote[0].status().replicas, "the replica is connected")
    speculator = build_speculator(config, model, remote)
    engine = Engine(model, config.engine, config.model.context_length, speculator=speculator)
    if "draft_model" in config.speculation.drafters:  # as a server does before its first request
        warm_up(engine)
    return engine


def run(side: Side, prompt: SpeculativePrompt, max_tokens: int, is_counted: bool) -> None:
    assert side.engine is not None
    set_num_threads(side.num_threads)
    side.engine.add(GenerateRequest(prompt.name, prompt.token_ids, limits=Limits(max_tokens)))
    begun_s, final = 0.0, None
    while side.engine.has_work:
        for _, event in side.engine.step():
            if isinstance(event, Started):
                begun_s = time.perf_counter()
            elif isinstance(event, Final):
                final = event
    decode_s = time.perf_counter() - begun_s
    assert final is not None
    if is_counted:
        num_tokens = final.usage.completion_tokens - 1
        side.tokens_per_s.append(num_tokens / decode_s)
        side.num_tokens += num_tokens
        side.decode_s += decode_s
        side.usages.append(final.usage)


def report(side: Side, reference: Side) -> dict[str, Any]:
    """`against_colocated` is the median over prompts; `wait_ms` the added wait of a round."""
    assert side.engine is not None
    rounds = sum(usage.rounds for usage in side.usages)
    drafted = sum(each.drafted_tokens for usage in side.usages for each in usage.drafters)
    accepted = sum(each.accepted_tokens for usage in side.usages for each in usage.drafters)
    load = side.engine.load()
    pairs = zip(side.tokens_per_s, reference.tokens_per_s, strict=True)
    return {
        "side": side.name,
        "tokens_per_s": round(side.num_tokens / side.decode_s, 1),
        "against_colocated": round(statistics.median(own / other for own, other in pairs), 2),
        "tokens_per_round": round(side.num_tokens / max(1, rounds), 2),
        "round_ms": round(side.decode_s * 1000 / max(1, rounds), 1),
        "wait_ms": round(sum(each.draft_ms for each in load.drafters) / max(1, load.rounds), 1),
        "acceptance": round(accepted / max(1, drafted), 2),
        "timeouts": sum(each.timeouts for each in load.drafters),
        "queue_age_ms": round(sum(each.queue_age_ms for each in load.drafters), 1),
    }


@contextmanager
def draft_replica(profile: str, overrides: list[str]) -> Iterator[Endpoint]:
    """A replica of the pool in a process of its own, without Ray."""
    command = [sys.executable, "-m", "zenray.bench.placement", "--profile", profile, "--replica"]
    command += [part for override in overrides for part in ("--set", override)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Endpoint("replica", process.stdout.readline().strip())
        finally:
            process.terminate()


async def serve_replica(config: ZenrayConfig) -> None:
    set_num_threads(config.draft.num_threads)
    model = load_draft_model(config)
    servicer = DraftServicer(DraftModel.from_settings(model, config.draft), draft_info(model, config), "replica")
    servicer.start()
    server = grpc.aio.server(options=list(SERVER_OPTIONS.items()))
    draft_pb2_grpc.add_DraftServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    print(bind(server, "127.0.0.1"), flush=True)
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.placement", description=__doc__)
    parser.add_argument("--profile", default="pair")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--doc", type=Path, help="a document with a `placement` block to write the table into")
    parser.add_argument("--replica", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replica:
        asyncio.run(serve_replica(load_config(given.profile, None, given.overrides)))
        return
    torch.set_grad_enabled(False)
    table = as_markdown(measure(given.profile, given.overrides, given.prompts, given.max_tokens), given.prompts)
    print(table)
    if given.doc is not None:
        written = replace_block(given.doc.read_text(encoding="utf-8"), "placement", table)
        given.doc.write_text(written, encoding="utf-8")


def as_markdown(rows: list[dict[str, Any]], num_prompts: int) -> str:
    columns = {
        "placement": "side",
        "tok/s": "tokens_per_s",
        "of colocated": "against_colocated",
        "tok/round": "tokens_per_round",
        "ms/round": "round_ms",
        "wait, ms/round": "wait_ms",
        "accepted": "acceptance",
        "timeouts": "timeouts",
        "queue age, ms": "queue_age_ms",
    }
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(str(row[name]) for name in columns.values())} |" for row in rows]
    lines += [
        "",
        f"{num_prompts} prompts of fresh code, batch 1, greedy. Of colocated: the median over prompts against two "
        "threads in one process. Wait: what a round spends on drafting, or on waiting for the pool.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
