"""The jail's walls: the command that puts a Python behind all of them, and the pipes through them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zenray.batch.sandbox.bootstrap import REPORT_FD
from zenray.batch.sandbox.model import SandboxUnavailable
from zenray.batch.sandbox.runtime import Interpreter

PACKAGES = "/runtime/packages"
_SCRATCH = "/scratch"
_PACKAGE_OF_TOOL = {"bwrap": "bubblewrap", "setpriv": "util-linux", "unshare": "util-linux", "sh": "dash"}
_SHARED_MEMORY_BYTES = 2**20  # Enough for the semaphores of multiprocessing.
_USER = "1000"
"""Who code in the jail takes itself for, whichever worker's user it is."""
_JOIN_AND_GO_ON = 'echo 0 > "$1"/cgroup.procs && shift && exec "$@"'


@dataclass(frozen=True, slots=True)
class Pipes:
    """Our ends, or theirs. `status` is where the bootstrap says how far it is, `report` where the entry reports, `exit`
    where bwrap says what came of it; `seccomp` holds the filter for bwrap to read, on their side."""

    stdin: int
    stdout: int
    stderr: int
    status: int
    report: int
    exit: int
    seccomp: int = -1

    @staticmethod
    def open(seccomp_program: bytes) -> tuple[Pipes, Pipes]:
        """Ours, which never block, and theirs."""
        ours, theirs = [], []
        try:
            for is_stdin in (True, False, False, False, False, False):
                reader, writer = os.pipe()
                ours.append(writer if is_stdin else reader)
                theirs.append(reader if is_stdin else writer)
                os.set_blocking(ours[-1], False)
            theirs.append(os.memfd_create("seccomp"))
            os.write(theirs[-1], seccomp_program)
            os.lseek(theirs[-1], 0, os.SEEK_SET)
        except OSError:
            for descriptor in (*ours, *theirs):
                os.close(descriptor)
            raise
        return Pipes(*ours), Pipes(*theirs)

    @property
    def inherited(self) -> tuple[int, ...]:
        """Those that are no standard stream."""
        return self.status, self.report, self.exit, self.seccomp

    def close(self) -> None:
        for descriptor in (self.stdin, self.stdout, self.stderr, *self.inherited):
            if descriptor >= 0:
                os.close(descriptor)


@cache
def tool(name: str) -> str:
    """Where `name` is. Raises SandboxUnavailable."""
    path = shutil.which(name)
    if path is None:
        raise SandboxUnavailable(f"{name} is not installed: apt-get install {_PACKAGE_OF_TOOL[name]}, or its like")
    return path


def jail_command(
    interpreter: Interpreter,
    runtime: Path,
    pipes: Pipes,
    *,
    uid: int | None,
    group: Path | None,
    scratch_mib: int,
    hash_seed: int,
) -> list[str]:
    """Joins the control group, steps down to `uid` (None: stays who we are), and starts the bootstrap behind bwrap.

    bwrap leaves the jail's first process to whoever adopts it, which in many containers is nobody. So it becomes the
    first process of a namespace itself: at its end the kernel ends and buries all that were in it.
    """
    join = [tool("sh"), "-c", _JOIN_AND_GO_ON, "sh", str(group)] if group else []
    user = [] if uid is not None else ["--user", "--map-current-user"]
    identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid is not None else []
    return [
        *join,
        tool("setpriv"), "--pdeathsig", "KILL", tool("unshare"), *user, "--pid", "--fork", "--kill-child", "--",
        tool("setpriv"), *identity, "--no-new-privs", "--",
        tool("bwrap"),
        "--unshare-all", "--unshare-user", "--uid", _USER, "--gid", _USER, "--disable-userns",
        "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--seccomp", str(pipes.seccomp), "--json-status-fd", str(pipes.exit),
        *_read_only_system(interpreter.prefix),
        "--ro-bind", str(runtime), "/runtime", "--proc", "/proc", "--dev", "/dev",
        "--size", str(_SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",  # noqa: S108
        "--size", str(scratch_mib * 2**20), "--tmpfs", _SCRATCH, "--symlink", "scratch", "/tmp",  # noqa: S108
        "--remount-ro", "/", "--chdir", _SCRATCH, "--hostname", "sandbox",
        "--clearenv", *_environment(interpreter, hash_seed),
        "--", interpreter.executable, "-S", "-s", "-P", "-B",
        "/runtime/bootstrap.py", str(pipes.status), str(pipes.report),
    ]  # fmt: skip


def _read_only_system(prefix: str) -> list[str]:
    """/usr with what old paths call it, and the interpreter's library where that is elsewhere. No /etc, /home, /var."""
    mounts = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            mounts += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            mounts += ["--ro-bind", name, name]
    if not Path(prefix).is_relative_to("/usr"):
        mounts += ["--ro-bind", prefix, prefix]
    return mounts


def _environment(interpreter: Interpreter, hash_seed: int) -> list[str]:
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": _SCRATCH,
        "TMPDIR": _SCRATCH,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": str(hash_seed),
        "ZENRAY_REPORT_FD": str(REPORT_FD),
    }
    if interpreter.prefix != "/usr":  # Its library may be known to the system by a cache that is not in the jail.
        variables["LD_LIBRARY_PATH"] = f"{interpreter.prefix}/lib"
    return [part for name, value in variables.items() for part in ("--setenv", name, value)]
