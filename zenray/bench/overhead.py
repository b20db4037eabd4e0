"""What gRPC and Ray add to the engine, and what the verifier process holds in memory.

The same engine twice on one machine: once in this process, once behind a server. Rounds alternate
between the two, so that a machine that changes its mood changes it for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zenray.bench.load import Bounds, closed_loop
from zenray.bench.machine import find_processes, resident_bytes
from zenray.bench.prompts import PromptSet
from zenray.bench.report import make_report
from zenray.bench.runs import (
    check_outputs,
    deliver,
    engine_target,
    opened,
    progress_bar,
    prompts_of_engine,
    shown_config,
    with_room,
)
from zenray.bench.statistics import Distribution, RequestRecord, summarise
from zenray.bench.targets import Call, Target, remote_target
from zenray.errors import Unavailable, ZenrayError

if TYPE_CHECKING:
    from zenray.config import ZenrayConfig
    from zenray.engine.engine import Engine

VERIFIER_TITLE = "ServeReplica:zenray:Verifier"
"""How Ray names the process of a verifier replica."""

_STOP_TIMEOUT_S = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class OverheadPlan:
    """`num_requests` per path and round, one after the other."""

    num_requests: int
    rounds: int
    max_tokens: int
    memory: bool


def run_overhead_bench(
    profile: str,
    file: Path | None,
    overrides: Sequence[str],
    target: str,
    plan: OverheadPlan,
    json_out: Path | None,
    plot_out: Path | None,
) -> None:
    """`zenray bench overhead`. Starts a server of its own unless `target` names one of the same profile."""
    from zenray.build import build_engine
    from zenray.config_load import load_config

    check_outputs(json_out, plot_out)
    config = with_room(load_config(profile, file, list(overrides)), 1)
    with contextlib.ExitStack() as stack:
        bar, task = stack.enter_context(progress_bar())
        bar.update(task, total=2 * plan.rounds, description="loading the engine")
        engine = build_engine(config)
        prompts = prompts_of_engine(None, engine, plan.max_tokens)
        server_pid = None
        if not target:
            bar.update(task, description="starting a server")
            server = started_server(profile, file, overrides, config.server.start_timeout_s)
            target, server_pid = stack.enter_context(server)

        def advance(what: str) -> None:
            bar.update(task, advance=1, description=what)

        results = asyncio.run(_measure(config, engine, remote_target(target), prompts, plan, advance))
        if plan.memory:
            results += memory_rows(engine, config, server_pid)
    report = make_report(
        "overhead",
        results,
        prompts=prompts.identity,
        settings={**asdict(plan), "config": shown_config(config)},
        bandwidth=None,
        foreign_cpu_share=None,  # the server is another process too
    )
    deliver(report, json_out, plot_out)


async def _measure(
    config: ZenrayConfig, engine: Engine, remote: Target, prompts: PromptSet, plan: OverheadPlan, advance: Any
) -> list[dict[str, Any]]:
    short = prompts.of("short")
    records: dict[str, list[RequestRecord]] = {"direct": [], "served": []}
    async with opened(engine_target(config, engine)) as direct, opened(remote):
        for number in range(-1, plan.rounds):  # round -1 warms both up and is thrown away
            first = (number + 1) * plan.num_requests
            calls = [
                Call(short[index % len(short)].variant(first + index), plan.max_tokens)
                for index in range(plan.num_requests if number >= 0 else 2)
            ]
            order = [("direct", direct), ("served", remote)]
            for path, target in order if number % 2 else reversed(order):
                if number >= 0:
                    advance(f"round {number + 1}: {path}")
                seen = await closed_loop(target, calls, 1, Bounds(len(calls), 600.0))
                for record in seen:
                    if record.error:
                        raise ZenrayError(f"{target.name}: {record.name} failed: {record.error}")
                records[path] += seen if number >= 0 else []
    return overhead_rows(records)


def overhead_rows(records: dict[str, list[RequestRecord]]) -> list[dict[str, Any]]:
    """A row per path and one for what the served path adds.

    The first token's share is taken per request, from the time the engine itself reports for it, because
    the difference of two noisy medians of prefills is noise; what no report tells is in `ttft_difference`.
    """
    rows: list[dict[str, Any]] = []
    summaries = {path: summarise(group) for path, group in records.items()}
    for path, summary in summaries.items():
        rates = Distribution.of(1e3 / r.tpot_ms for r in records[path] if r.tpot_ms)
        rows.append(
            {
                "measure": "path",
                "path": path,
                "tokens_per_s": asdict(rates),
                "engine_first_token_ms": asdict(Distribution.of(r.server_first_token_ms for r in records[path])),
                **{name: asdict(getattr(summary, name)) for name in ("ttft_ms", "itl_ms", "tpot_ms", "tfcl_ms")},
            }
        )
    beyond = [
        record.ttft_ms - record.server_first_token_ms
        for record in records["served"]
        if record.ttft_ms is not None and record.server_first_token_ms is not None
    ]
    added: dict[str, Any] = {"measure": "added", "ttft_ms": asdict(Distribution.of(beyond))}
    for name in ("ttft_ms", "itl_ms", "tpot_ms"):
        served, direct = getattr(summaries["served"], name).p50, getattr(summaries["direct"], name).p50
        key = name.replace("_ms", "_p50_difference_ms")
        added[key] = served - direct if served is not None and direct is not None else None
    return [*rows, added]


def memory_rows(engine: Engine, config: ZenrayConfig, server_pid: int | None) -> list[dict[str, Any]]:
    """One row per verifier process, of one server or of this machine: what is resident beside weights and
    KV budget."""
    rows = []
    weights_mib = engine.model.info.weight_bytes / 2**20
    for pid in find_processes(VERIFIER_TITLE, server_pid):
        resident_mib = resident_bytes([pid]) / 2**20
        rows.append(
            {
                "measure": "memory",
                "resident_mib": resident_mib,
                "weights_mib": weights_mib,
                "kv_budget_mib": config.engine.kv_cache_mib,
                "other_mib": resident_mib - weights_mib - config.engine.kv_cache_mib,
            }
        )
    return rows


def _stop_with_parent() -> None:
    """Asks the kernel to interrupt this process when a killed benchmark can no longer do so."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


@contextlib.contextmanager
def started_server(
    profile: str, file: Path | None, overrides: Sequence[str], timeout_s: float
) -> Iterator[tuple[str, int]]:
    """`zenray serve` on free ports until the context ends; yields its gRPC target and process. Raises Unavailable with
    the end of its output when it dies or does not answer in time."""
    grpc_port, http_port = _free_ports(2)
    command = [sys.executable, "-m", "zenray.cli.main", "serve", "--profile", profile]
    command += ["--config", str(file)] if file else []
    for item in (*overrides, f"server.grpc_port={grpc_port}", f"server.http_port={http_port}"):
        command += ["--set", item]
    with tempfile.TemporaryFile() as log:
        # Its own process group: Ctrl-C reaches it once, from here, and not from the terminal as well.
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
        )
        try:
            asyncio.run(_wait_until_ready(f"127.0.0.1:{grpc_port}", server, timeout_s, log))
            yield f"grpc://127.0.0.1:{grpc_port}", server.pid
        finally:
            if server.poll() is None:
                server.send_signal(signal.SIGINT)
            try:
                server.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


async def _wait_until_ready(address: str, server: subprocess.Popen[bytes], timeout_s: float, log: Any) -> None:
    from zenray.api.client import AsyncClient, CallFailed

    deadline_s = time.monotonic() + timeout_s
    while True:
        if server.poll() is not None:
            raise Unavailable(f"the server ended with code {server.returncode}: {_tail(log)}")
        try:
            async with AsyncClient(address) as client:
                await client.model_info(timeout_s=2.0)
            return
        except CallFailed as error:
            if time.monotonic() > deadline_s:
                raise Unavailable(f"no answer at {address} within {timeout_s:.0f} s: {_tail(log)}") from error
        await asyncio.sleep(0.5)


def _tail(log: Any) -> str:
    log.seek(0)
    return str(log.read().decode("utf-8", "replace")[-800:]).strip() or "it said nothing"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
