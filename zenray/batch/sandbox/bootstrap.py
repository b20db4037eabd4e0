"""Runs inside the jail: waits for one execution on stdin, places its files, takes on its limits, becomes its entry.

Nothing but the standard library is here, and nothing of this is trusted once the entry runs. `zenray` is never
imported: this file is mounted alone. The other side is `Sandbox` in sandbox.py. Every import is paid for by every
execution: json would cost more than the start of Python.
"""

from __future__ import annotations

import marshal
import os
import resource
import sys

TYPE_CHECKING = False  # As in typing, whose import would take longer than all the rest.
if TYPE_CHECKING:
    from typing import Any

REPORT_FD, STATUS_FD = 3, 4
READY, STARTED, REFUSED = b"R", b"S", b"E"
MEBIBYTE = 2**20


def _read_exactly(size: int) -> bytes:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = os.read(0, min(size - len(chunks), MEBIBYTE))
        if not chunk:
            os._exit(0)  # Whoever wanted us is gone.
        chunks += chunk
    return bytes(chunks)


def _place(files: list[tuple[str, int]]) -> None:
    for path, size in files:
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as file:
            file.write(_read_exactly(size))


def _give_stdin(size: int) -> None:
    file = os.memfd_create("stdin", 0)
    left = memoryview(_read_exactly(size))
    while left:
        left = left[os.write(file, left) :]
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.close(file)


def _limit(limits: dict[str, Any]) -> None:
    for name, soft, hard in (
        ("CORE", 0, 0),
        ("CPU", limits["cpu_s"], limits["cpu_s"] + 1),  # A warning that can be caught, then an end that cannot.
        ("FSIZE", limits["file_mib"] * MEBIBYTE, limits["file_mib"] * MEBIBYTE),
        ("NOFILE", limits["num_open_files"], limits["num_open_files"]),
        ("NPROC", limits["num_processes"], limits["num_processes"]),
        ("AS", limits["memory_mib"] * MEBIBYTE, limits["memory_mib"] * MEBIBYTE),
    ):
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (soft, hard))
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # Where memory runs out, we are the first to go.


def _become(entry: str, paths: list[str]) -> None:
    """The entry as __main__ of this interpreter, as if it had been started with it."""
    sys.argv = [entry]
    sys.path[:0] = [os.getcwd(), *paths]
    main = type(sys)("__main__")
    main.__file__ = os.path.abspath(entry)
    sys.modules["__main__"] = main
    try:
        with open(entry, "rb") as file:
            code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
        exec(code, main.__dict__)  # noqa: S102 - this is the jail
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # From the entry on.
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.exit(1)


def _arrange(status: int, report: int) -> None:
    """The same numbers everywhere, and no other descriptor than these two and the standard three."""
    while status <= STATUS_FD:
        status = os.dup(status)
    while report <= STATUS_FD:
        report = os.dup(report)
    os.dup2(report, REPORT_FD)
    os.dup2(status, STATUS_FD)
    os.closerange(STATUS_FD + 1, 4096)


def main(status: int, report: int) -> None:
    _arrange(status, report)
    os.write(STATUS_FD, READY)
    order = marshal.loads(_read_exactly(int.from_bytes(_read_exactly(8), "little")))  # noqa: S302 - ours
    try:
        _place(order["files"])
        _give_stdin(order["stdin_size"])
    except OSError as error:
        os.write(STATUS_FD, REFUSED + str(error).encode())
        os._exit(1)
    _limit(order["limits"])
    os.write(STATUS_FD, STARTED)
    os.close(STATUS_FD)
    if order["hash_seed"] != os.environ["PYTHONHASHSEED"]:  # It is read once, at start.
        environment = {**os.environ, "PYTHONHASHSEED": order["hash_seed"]}
        again = [*sys.orig_argv[:-2], "become", order["entry"], *order["paths"]]
        os.execve(sys.executable, again, environment)  # noqa: S606 - this is the jail
    _become(order["entry"], order["paths"])


if __name__ == "__main__":
    if sys.argv[1] == "become":
        _become(sys.argv[2], sys.argv[3:])
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
