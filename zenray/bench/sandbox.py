"""A jail for Python that a model wrote: bubblewrap in a fresh user, with limits. Without every layer nothing runs.

The layers are: an unprivileged user (`setpriv` drops from root), no capabilities and no new privileges, namespaces of
its own without a network, a read-only root that holds the system's /usr and an empty sized /tmp, an empty environment,
limits on memory, processor time, processes and file size (`prlimit`), and a wall-clock limit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

_NOBODY = 65534
_REACHED_THE_END, _RAISED, _NEVER_STARTED = 42, 43, 1
"""Exit statuses. A program that leaves early must not look like success, nor a jail that breaks like a program."""
_PYTHON = "/usr/bin/python3"
"""The system's own, because an interpreter in somebody's home cannot be reached by the unprivileged user."""

_PROBE = """
import os, resource, socket
def refused(act):
    try:
        act()
    except OSError:
        return True
    return False
assert os.getuid() != 0, "it runs as root"
assert os.listdir("/sys/class/net") == ["lo"] if os.path.exists("/sys/class/net") else True, "it sees a network"
assert refused(lambda: socket.create_connection(("192.0.2.1", 9), 1)), "it reaches a network"
assert refused(lambda: open("/usr/written", "w")) and refused(lambda: open("/written", "w")), "its root is writable"
assert refused(lambda: os.listdir("/home")) and refused(lambda: os.listdir("/root")), "it sees homes"
assert not any("CapEff" in line and int(line.split()[1], 16) for line in open("/proc/self/status")), "it is capable"
assert any(line.split() == ["NoNewPrivs:", "1"] for line in open("/proc/self/status")), "it may gain privileges"
for limit in ("AS", "CPU", "FSIZE", "NPROC"):
    assert resource.getrlimit(getattr(resource, "RLIMIT_" + limit))[1] != resource.RLIM_INFINITY, limit + " is open"
"""


class Verdict(Enum):
    """How a program ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"


class SandboxUnavailable(Exception):
    """A layer of the jail is missing here; says which."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """What a program may take before it is ended."""

    wall_s: float = 5.0
    cpu_s: int = 4
    memory_mib: int = 512
    file_mib: int = 8
    num_processes: int = 16


class Sandbox:
    """Runs programs of the standard library alone, each in a jail of its own. Thread-safe.

    Raises SandboxUnavailable when the jail cannot be built here or does not hold.
    """

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self._command = _command(limits or SandboxLimits())
        self._wall_s = (limits or SandboxLimits()).wall_s
        self._check()

    def _check(self) -> None:
        verdict, said = self._execute(_PROBE)
        if verdict is not Verdict.PASSED:
            raise SandboxUnavailable(f"the sandbox does not hold here: {said.strip()[-300:] or verdict.value}")

    def run(self, program: str) -> Verdict:
        """Whether `program` runs to its end. What it prints is thrown away. Raises SandboxUnavailable where the jail
        does not hold any more."""
        verdict, _ = self._execute(program)
        return verdict

    def _execute(self, program: str) -> tuple[Verdict, str]:
        # The program's own output goes nowhere, so it cannot fill our memory; the probe's reasons come on stderr.
        is_probe = program is _PROBE
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if is_probe else subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )
        try:
            _, said = process.communicate(_guarded(program).encode(), timeout=self._wall_s)
        except subprocess.TimeoutExpired:
            return Verdict.TIMED_OUT, ""
        finally:
            # bwrap dies with its whole process namespace, whatever the program started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode == _NEVER_STARTED and not is_probe:
            self._check()
        passed = process.returncode == _REACHED_THE_END
        return Verdict.PASSED if passed else Verdict.FAILED, (said or b"").decode(errors="replace")


def _guarded(program: str) -> str:
    """`program` with an end of its own, whatever it raises."""
    return (
        "import os, traceback\n"
        f"try: exec(compile({program!r}, 'program', 'exec'), {{'__name__': '__main__'}})\n"
        f"except BaseException: traceback.print_exc(); os._exit({_RAISED})\n"
        f"os._exit({_REACHED_THE_END})\n"
    )


@cache
def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SandboxUnavailable(f"{name} is not installed")
    return path


def _command(limits: SandboxLimits) -> list[str]:
    """The jail around a Python that reads its program from standard input."""
    if not Path(_PYTHON).exists():
        raise SandboxUnavailable(f"{_PYTHON} is not installed")
    mebibyte = 2**20
    limit = [
        _tool("prlimit"), f"--as={limits.memory_mib * mebibyte}", f"--cpu={limits.cpu_s}",
        f"--fsize={limits.file_mib * mebibyte}", "--nofile=64", "--core=0",
    ]  # fmt: skip
    # Processes are counted per user and user namespace, and freed from the count late: outside the jail those of
    # earlier programs would count too.
    inner_limit = [_tool("prlimit"), f"--nproc={limits.num_processes}"]
    # That limit does not bind root, so root steps down before anything else; others are down already.
    identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    jail = [
        _tool("bwrap"), "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--clearenv", "--ro-bind", "/usr", "/usr",
        "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/bin", "/bin",
        "--proc", "/proc", "--dev", "/dev", "--size", str(limits.file_mib * mebibyte), "--tmpfs", "/tmp",  # noqa: S108
        "--remount-ro", "/", "--chdir", "/tmp",  # noqa: S108
    ]  # fmt: skip
    return [*limit, _tool("setpriv"), *identity, "--no-new-privs", *jail, *inner_limit, _PYTHON, "-I", "-"]
