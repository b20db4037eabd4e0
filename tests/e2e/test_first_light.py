"""What a newcomer does: start the server, get a completion, press Ctrl-C, and find nothing left running."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from zenray import config

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
MARKER = "ZENRAY_E2E_MARKER"


class Server:
    """`zenray serve` as a process of its own session; `marker` is in the environment of all it starts."""

    def __init__(self, home: Path, *args: str) -> None:
        self.marker = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zenray.cli.main", "serve", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**os.environ, MARKER: self.marker, "ZENRAY_HOME": str(home), "COLUMNS": "80"},
        )
        self.out, self.err = _Lines(self.process.stdout), _Lines(self.process.stderr)

    def left(self) -> list[psutil.Process]:
        """Processes that carry the marker, whoever their parent is by now, and those of the session."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARKER) == self.marker or os.getsid(process.pid) == self.process.pid:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [process for process in found if process.pid != self.process.pid]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_S)

    def clean_up(self) -> None:
        for process in [*self.left(), self.process]:
            try:
                process.kill()
            except psutil.Error:
                continue
        self.process.wait(10)
        self.out.close()
        self.err.close()


class _Lines:
    """The lines of a pipe, read as they come, so that nobody blocks on a full one."""

    def __init__(self, stream: object) -> None:
        self._stream, self._lines = stream, []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._stream:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, timeout_s: float) -> re.Match[str] | None:
        """The first match, or None when the pipe ends or the time is up."""

        def first() -> re.Match[str] | None:
            return next((match for line in self._lines if (match := re.search(pattern, line))), None)

        with self._changed:
            self._changed.wait_for(lambda: first() is not None or self._ended, timeout_s)
            return first()

    @property
    def text(self) -> str:
        with self._changed:
            return "\n".join(self._lines)

    def close(self) -> None:
        self._thread.join(10)
        self._stream.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def start_in() -> Iterator[object]:
    """`start_in(home, arguments…)` runs `zenray serve`; what is left of it is ended after the test."""
    servers: list[Server] = []

    def begin(home: Path, *args: str) -> Server:
        servers.append(Server(home, *args))
        return servers[-1]

    yield begin
    for server in servers:
        server.clean_up()


@pytest.fixture
def start(start_in: object, home: Path) -> object:
    return lambda *args: start_in(home, *args)


def zenray(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zenray.cli.main", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def get(url: str) -> object:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=20) as response:
        body = response.read().decode()
    return json.loads(body) if body.startswith(("{", "[")) else body


def test_from_serve_to_a_completion_and_back_to_nothing(start: object, home: Path) -> None:
    server = start("--profile", "tiny", "--set", "server.grpc_port=0", "--set", "server.http_port=0")
    ready = server.out.wait_for(r"zenray is ready: preset:tiny, gRPC (\S+), HTTP (\S+)", START_TIMEOUT_S)
    assert ready, server.err.text
    address, url = ready[1], ready[2]

    # The line that is there to be pasted is pasted.
    pasted = server.out.wait_for(r"^ *complete +\S+ (complete .+)$", 10)
    assert pasted, server.out.text
    done = zenray(*shlex.split(pasted[1]))
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert re.search(r"TTFT \d+ ms", done.stderr)

    events = [
        json.loads(line)
        for line in zenray("complete", "--prompt", "x = ", "--json", "--address", address).stdout.splitlines()
    ]
    assert [events[0]["event"], events[-1]["event"]] == ["started", "final"]
    assert "".join(event["text"] for event in events if event["event"] == "delta") == events[-1]["text"]

    refused = zenray("complete", "--prompt", "x", "--temperature", "11", "--address", address)
    assert refused.returncode == 1
    assert "temperature" in refused.stderr
    assert "Traceback" not in refused.stderr

    status = json.loads(zenray("status", "--json", "--address", address).stdout)
    assert status["model"]["name"] == "preset:tiny"
    assert status["load"]["running_sequences"] == 0
    assert get(f"{url}/v1/models")["data"][0]["id"] == "preset:tiny"
    assert "zenray" in get(f"{url}/metrics")

    assert server.left(), "the marker finds the processes of a running server"
    assert server.stop() == 0
    _, alive = psutil.wait_procs(server.left(), timeout=10)
    assert alive == []
    assert "Traceback" not in server.err.text
    assert "no process is left" in server.err.text


@pytest.mark.real_model
def test_a_real_model_completes_real_code(start_in: object, real_model_05b: Path) -> None:
    """The home the model was pulled into, so that its conversion is kept for the next run."""
    ports = ["--set", "server.grpc_port=0", "--set", "server.http_port=0"]
    server = start_in(config.home(), "--set", "model.name=qwen2.5-coder-0.5b", *ports)
    assert server.out.wait_for("zenray is ready: qwen2.5-coder-0.5b", START_TIMEOUT_S), server.err.text
    pasted = server.out.wait_for(r"^ *complete +\S+ (complete .+)$", 10)
    assert pasted, server.out.text
    done = zenray(*shlex.split(pasted[1]), "--max-tokens", "24", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    # The line is `return math.` in a function that computes a distance.
    assert re.match(r"(sqrt|hypot|dist)\(", done.stdout), done.stdout
    assert server.stop() == 0


def test_ctrl_c_while_starting_leaves_nothing(start: object) -> None:
    server = start("--profile", "tiny", "--set", "server.grpc_port=0", "--set", "server.http_port=0")
    assert server.err.wait_for("start", START_TIMEOUT_S)
    assert server.stop() == 130
    _, alive = psutil.wait_procs(server.left(), timeout=10)
    assert alive == []
    assert "Traceback" not in server.err.text


def test_a_taken_port_is_said_before_anything_starts(start: object) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = start("--profile", "tiny", "--set", f"server.grpc_port={port}")
        assert server.process.wait(60) == 1
    assert server.err.wait_for(rf"server\.grpc_port: cannot listen on 127\.0\.0\.1:{port}", 10)
    assert server.left() == []


def test_a_broken_model_file_is_refused_before_anything_starts(start: object, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    ports = ["--set", "server.grpc_port=0", "--set", "server.http_port=0"]
    server = start("--profile", "tiny", "--set", f"model.name={broken}", *ports)
    assert server.process.wait(60) == 1
    assert server.err.wait_for(r"error: .*broken\.gguf: damaged or truncated", 10), server.err.text
    assert server.left() == []
