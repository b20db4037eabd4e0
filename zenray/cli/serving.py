"""What `zenray serve` does: prepare the model, run the platform in the foreground, leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.text import Text

from zenray.cli.console import facts, megabytes, stderr, stdout
from zenray.cli.phases import phase
from zenray.cli.progress import hashing, pull_with_progress
from zenray.config import WeightFormat, ZenrayConfig, home
from zenray.errors import ConfigError

_EXAMPLE = '''\
"""Try zenray on this file: the cursor of the printed command stands in the empty line below."""


def is_prime(number: int) -> bool:
    """Whether `number` is at least 2 and divisible by 1 and itself only."""
    


print([number for number in range(50) if is_prime(number)])
'''
_EXAMPLE_PLACE = "6:5"
_LEFTOVER_TIMEOUT_S = 5.0


def run_server(config: ZenrayConfig) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ZenrayError when it cannot start."""
    check_ports(config)
    with _stoppable() as stop:
        prepare_model(config.model.name, config.model.weight_format)
        if config.draft.model is not None and config.draft.num_replicas > 0:
            prepare_model(config.draft.model, config.draft.weight_format)
        from zenray.serving import app

        with phase("start", "Ray") as running:
            platform = app.start(config, lambda what: setattr(running, "detail", what))
        try:
            _say_ready(config)
            stop.wait()
        finally:
            with phase("stop", "finishing running requests; Ctrl-C again ends them at once"):
                platform.stop()


def check_ports(config: ZenrayConfig) -> None:
    """Before minutes of loading: are the ports free? Raises ConfigError naming the key to change."""
    for key in ("grpc_port", "http_port"):
        port = getattr(config.server, key)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((config.server.host, port))
            except OSError as error:
                raise ConfigError(
                    f"server.{key}: cannot listen on {config.server.host}:{port} ({error.strerror}); "
                    f"is one running: zenray status, or take another: zenray serve --set server.{key}={port + 100}"
                ) from error


def prepare_model(name: str, weight_format: WeightFormat) -> None:
    """Fetch, check and convert a model, each only if it has to be."""
    from zenray.cli.converting import convert, is_converted
    from zenray.model.catalog import Catalog, is_preset

    if is_preset(name):
        return
    catalog = Catalog.load()
    entry = catalog.entries.get(name)
    with phase("model", name) as running:
        if entry is not None and not entry.path.exists() and entry.sources:
            pull_with_progress(name)
        with hashing(name) as progress:
            found = catalog.locate(name, progress)
        running.detail = f"{name}, {megabytes(found.size_bytes)}, SHA-256 verified"
    if is_converted(found.sha256, weight_format):
        return
    with phase("convert", f"to {weight_format} (once)") as running:

        def report(done: int, total: int, what: str) -> None:
            running.detail = f"{what}: {done / max(total, 1):.0%}"

        convert(found.path, weight_format, report)
        running.detail = f"to {weight_format} (once)"


def command_name() -> str:
    """How to call zenray from this folder: the bare name when the PATH finds it, else the path of this one."""
    called = Path(sys.argv[0])
    if called.name != "zenray":
        return "zenray"
    found = shutil.which("zenray")
    if found is not None and Path(found).resolve() == called.resolve():
        return "zenray"
    relative = os.path.relpath(called)
    return relative if len(relative) < len(str(called)) else str(called)


def _say_ready(config: ZenrayConfig) -> None:
    example = home() / "example.py"
    example.write_text(_EXAMPLE, encoding="utf-8")
    grpc_address, http_address = (
        f"{config.server.host}:{port}" for port in (config.server.grpc_port, config.server.http_port)
    )
    where = (
        "" if config.server.grpc_port == 9000 and config.server.host == "127.0.0.1" else f" --address {grpc_address}"
    )
    place = _short(example)
    body = '{"prompt": "def fibonacci(n):", "max_tokens": 48}'
    console = stdout()
    console.print(
        Text.assemble(("zenray is ready", "good"), f": {config.model.name}, gRPC {grpc_address}, HTTP {http_address}")
    )
    rows = facts()
    rows.add_row("  complete", f"{command_name()} complete {place}:{_EXAMPLE_PLACE} --stats{where}")
    rows.add_row("  curl", f"curl http://{http_address}/v1/completions -H 'content-type: application/json' -d '{body}'")
    rows.add_row("  status", f"{command_name()} status --watch{where}")
    rows.add_row("  metrics", f"http://{http_address}/metrics")
    rows.add_row("  stop", "Ctrl-C")
    console.print(rows)
    console.file.flush()


def _short(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """The first SIGINT or SIGTERM ends the wait (or the start), the second ends every process at once."""
    stop = threading.Event()
    asked = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            _end_everything()
        stop.set()

    _adopt_orphans()
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
        _end_leftovers()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _adopt_orphans() -> None:
    """On Linux, descendants whose parent dies become our children instead of init's, so none is lost from sight."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _end_leftovers() -> None:
    import psutil

    children = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=_LEFTOVER_TIMEOUT_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=_LEFTOVER_TIMEOUT_S)


def _end_everything() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        process.kill()
    stderr().print(Text("stopped at once", "warn"))
    os._exit(130)
