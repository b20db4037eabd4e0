"""A small platform for tests: the tiny model on real Ray, and what tests ask of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psutil

from zenray.api.client import Client
from zenray.config_load import load_config
from zenray.serving.app import APP_NAME, Platform, start
from zenray.v1 import completion_pb2

T = TypeVar("T")

WAIT_S = 60.0
"""How long a test waits for something that must happen. Not a measure of how long it takes."""


@contextlib.contextmanager
def tiny_platform(*overrides: str) -> Iterator[Platform]:
    """The `tiny` profile on free ports and without a dashboard, taken down at the end."""
    ports = ("server.grpc_port=0", "server.http_port=0", "server.dashboard_port=null")
    config = load_config("tiny", None, [*ports, *overrides])
    with start(config) as platform:
        yield platform


def eventually(condition: Callable[[], T], what: str, timeout_s: float = WAIT_S) -> T:
    """The first truthy value of `condition`, asked again and again. Raises AssertionError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not after {timeout_s:g} s: {what}")
        time.sleep(0.02)


def is_idle(client: Client, num_verifiers: int = 1) -> bool:
    """Every verifier answers, runs nothing, and all its blocks are free or in the prefix cache."""
    answer = client.load()
    load = answer.load
    return (
        answer.verifier_replicas == num_verifiers
        and load.running_sequences == load.waiting_sequences == 0
        and load.free_blocks + load.cached_blocks == load.total_blocks > 0
    )


def request(prompt: str = "def f(", max_tokens: int = 16, **fields: Any) -> completion_pb2.CompleteRequest:
    """A completion that runs to max_tokens."""
    message = completion_pb2.CompleteRequest(prompt=prompt, **fields)
    message.limits.max_tokens = max_tokens
    message.limits.ignore_eos = True
    return message


def replica_processes(deployment: str) -> list[psutil.Process]:
    """The running replicas of a deployment on the Ray this process started."""
    return _processes(f"ray::ServeReplica:{APP_NAME}:{deployment}")


def shard_processes() -> list[psutil.Process]:
    """The running expert shards on the Ray this process started, of all verifiers."""
    return _processes("ray::ExpertShardActor")


def _processes(title: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and "".join(process.cmdline()).startswith(title):
                found.append(process)
    return found
