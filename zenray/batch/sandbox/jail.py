"""The jail's walls: the command that puts a Python behind all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from zenray.batch.sandbox.bootstrap import REPORT_FD
from zenray.batch.sandbox.model import SandboxUnavailable
from zenray.batch.sandbox.runtime import Interpreter

SCRATCH = "/scratch"
_RUNTIME = "/runtime"
PACKAGES = f"{_RUNTIME}/packages"
_PACKAGE_OF_TOOL = {"bwrap": "bubblewrap", "setpriv": "util-linux", "sh": "dash"}
_SHARED_MEMORY_BYTES = 2**20  # Enough for the semaphores of multiprocessing.
_JOIN_AND_GO_ON = 'while [ "$1" != -- ]; do echo 0 > "$1"/cgroup.procs || exit 1; shift; done; shift; exec "$@"'


@cache
def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        package = _PACKAGE_OF_TOOL[name]
        raise SandboxUnavailable(f"{name} is not installed: apt-get install {package}, or your system's like")
    return path


def jail_command(
    interpreter: Interpreter,
    runtime: Path,
    *,
    uid: int | None,
    groups: Sequence[Path],
    scratch_mib: int,
    hash_seed: int,
    seccomp_fd: int,
    info_fd: int,
    status_fd: int,
    report_fd: int,
) -> list[str]:
    """Joins the control groups, steps down to `uid` (None: stays who we are), and starts the bootstrap behind bwrap.

    The four descriptors are inherited: the filter, where bwrap tells the jail's first process, where the bootstrap
    tells how far it is, and where the entry reports.
    """
    join = [tool("sh"), "-c", _JOIN_AND_GO_ON, "sh", *map(str, groups), "--"] if groups else []
    identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid is not None else []
    python = [interpreter.executable, "-S", "-s", "-P", "-B", f"{_RUNTIME}/bootstrap.py"]
    return [
        *join,
        tool("setpriv"), *identity, "--no-new-privs", "--",
        tool("bwrap"),
        "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL", "--seccomp", str(seccomp_fd), "--info-fd", str(info_fd),
        *_read_only_system(interpreter.prefix),
        "--ro-bind", str(runtime), _RUNTIME,
        "--proc", "/proc", "--dev", "/dev",
        "--size", str(_SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",  # noqa: S108
        "--size", str(scratch_mib * 2**20), "--tmpfs", SCRATCH, "--remount-ro", "/", "--chdir", SCRATCH,
        "--hostname", "sandbox", "--clearenv", *_environment(hash_seed),
        "--", *python, str(status_fd), str(report_fd),
    ]  # fmt: skip


def _read_only_system(prefix: str) -> list[str]:
    """/usr with what old paths call it, and the interpreter's library where that is elsewhere. No /etc, /home, /var."""
    mounts = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            mounts += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            mounts += ["--ro-bind", name, name]
    if not prefix.startswith("/usr"):
        mounts += ["--ro-bind", prefix, prefix]
    return mounts


def _environment(hash_seed: int) -> list[str]:
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": str(hash_seed),
        "ZENRAY_REPORT_FD": str(REPORT_FD),
    }
    return [part for name, value in variables.items() for part in ("--setenv", name, value)]
