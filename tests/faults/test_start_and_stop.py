"""Whatever ends the process that serves, nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from itertools import islice

import psutil
import pytest

from zenray.api.client import Client
from zenray.config_load import load_config
from zenray.errors import ConfigError, Unavailable, ZenrayError
from zenray.serving.app import Interrupted, start
from zenray.serving.harness import eventually, request, tiny_platform

SERVE = """
import sys
from zenray.config_load import load_config
from zenray.serving.app import run

overrides = ["server.grpc_port=0", "server.http_port=0", "server.dashboard_port=0", "draft.num_replicas=0"]
say = lambda what: print(what, flush=True)
try:
    run(load_config("tiny", None, overrides), lambda platform: say("ready"), say)
except KeyboardInterrupt:
    sys.exit(130)
"""


def family(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    living = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process)
    return living


@pytest.mark.parametrize(
    ("stage", "end"),
    [("Ray Serve", signal.SIGINT), ("starting", signal.SIGKILL), ("ready", signal.SIGINT), ("ready", signal.SIGKILL)],
)
def test_no_process_stays(stage: str, end: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as served:
        assert served.stdout is not None
        for line in served.stdout:
            if line.startswith(stage):
                break
        processes = family(psutil.Process(served.pid))
        assert len(processes) > 3
        served.send_signal(end)
        try:
            served.communicate(timeout=60)
        finally:
            served.kill()  # One that has not ended would be waited for without end.
        eventually(lambda: not alive(processes), "every process has ended")
        assert served.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)


def test_stop_lets_a_running_stream_finish_and_ends_every_process() -> None:
    with (
        tiny_platform("draft.num_replicas=0", "server.drain_timeout_s=20") as platform,
        Client(platform.grpc_address) as client,
    ):
        processes = psutil.Process().children(recursive=True)
        stream = client.complete(request(max_tokens=400))
        head = list(islice(stream, 3))
        stopping = threading.Thread(target=platform.stop)
        stopping.start()
        events = [*head, *stream]
        assert events[-1].final.usage.completion_tokens == 400
        stopping.join()
        assert not alive(processes)


def test_a_start_that_is_interrupted_or_fails_leaves_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"server\.grpc_port"):
            start(load_config("tiny", None, [f"server.grpc_port={port}"]))
    with pytest.raises(Unavailable, match="no Ray cluster"):
        start(load_config("tiny", None, ["server.grpc_port=0", "server.http_port=0"]), address="127.0.0.1:1")
    with pytest.raises(Interrupted):
        start(
            load_config("tiny", None, ["server.grpc_port=0", "server.http_port=0"]),
            should_stop=lambda: True,
        )
    assert not [each for each in psutil.Process().children(recursive=True) if "ray" in "".join(each.cmdline())]
    assert issubclass(Interrupted, ZenrayError)
