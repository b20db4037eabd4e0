"""Ends Ray's processes when the process that started them dies without doing so.

The kernel ends the processes ray.init starts with their parent, and workers end with their raylet, but the
raylet's two agents first try for a minute to reach a control store that is gone. The guard is a child of its
own session that imports the standard library only. It learns what to end from its standard input: closed
without a farewell, it ends what it knows. Before the list arrives it looks for itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable

FAREWELL = "done"
_POLL_S = 0.2

Known = dict[int, str]
"""Process ids and when each began, in the kernel's ticks: an id may be given to another process."""


class Guard:
    """The guard, as its parent sees it. Does nothing where there is no /proc."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        if os.path.isdir("/proc/self"):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def watch(self, pids: Iterable[int]) -> None:
        """From now on these are to be ended, instead of whatever the guard finds."""
        self._say(" ".join(map(str, pids)))

    def dismiss(self) -> None:
        """Everything has ended in order."""
        self._say(FAREWELL)
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _say(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(line + "\n")
                self._process.stdin.flush()


def began(pid: int) -> str | None:
    """When a process began; None for one that has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def descendants(root: int) -> Known:
    """The living processes below `root`, without this one."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    below = {root}
    grown = True
    while grown:
        new = {pid for pid, parent in parents.items() if parent in below} - below
        below |= new
        grown = bool(new)
    return {pid: start for pid in below - {root, os.getpid()} if (start := began(pid)) is not None}


def main() -> None:
    parent = os.getppid()
    known: Known = {}
    told = False
    buffer = ""
    while True:
        ready, _, _ = select.select([0], [], [], None if told else _POLL_S)
        if not ready:
            if os.getppid() == parent:
                known |= descendants(parent)
            continue
        data = os.read(0, 65536).decode()
        if not data:
            break
        buffer += data
        *lines, buffer = buffer.split("\n")
        for line in lines:
            if line == FAREWELL:
                return
            told = True
            known = {int(pid): start for pid in line.split() if (start := began(int(pid))) is not None}
    for pid, start in known.items():
        if began(pid) == start:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
