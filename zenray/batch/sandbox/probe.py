"""Whether every wall of the jail stands, seen from inside."""

from __future__ import annotations

from collections.abc import Callable

from zenray.batch.sandbox.model import Ending, Execution, ExecutionResult, SandboxUnavailable

_LOOK = """
import errno, os, resource, socket, ctypes

report = os.fdopen(int(os.environ["ZENRAY_REPORT_FD"]), "w")
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
libc = ctypes.CDLL(None, use_errno=True)

def missing(layer, held):
    if not held:
        report.write(layer + "\\n")

def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError:
        return True
    return False

missing("an unprivileged user", os.getuid() != 0)
missing("no capabilities", not any(int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")))
missing("no new privileges", status["NoNewPrivs"].strip() == "1")
missing("a seccomp filter", status["Seccomp"].strip() == "2" and libc.unshare(0x10000000) == -1)
missing("a namespace of processes", len([name for name in os.listdir("/proc") if name.isdigit()]) <= 3)
missing("a namespace of networks", {name for _, name in socket.if_nameindex()} <= {"lo"}
        if not refused(socket.if_nameindex) else True)
missing("no network", refused(socket.socket, socket.AF_INET))
missing("a read-only root", all(refused(open, path, "w") for path in ("/x", "/usr/x", "/dev/x", "/runtime/x")))
missing("no files but the system's", not {"etc", "home", "root", "var", "run", "sys"} & set(os.listdir("/")))
missing("a sized scratch folder", os.statvfs(".").f_blocks * os.statvfs(".").f_frsize <= SCRATCH_MIB * 2**20)
for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE"):
    limit = resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1]
    missing("a limit RLIMIT_" + name, limit != resource.RLIM_INFINITY)
report.write("looked\\n")
"""


def check_walls(run: Callable[[Execution], ExecutionResult], scratch_mib: int) -> None:
    """Raises SandboxUnavailable that names the walls that do not stand."""
    result = run(Execution({"look.py": _LOOK.replace("SCRATCH_MIB", str(scratch_mib))}, "look.py"))
    *missing, looked = result.report.decode(errors="replace").splitlines() or [""]
    if result.ending is not Ending.EXITED or looked != "looked":
        said = result.stderr_tail.decode(errors="replace").strip()[-300:]
        raise SandboxUnavailable(f"the sandbox cannot be checked: {said or result.ending.value}")
    if missing:
        raise SandboxUnavailable(f"the sandbox lacks {', '.join(missing)} here")
