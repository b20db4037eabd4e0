"""Ways from a client to an engine, measured with an engine that costs nothing.

The engine emits a chunk every few milliseconds and writes the moment into it, so the client knows how long
each chunk was on its way. Every way runs in a process of its own, because Ray reads its environment once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from zenray.serving.measure.cpu import CpuMeter

Edge = Literal["own", "proxy"]
Inner = Literal["none", "tcp", "unix", "handle"]

_TUNED = {
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
_HA_PROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
_STEP_MS = 20
_NUM_CHUNKS = 40
_REQUESTS = {1: 12, 8: 3}
"""Concurrent streams -> requests each."""


@dataclass(frozen=True)
class Way:
    """Client -> edge -> aggregator -> inner -> verifier."""

    name: str
    edge: Edge
    inner: Inner
    environment: dict[str, str] = field(default_factory=dict)


WAYS = (
    Way("own server, no second hop", "own", "none"),
    Way("own server, gRPC over TCP (chosen)", "own", "tcp"),
    Way("own server, gRPC over a Unix socket", "own", "unix"),
    Way("own server, Serve handle", "own", "handle"),
    Way("own server, Serve handle with gRPC, one loop", "own", "handle", _TUNED),
    Way("Serve proxy, gRPC over TCP", "proxy", "tcp"),
    Way("Serve proxy with gRPC, one loop, gRPC over TCP", "proxy", "tcp", _TUNED),
    Way("Serve proxy, Serve handle", "proxy", "handle"),
    Way("Serve HAProxy, throughput optimised, gRPC over TCP", "proxy", "tcp", _HA_PROXY),
)


def measure_transports(ways: tuple[Way, ...], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per way; a way that does not work says why in `error`."""
    rows = []
    for way in ways:
        say(way.name)
        command = [sys.executable, "-m", "zenray.serving.measure", "one-way", way.edge, way.inner]
        done = subprocess.run(
            command, env={**os.environ, **way.environment}, capture_output=True, text=True, timeout=240, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        found = json.loads(lines[-1]) if lines else {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
        rows.append({"way": way.name, **found})
    return rows


def measure_one_way(edge: Edge, inner: Inner) -> dict[str, Any]:
    """Runs in a process of its own: Ray, two bench deployments, a client."""
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions, gRPCOptions

    from zenray.serving.measure.bench_app import BenchAggregator, BenchVerifier
    from zenray.serving.preflight import free_port

    port = free_port("127.0.0.1")
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    try:
        if edge == "proxy":
            adder = "zenray.v1.completion_pb2_grpc.add_CompletionServiceServicer_to_server"
            serve.start(
                http_options=HTTPOptions(host="127.0.0.1", port=free_port("127.0.0.1")),
                grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[adder]),
            )
        else:
            serve.start(proxy_location="Disabled")
        options: dict[str, Any] = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0.5}}
        socket_path = f"{tempfile.mkdtemp()}/v" if inner == "unix" else ""
        verifier = serve.deployment(**options)(BenchVerifier).bind(inner, socket_path)
        serve.run(serve.deployment(**options)(BenchAggregator).bind(edge, inner, port, verifier), name="zenray")
        return asyncio.run(_measure(f"127.0.0.1:{port}"))
    finally:
        ray.shutdown()


async def _measure(address: str) -> dict[str, Any]:
    import grpc.aio

    from zenray.v1 import completion_pb2, completion_pb2_grpc

    async with grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        stub = completion_pb2_grpc.CompletionServiceStub(channel)  # type: ignore[no-untyped-call]

        async def chunks(number: int, step_ms: int) -> AsyncGenerator[tuple[float, float], None]:
            """Arrival of each chunk, and when it was made, in seconds of the shared monotonic clock."""
            request = completion_pb2.CompleteRequest(prompt="x" * 2000)
            request.limits.max_tokens, request.limits.deadline_ms = number, step_ms
            async for event in stub.Complete(request):
                yield time.monotonic(), float(event.delta.text)

        for _ in range(60):  # until the door is open
            with contextlib.suppress(grpc.aio.AioRpcError):
                [_ async for _ in chunks(5, 1)]
                break
            await asyncio.sleep(0.5)
        for _ in range(5):
            [_ async for _ in chunks(20, 5)]
        row: dict[str, Any] = {}
        for num_streams, num_requests in _REQUESTS.items():
            first_ms: list[float] = []
            chunk_ms: list[float] = []

            async def stream(num_requests: int, first_ms: list[float], chunk_ms: list[float]) -> None:
                for _ in range(num_requests):
                    begun_s = time.monotonic()
                    found = [pair async for pair in chunks(_NUM_CHUNKS, _STEP_MS)]
                    first_ms.append((found[0][0] - begun_s) * 1000)
                    chunk_ms.extend((arrived_s - made_s) * 1000 for arrived_s, made_s in found[1:])

            cpu = CpuMeter()
            cpu.begin()
            await asyncio.gather(*(stream(num_requests, first_ms, chunk_ms) for _ in range(num_streams)))
            cpu.end(len(first_ms) + len(chunk_ms))
            row[f"{num_streams} streams"] = {
                "first_p50_ms": _quantile(first_ms, 0.5),
                "first_p95_ms": _quantile(first_ms, 0.95),
                "chunk_p50_ms": _quantile(chunk_ms, 0.5),
                "chunk_p99_ms": _quantile(chunk_ms, 0.99),
                "cpu_ms_per_chunk": round(sum(cpu.per_chunk_ms().values()), 2),
            }
    return row


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
