"""One sandbox: started ahead, given one execution, watched until its last process is gone, never used again."""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

from zenray.batch.sandbox.bootstrap import READY
from zenray.batch.sandbox.cgroups import ControlGroup
from zenray.batch.sandbox.jail import PACKAGES, Pipes, jail_command
from zenray.batch.sandbox.model import Ending, Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.sandbox.runtime import find_interpreter, runtime_folder
from zenray.batch.sandbox.seccomp import seccomp_program
from zenray.batch.sandbox.watch import Watch
from zenray.errors import InvalidRequest

_START_S = 30.0
_END_S = 30.0  # Every process is killed at once; what takes time is the kernel, freeing their memory.
_MAX_SAID_BYTES = 4096
_OWN_WORDS = re.compile(rb"unshare: [^\n]*\n\Z")  # What `unshare` has to say when we kill what it waits for.


class Sandbox:
    """A jailed interpreter that waits. Belongs to one thread, which must outlive it: it dies with that thread.

    `packages` are mounted from the start. `hash_seed` is a guess: where it is right, Python need not start again.
    Raises SandboxUnavailable.
    """

    def __init__(
        self, packages: tuple[str, ...], scratch_mib: int, hash_seed: int, uid: int | None, group: ControlGroup
    ) -> None:
        self.packages = packages
        self.scratch_mib = scratch_mib
        self._group = group
        self._first: int | None = None  # A handle of the first process inside: with it, all others end.
        self._guard = threading.Lock()
        interpreter, runtime, program = find_interpreter(), runtime_folder(packages), seccomp_program()
        with _breaking():
            self._pipes, theirs = Pipes.open(program)
            try:
                command = jail_command(
                    interpreter, runtime, theirs,
                    uid=uid, group=group.folder, scratch_mib=scratch_mib, hash_seed=hash_seed,
                )  # fmt: skip
                self._process = subprocess.Popen(
                    command, stdin=theirs.stdin, stdout=theirs.stdout, stderr=theirs.stderr,
                    pass_fds=theirs.inherited, env={}, cwd="/", start_new_session=True,
                )  # fmt: skip
            except BaseException:
                self._pipes.close()
                raise
            finally:
                theirs.close()

    def run(self, execution: Execution, limits: Limits) -> ExecutionResult:
        """Runs `execution` to its end, whatever that is.

        Raises SandboxUnavailable if the sandbox failed, and InvalidRequest for files that its scratch cannot hold.
        """
        with _breaking():
            return self._run(execution, limits)

    def _run(self, execution: Execution, limits: Limits) -> ExecutionResult:
        asked = time.monotonic()
        self._wait_until_ready()
        self._group.limit_memory(limits.memory_mib + limits.scratch_mib)
        num_out_of_memory, num_ended_by_machine = self._group.num_out_of_memory(), _num_out_of_memory()
        watch = Watch(self._pipes, self._process.pid, _order(execution, limits), limits)
        try:
            ending = watch.until_end(_START_S)
            self.kill()
            if watch.drain(_END_S):  # Before waiting: whoever writes into a full pipe cannot end.
                ending = ending or Ending.OUTPUT_LIMIT
            self._end()
        finally:
            watch.close()
        wall_s = time.monotonic() - watch.started_at
        if watch.refusal:
            raise InvalidRequest.of("files", watch.refusal, f"what fits into {limits.scratch_mib} MiB, by path")
        if not watch.started_at:
            raise SandboxUnavailable(f"the sandbox broke before the code ran: {_shown(watch.stderr)}")
        exit_code, number = None, None
        if ending is None:
            ending, exit_code, number = _ending_of(_exit_code(self._pipes.exit))
        if number == signal.SIGKILL:
            if self._group.num_out_of_memory() > num_out_of_memory:
                ending, number = Ending.OUT_OF_MEMORY, None
            elif _num_out_of_memory() > num_ended_by_machine:
                raise SandboxUnavailable("the machine ran out of memory: take fewer workers or smaller limits")
            elif ending and wall_s >= limits.cpu_s:
                ending = Ending.CPU_LIMIT  # It ignored the signal that comes a second before.
        if ending is None:
            raise SandboxUnavailable("the sandbox was killed from outside")
        return ExecutionResult(
            ending, exit_code, number,
            bytes(watch.stdout), _OWN_WORDS.sub(b"", watch.stderr), bytes(watch.report),
            wall_s=wall_s, waited_s=watch.started_at - asked,
        )  # fmt: skip

    def _wait_until_ready(self) -> None:
        told = _read(self._pipes.status, _START_S)
        if told != READY:
            self._end()
            said = _shown(_read(self._pipes.stderr, 0))
            raise SandboxUnavailable(f"the sandbox does not start: {said or 'it says nothing'}")

    def kill(self) -> None:
        """Ends every process of it. From any thread."""
        with self._guard:
            if self._process.returncode is not None:
                return  # Its number may be somebody else's by now.
            self._first = self._first or self._find_first()
            with contextlib.suppress(ProcessLookupError):
                if self._first is not None:
                    signal.pidfd_send_signal(self._first, signal.SIGKILL)
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _find_first(self) -> int | None:
        """The only child of `unshare`, if it has one yet."""
        pid = self._process.pid
        with (
            contextlib.suppress(OSError, ValueError),
            open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file,
        ):
            return os.pidfd_open(int(file.read()))
        return None

    def _end(self) -> None:
        """Kills what is left and waits until all of it is gone."""
        self.kill()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kills what is left, waits until it is gone, gives back every descriptor."""
        self._end()
        with self._guard:
            if self._first is not None:
                os.close(self._first)
                self._first = None
        self._pipes.close()


@contextlib.contextmanager
def _breaking() -> Iterator[None]:
    """What the system refuses us (descriptors, processes, memory) is no fault of the code."""
    try:
        yield
    except OSError as error:
        raise SandboxUnavailable(f"the sandbox broke: {error}") from error


def _order(execution: Execution, limits: Limits) -> bytes:
    files = {
        path: content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
        for path, content in execution.files.items()
    }
    header = {
        "files": [(path, len(content)) for path, content in files.items()],
        "stdin_size": len(execution.stdin),
        "entry": execution.entry,
        "hash_seed": str(execution.hash_seed),
        "paths": [PACKAGES] if execution.packages else [],
        "limits": asdict(limits),
    }
    head = marshal.dumps(header, 2)  # What every Python reads.
    return b"".join([len(head).to_bytes(8, "little"), head, *files.values(), execution.stdin])


def _exit_code(told_by_bwrap: int) -> int | None:
    """What bwrap says last: the exit status of what it jailed. None where it was killed itself."""
    with contextlib.suppress(ValueError, KeyError, BlockingIOError):
        *_, last = os.read(told_by_bwrap, _MAX_SAID_BYTES).splitlines() or [b"{}"]
        return int(json.loads(last)["exit-code"])
    return None


def _ending_of(code: int | None) -> tuple[Ending | None, int | None, int | None]:
    """The ending, exit code and signal. 128 + signal stands for a signal, as in shells."""
    if code is None:
        return None, None, signal.SIGKILL
    number = code - 128
    if number not in {*signal.valid_signals()}:
        return Ending.EXITED, code, None
    endings = {signal.SIGXCPU: Ending.CPU_LIMIT, signal.SIGXFSZ: Ending.FILE_LIMIT}
    return endings.get(signal.Signals(number), Ending.KILLED), None, number


def _num_out_of_memory() -> int:
    """How many processes the kernel ended for want of memory, on the whole machine since it started."""
    with open("/proc/vmstat", encoding="ascii") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)


def _read(descriptor: int, within_s: float) -> bytes:
    """What comes first; nothing at the end of the other side or of the time."""
    poll = select.poll()  # select() knows no descriptor above 1023.
    poll.register(descriptor, select.POLLIN)
    return os.read(descriptor, _MAX_SAID_BYTES) if poll.poll(within_s * 1000) else b""


def _shown(said: bytes | bytearray) -> str:
    return bytes(said[-400:]).decode(errors="replace").strip()
