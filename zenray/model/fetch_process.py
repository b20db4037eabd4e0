"""Run `fetch_child.py` and watch it: bytes arriving, silence, its reason when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_POLL_S = 0.1
_CHILD = Path(__file__).with_name("fetch_child.py")


class FetchFailed(Exception):
    """One source did not deliver; `str(error)` is one plain line. The next source is tried."""


def run_fetch(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    measure: Callable[[], int],
    on_bytes: Callable[[int], None],
    stall_s: float,
    first_sign_s: float | None = None,
) -> None:
    """Run the child to its end.

    `measure` tells the bytes on disk so far; `stall_s` without growth stops the child. `first_sign_s`
    bounds the wait for its first output. An exception in a callback stops it too.

    Raises FetchFailed with the child's last line, or saying what it was waited for in vain.
    """
    # -P keeps this folder off the child's import path; its modules would shadow the standard library's.
    command = [sys.executable, "-P", str(_CHILD), str(os.getpid()), *arguments]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _watch(process, output, measure, on_bytes, stall_s, first_sign_s)
        finally:
            _end(process)
        if process.returncode != 0:
            raise FetchFailed(_reason(_text(output)))


def _watch(
    process: subprocess.Popen[bytes],
    output: IO[bytes],
    measure: Callable[[], int],
    on_bytes: Callable[[int], None],
    stall_s: float,
    first_sign_s: float | None,
) -> None:
    started = grown_at = time.monotonic()
    largest = 0
    running = True
    while running:
        try:
            process.wait(_POLL_S)
            running = False
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        size = measure()
        if size > largest:
            largest, grown_at = size, now
            on_bytes(size)
        if running and first_sign_s is not None and now - started > first_sign_s and not _text(output):
            raise FetchFailed(f"no answer within {first_sign_s:g} s")
        if running and now - grown_at > stall_s:
            raise FetchFailed(f"nothing arrived for {stall_s:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _text(output: IO[bytes]) -> str:
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), size, 0).decode("utf-8", "replace")


def _reason(text: str) -> str:
    """pip's last ERROR line, or the last line there is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    last = (errors or lines or ["it gave no reason"])[-1]
    return last if len(last) <= 300 else f"{last[:297]}..."
