"""What `zenray serve` does: prepare the model, run the platform in the foreground, leave nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.text import Text

from zenray.cli.console import megabytes, stderr, stdout
from zenray.cli.phases import finished, phase
from zenray.cli.progress import hashing, pull_with_progress
from zenray.config import WeightFormat, ZenrayConfig, home

if TYPE_CHECKING:
    from zenray.serving.app import Platform

_EXAMPLE = """\
# Try zenray on this file: the command it printed completes the line that ends in `math.`
import math


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    \"\"\"The straight-line distance between two points.\"\"\"
    return math.


print(distance((0, 0), (3, 4)))
"""
_EXAMPLE_PLACE = "7:17"
_DEFAULT_ADDRESS = "127.0.0.1:9000"
_LEFTOVER_TIMEOUT_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


def run_server(config: ZenrayConfig, ray_address: str | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises ZenrayError when it cannot start, KeyboardInterrupt when stopped before."""
    with _Stopping() as stopping:
        if ray_address is None:
            from zenray.serving.preflight import check_ports

            check_ports(config.server)  # before minutes of fetching, rather than after
            prepare_models(config)
        with _running(config, ray_address, stopping) as platform:
            _say_ready(platform)
            stopping.requested.wait()


@contextmanager
def _running(config: ZenrayConfig, ray_address: str | None, stopping: _Stopping) -> Iterator[Platform]:
    """The platform while the block runs; each way out of it takes the platform down."""
    from zenray.serving import app

    stopping.interrupt = False  # from here on a stop is asked for, and everything is taken down in order
    with phase("start", "Ray") as running:
        try:
            platform = app.start(
                config,
                lambda what: setattr(running, "detail", what),
                address=ray_address,
                should_stop=stopping.requested.is_set,
            )
        except app.Interrupted:
            _end_leftovers()
            running.detail = "stopped before it was ready; no process is left"
            raise KeyboardInterrupt from None
        running.detail = "Ray, Ray Serve and the model"
    try:
        yield platform
    finally:
        try:
            stderr().print()
            with phase("stop", "ending running requests; Ctrl-C again ends everything at once") as running:
                platform.stop()
                _end_leftovers()
                running.detail = "no process is left"
        except OSError:  # the terminal is gone: nobody to tell, everything to stop
            platform.stop()


def prepare_models(config: ZenrayConfig) -> None:
    """What the configuration serves: see `prepare_model`."""
    prepare_model(config.model.name, config.model.weight_format)
    if config.draft.model is not None and {"draft_model", "draft_pool"} & set(config.speculation.drafters):
        prepare_model(config.draft.model, config.draft.weight_format)


def prepare_model(name: str, weight_format: WeightFormat) -> None:
    """Fetch, check and convert a model, each only if it has to be."""
    from zenray.cli.converting import convert, is_converted
    from zenray.model.catalog import Catalog, is_preset

    if is_preset(name):
        return
    catalog = Catalog.load()
    entry = catalog.entries.get(name)
    if entry is not None and not entry.path.exists() and entry.sources:
        pull_with_progress(name)
        catalog = Catalog.load()  # a model that was made is recorded there
    with hashing(name) as progress:
        found = catalog.locate(name, progress)
    finished("model", f"{name}, {megabytes(found.size_bytes)}, SHA-256 verified")
    if is_converted(found.sha256, weight_format):
        return
    with phase("convert", f"converting to {weight_format}") as running:

        def report(done: int, total: int, what: str) -> None:
            running.detail, running.share = what, done / max(total, 1)

        convert(found.path, weight_format, report)
        running.detail = f"to {weight_format} (once)"


def command_name() -> str:
    """How to call zenray from any terminal: by name, or by path where it lives in a virtual environment."""
    called = Path(sys.argv[0])
    if called.name != "zenray" or sys.prefix == sys.base_prefix:
        return "zenray"
    return _pasteable(called.absolute())


def _say_ready(platform: Platform) -> None:
    zenray, address = command_name(), platform.grpc_address
    where = "" if address == _DEFAULT_ADDRESS else f" --address {address}"
    body = '{"prompt": "def fibonacci(n):", "max_tokens": 48}'
    lines = {
        "complete": f"{zenray} complete {_example_place()} --stats{where}",
        "curl": f"curl {platform.http_url}/v1/completions -H 'content-type: application/json' -d '{body}'",
        "status": f"{zenray} status --watch{where}",
        "metrics": f"{platform.http_url}/metrics",
        "jobs": f"{zenray} jobs submit --help",
        "stop": "Ctrl-C",
    }
    console = stdout()
    title = f"zenray is ready: {platform.config.model.name}, gRPC {address}, HTTP {platform.http_url}"
    console.print(Text(f"\n{title}", "good"))
    for name, line in lines.items():  # never wrapped: they are there to be pasted
        console.print(Text.assemble((f"  {name.ljust(9)}", "quiet"), line))
    console.file.flush()


def _example_place() -> str:
    """Arguments of a `zenray complete` that shows something: a place in an example file, or a prompt."""
    example = home() / "example.py"
    try:
        example.parent.mkdir(parents=True, exist_ok=True)
        example.write_text(_EXAMPLE, encoding="utf-8")
    except OSError:  # a read-only home serves too
        return "--prompt 'def fibonacci(n):'"
    return f"{_pasteable(example.absolute())}:{_EXAMPLE_PLACE}"


def _pasteable(path: Path) -> str:
    """As a word of a shell command, short where the shell can make it whole again."""
    plain = str(path)
    if shlex.quote(plain) == plain and path.is_relative_to(Path.home()):
        return f"~/{path.relative_to(Path.home())}"
    return shlex.quote(plain)


class _Stopping:
    """The first SIGINT, SIGTERM or SIGHUP asks for the end, the second ends every process at once.

    `interrupt` says whether the first one also raises KeyboardInterrupt where the work stands.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.interrupt = True

    def __enter__(self) -> _Stopping:
        _adopt_orphans()
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        _end_leftovers()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested.is_set():
            _end_everything()
        self.requested.set()
        if self.interrupt:
            raise KeyboardInterrupt


def _adopt_orphans() -> None:
    """On Linux, descendants whose parent dies become our children instead of init's, so none is lost from sight."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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
