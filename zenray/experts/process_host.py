"""Expert shards as child processes of the leader: expert sharding on one machine without Ray."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from zenray.config import ExpertSettings, ModelSettings
from zenray.experts.link import ShardLost
from zenray.experts.shard_process import ShardOrder
from zenray.experts.stream_link import StreamLink, connect

START_TIMEOUT_S = 120.0
_LOOPBACK = "127.0.0.1"


class ProcessHost:
    """Starts shard processes, one of each number at a time. weights_digest: of the leader's weights."""

    def __init__(self, model: ModelSettings, experts: ExpertSettings, weights_digest: str) -> None:
        self._model, self._experts, self._digest = model, experts, weights_digest
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Linux ends a child with the thread that started it, so all are started by one that lasts.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="zenray-shard-starter")

    def start(self, shard: int) -> StreamLink:
        """As `ShardHost.start`; the child inherits the environment and standard error."""
        token = secrets.token_hex(32)
        process = self._replace(shard)
        address = self._introduce(process, shard, token)
        return connect(address, token, self._digest, shard, self._experts, torch.device(self._model.device))

    def pid(self, shard: int) -> int:
        """Of the process that goes by this number."""
        return self._processes[shard].pid

    def close(self) -> None:
        """Ends every shard, also one that is being started."""
        with self._lock:
            self._closed = True
            for process in self._processes.values():
                _end(process)
        self._starter.shutdown()

    def _replace(self, shard: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise ShardLost(shard, "its host is closed")
            if shard in self._processes:
                _end(self._processes[shard])
            self._processes[shard] = self._starter.submit(_spawn).result()
            return self._processes[shard]

    def _introduce(self, process: subprocess.Popen[bytes], shard: int, token: str) -> str:
        """Tells the child what it is, and hears where it listens."""
        transport = self._experts.transport
        order = ShardOrder(
            shard=shard,
            parent=os.getpid(),
            model=self._model,
            experts=self._experts,
            bind=_LOOPBACK if transport == "tcp" else "unix",
            token=token,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(order.model_dump_json().encode() + b"\n")
            process.stdin.flush()
            listening = select.poll()
            listening.register(process.stdout, select.POLLIN)
            if not listening.poll(START_TIMEOUT_S * 1e3):
                raise ShardLost(shard, f"its process did not come up within {START_TIMEOUT_S:g} s")
            answer = json.loads(process.stdout.readline() or "{}")
        except (OSError, ValueError) as error:
            raise ShardLost(shard, f"its process did not come up: {error}") from None
        finally:
            process.stdout.close()
        if "address" not in answer:
            raise ShardLost(shard, answer.get("error", "its process ended while it started"))
        return str(answer["address"])


def _spawn() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "zenray.experts.shard_process"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Also a stopped one. Whoever waits for its first line sees it end."""
    process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
