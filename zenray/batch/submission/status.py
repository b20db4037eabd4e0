"""What an output folder tells of its job to whoever may read it: no lease taken, nothing changed, Ray not asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from zenray.batch.output.layout import DRIVER, JOB, LEASE, RUNS
from zenray.batch.output.lease import SILENCE_S, Holder, read_holder
from zenray.batch.output.manifest import Contents, load_contents
from zenray.batch.running.progress import Progress, RunState
from zenray.batch.running.progress_view import PROGRESS_FILE
from zenray.errors import ConfigError, OutputDamaged

RUN_LOG = "log.txt"
"""What a driver without a terminal said, in the run's folder or, before there is one, in the folder of runs."""


@dataclass(frozen=True, slots=True)
class OutputStatus:
    """An output and its latest run. `spec` is job.json, empty before a run has planned its rows; `contents` are the
    finished shards. `writer` is the living driver; of one on another machine its beat tells."""

    path: Path
    spec: dict[str, Any]
    contents: Contents | None
    progress: Progress | None
    run: Path | None
    writer: Holder | None
    problem: str = ""

    @property
    def state(self) -> str:
        """A run that says it goes on and has no writer was killed."""
        is_whole = self.writer is None and self.contents is not None and self.contents.complete
        if is_whole and not self._ended_behind_last_shard:
            return RunState.COMPLETE.value
        if self.progress is None:
            return RunState.PREPARING.value if self.writer else "not begun"
        going_on = self.progress.state in (RunState.PREPARING, RunState.RUNNING, RunState.FINISHING)
        if going_on and self.writer is None:
            return "killed"
        return self.progress.state.value

    @property
    def _ended_behind_last_shard(self) -> bool:
        """The latest run finished every shard and not what is derived from them."""
        run = self.progress
        return run is not None and 0 < run.num_shards == run.shards_done and run.state is not RunState.COMPLETE

    @property
    def started_at_s(self) -> float:
        """When the latest run began, in Unix seconds; 0 where nothing tells."""
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(self.progress.started_at).timestamp() if self.progress else 0.0
        return 0.0


def read_status(output: Path) -> OutputStatus:
    """Raises ConfigError for a folder that is no output."""
    if not (output / JOB).exists() and not (output / RUNS).is_dir():
        what = "has no job in it" if output.is_dir() else "does not exist"
        raise ConfigError(f"{output} {what}; an output folder is what a job was given as --output")
    problem, contents = "", None
    try:
        contents = load_contents(output)
    except OutputDamaged as error:
        problem = str(error)
    run, progress = _latest_run(output / RUNS)
    holder = read_holder(output / LEASE)
    writer = holder if holder is not None and _lives(holder, output / LEASE) else None
    noted = read_holder(output / DRIVER)
    if writer is None and noted is not None and noted.pid != os.getpid() and _lives(noted, output / DRIVER):
        writer = noted
        if progress is not None and progress.started_at < noted.started_at:  # An earlier run's.
            run, progress = None, None
    return OutputStatus(output, _json(output / JOB), contents, progress, run, writer, problem)


def note_driver(output: Path, pid: int) -> None:
    """Remember a driver in the background, which takes the lease only when it has planned its rows. Raises OSError."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = Holder(socket.gethostname(), pid, now, job_sha256="", place="", nonce="")
    (output / DRIVER).write_text(json.dumps(asdict(holder)) + "\n")


def log_of(status: OutputStatus) -> Path | None:
    """The latest log of a driver that had no terminal."""
    candidates = [] if status.run is None else [status.run / RUN_LOG]
    return next((path for path in (*candidates, status.path / RUNS / RUN_LOG) if path.exists()), None)


def stop_writer(status: OutputStatus) -> Holder | None:
    """Ask the driver that writes an output to end; None where nobody writes it. Raises ConfigError for one on another
    machine."""
    writer = status.writer
    if writer is None:
        return None
    if writer.host != socket.gethostname():
        raise ConfigError(f"{status.path} is written by process {writer.pid} on {writer.host}; cancel the job there")
    with contextlib.suppress(ProcessLookupError):
        os.kill(writer.pid, signal.SIGTERM)
    return writer


def _lives(holder: Holder, lease: Path) -> bool:
    """Whether the holder still writes. The lock would tell for certain, but trying it could cost a driver its own."""
    if holder.host != socket.gethostname():
        return time.time() - lease.stat().st_mtime < SILENCE_S
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(holder.pid)
        began = datetime.fromisoformat(holder.started_at).timestamp()
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= began + 1
    return False


def _latest_run(runs: Path) -> tuple[Path | None, Progress | None]:
    found = sorted(runs.glob(f"*/{PROGRESS_FILE}"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        fields = _json(path)
        with contextlib.suppress(KeyError, TypeError, ValueError):
            return path.parent, Progress(**{**fields, "state": RunState(fields["state"])})
    return None, None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
