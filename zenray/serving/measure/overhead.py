"""The engine alone against the same engine behind gRPC and Ray, prompt by prompt in turns."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from zenray.api.client import AsyncClient
from zenray.build import build_engine
from zenray.config import ZenrayConfig
from zenray.engine.async_engine import AsyncEngine
from zenray.engine.request import Delta, GenerateRequest, Limits
from zenray.serving.app import start
from zenray.serving.measure.cpu import CpuMeter
from zenray.v1 import completion_pb2


@dataclass
class Times:
    """Of one side: time to the first token and between chunks, in milliseconds, pair by pair."""

    first_ms: list[float] = field(default_factory=list)
    between_ms: list[float] = field(default_factory=list)

    def add(self, begun_s: float, arrivals_s: list[float]) -> None:
        self.first_ms.append((arrivals_s[0] - begun_s) * 1000)
        gaps = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(arrivals_s)]
        self.between_ms.append(statistics.fmean(gaps))


def measure_overhead(
    config: ZenrayConfig, num_prompts: int, prompt_tokens: int, max_tokens: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Added milliseconds on the first token and per chunk at one stream; the verifier's memory.

    Both sides run the same token prompts, each prompt new to both, so nothing comes from a prefix cache.
    """
    say("loading the engine alone")
    engine = build_engine(config)
    config = config.model_copy(update={"server": config.server.model_copy(update={"grpc_port": 0, "http_port": 0})})
    with start(config, say) as platform:
        say("measuring")
        alone, served, cpu_ms = asyncio.run(
            _in_turns(AsyncEngine(engine), platform.grpc_address, num_prompts, prompt_tokens, max_tokens)
        )
        memory = _verifier_rss()
    added_first = [there - here for here, there in zip(alone.first_ms, served.first_ms, strict=True)]
    added_between = [there - here for here, there in zip(alone.between_ms, served.between_ms, strict=True)]
    allowed = engine.model.info.weight_bytes + config.engine.kv_cache_mib * 2**20 + 2**30
    return {
        "model": config.model.name,
        "weight_format": config.model.weight_format,
        "prompts": num_prompts,
        "prompt_tokens": prompt_tokens,
        "max_tokens": max_tokens,
        "first_token_ms": {"engine": _p50(alone.first_ms), "served": _p50(served.first_ms)},
        "between_ms": {"engine": _p50(alone.between_ms), "served": _p50(served.between_ms)},
        "added_first_token_ms_p50": _p50(added_first),
        "added_per_chunk_ms_p50": _p50(added_between),
        "cpu_ms_per_chunk": cpu_ms,
        "verifier_rss_mib": round(memory / 2**20),
        "verifier_rss_allowed_mib": round(allowed / 2**20),
    }


async def _in_turns(
    engine: AsyncEngine, address: str, num_prompts: int, prompt_tokens: int, max_tokens: int
) -> tuple[Times, Times, dict[str, float]]:
    await engine.start()
    alone, served = Times(), Times()
    vocab_size = engine.engine.model.config.vocab_size
    cpu = CpuMeter()
    async with AsyncClient(address) as client:
        for number in range(-2, num_prompts):  # two to warm up
            prompt = tuple(
                (7 + 31 * i + 1009 * (number + 2)) % (min(vocab_size, 256) - 8) for i in range(prompt_tokens)
            )
            limits = Limits(max_tokens=max_tokens, ignore_eos=True)
            request = completion_pb2.CompleteRequest(prompt_token_ids=completion_pb2.TokenIds(ids=prompt))
            request.limits.max_tokens = max_tokens
            request.limits.ignore_eos = True
            own = GenerateRequest("r", prompt, limits=limits)
            for side in (alone, served) if number % 2 else (served, alone):
                chunks = _engine_chunks(engine, own) if side is alone else _served_chunks(client, request)
                cpu.begin()
                begun_s = time.perf_counter()
                arrivals_s = [time.perf_counter() async for _ in chunks]
                if number >= 0:
                    side.add(begun_s, arrivals_s)
                    if side is served:
                        cpu.end(len(arrivals_s))
    await engine.shutdown(0)
    return alone, served, cpu.per_chunk_ms()


async def _engine_chunks(engine: AsyncEngine, request: GenerateRequest) -> AsyncGenerator[None, None]:
    async for event in engine.generate(request):
        if isinstance(event, Delta):
            yield


async def _served_chunks(client: AsyncClient, request: completion_pb2.CompleteRequest) -> AsyncGenerator[None, None]:
    async for event in client.complete(request):
        if event.HasField("delta"):
            yield


def _verifier_rss() -> int:
    from zenray.serving.harness import replica_processes

    return max(process.memory_info().rss for process in replica_processes("Verifier"))


def _p50(values: list[float]) -> float:
    return round(statistics.median(values), 2)
