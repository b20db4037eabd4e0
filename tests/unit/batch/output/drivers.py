"""Drivers that are real processes. Run as a module this is their farm: each line of standard input is an attempt, made
by a forked process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.unit.batch.output.small_job import NUM_SHARDS, SteppedDisk, run_job, table
from zenray.batch.output.shard import encode_shard


class KillingDisk(SteppedDisk):
    """kill -9 before a step; with `tear`, half of what a write would have written is there."""

    def __init__(self, kill_at: int, tear: bool) -> None:
        super().__init__()
        self._kill_at, self._tear = kill_at, tear

    def before(self, step: int, name: str, *arguments: object) -> None:
        if step != self._kill_at:
            return
        if self._tear and name == "write":
            descriptor, data = arguments
            assert isinstance(descriptor, int) and isinstance(data, bytes | memoryview)
            os.write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Attempt:
    """One driver's run. `kill_at` counts its steps; past the last one it runs to its end."""

    output: str
    order: tuple[int, ...] = tuple(range(NUM_SHARDS))
    kill_at: int = 10**6
    tear: bool = False
    largest_file_bytes: int = -1


class DriverFarm:
    """Real processes that cost a fork each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.batch.output.drivers"],
            cwd=Path(__file__).parents[4],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, attempt: Attempt) -> tuple[int, str]:
        """The exit status (negative for a signal) and the error's name."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(attempt)) + "\n")
        status, name = json.loads(self._process.stdout.readline())
        return int(status), str(name)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> None:
    encode_shard(table(0), "", 0, 0)  # What pyarrow loads at first use is loaded once for all attempts.
    for line in sys.stdin:
        attempt = Attempt(**json.loads(line))
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            os.write(write_end, _drive(attempt).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            name = pipe.read()
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), name]), flush=True)


def _drive(attempt: Attempt) -> str:
    if attempt.largest_file_bytes >= 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (attempt.largest_file_bytes, attempt.largest_file_bytes))
    try:
        run_job(Path(attempt.output), attempt.order, KillingDisk(attempt.kill_at, attempt.tear))
    except Exception as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    _serve()
