"""One sandbox: started ahead, given one execution, watched until its last process is gone, never used again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import asdict

from zenray.batch.sandbox.bootstrap import READY, REFUSED, STARTED
from zenray.batch.sandbox.cgroups import ControlGroup
from zenray.batch.sandbox.jail import PACKAGES, jail_command
from zenray.batch.sandbox.model import Ending, Execution, ExecutionResult, Limits, SandboxUnavailable
from zenray.batch.sandbox.runtime import find_interpreter, runtime_folder
from zenray.batch.sandbox.seccomp import seccomp_program
from zenray.errors import InvalidRequest

_START_S = 30.0
_END_S = 10.0  # Every process is killed at once; the kernel frees their memory.
_STDERR_TAIL_BYTES = 8192
_CHUNK_BYTES = 65536
_KIB = 2**10
_OWN_PROCESSES = 3  # bwrap, the jail's first process, and a shell on the way there.


class Sandbox:
    """A jailed interpreter that waits. Belongs to one thread, which must outlive it: it dies with that thread.

    `packages` are mounted from the start; `hash_seed` is a guess that saves a second start of Python if right.
    """

    def __init__(
        self, packages: tuple[str, ...], scratch_mib: int, hash_seed: int, uid: int | None, group: ControlGroup
    ) -> None:
        self.packages = packages
        self.scratch_mib = scratch_mib
        self._group = group
        self._open: list[int] = []
        self._init: int | None = None
        seccomp_fd = os.memfd_create("seccomp")
        os.write(seccomp_fd, seccomp_program())
        os.lseek(seccomp_fd, 0, os.SEEK_SET)
        self._stdin, stdin = self._pipe(writes=True)
        self._stdout, stdout = self._pipe()
        self._stderr, stderr = self._pipe()
        self._status, status = self._pipe()
        self._report, report = self._pipe()
        self._info, info = self._pipe()
        theirs = (stdin, stdout, stderr, status, report, info, seccomp_fd)
        try:
            command = jail_command(
                find_interpreter(), runtime_folder(packages), uid=uid, groups=group.folders,
                scratch_mib=scratch_mib, hash_seed=hash_seed, seccomp_fd=seccomp_fd, info_fd=info,
                status_fd=status, report_fd=report,
            )  # fmt: skip
            self._process = subprocess.Popen(
                command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=(status, report, info, seccomp_fd),
                env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _pipe(self, *, writes: bool = False) -> tuple[int, int]:
        reader, writer = os.pipe()
        ours, theirs = (writer, reader) if writes else (reader, writer)
        os.set_blocking(ours, False)
        self._open.append(ours)
        return ours, theirs

    def run(self, execution: Execution, limits: Limits) -> ExecutionResult:
        """Runs `execution` to its end, whatever that is. Raises SandboxUnavailable if the sandbox failed, and
        InvalidRequest for files that do not fit into the scratch folder."""
        asked = time.monotonic()
        self._wait_until_ready()
        self._group.limit(limits.memory_mib + limits.scratch_mib, limits.num_processes + _OWN_PROCESSES)
        num_out_of_memory = self._group.num_out_of_memory()
        num_machine_out_of_memory = _num_machine_out_of_memory()
        watch = _Watch(self, _order(execution, limits), limits)
        cause = watch.until_end()
        self.kill()
        watch.drain(_END_S)
        status = self._process.wait()
        ended = time.monotonic()
        if watch.refusal:
            raise InvalidRequest.of("files", watch.refusal, f"what fits into {limits.scratch_mib} MiB and its paths")
        if not watch.started_at:
            raise SandboxUnavailable(f"the sandbox broke before the code ran: {_decode(watch.stderr)}")
        ending, exit_code, number = cause, None, None
        if cause is None:
            ending, exit_code, number = _ending_of(status)
            if self._group.num_out_of_memory() > num_out_of_memory and number == signal.SIGKILL:
                ending, number = Ending.OUT_OF_MEMORY, None
            elif number == signal.SIGKILL and _num_machine_out_of_memory() > num_machine_out_of_memory:
                raise SandboxUnavailable("the machine ran out of memory: fewer workers, or smaller limits")
            elif number == signal.SIGKILL and ended - watch.started_at >= limits.cpu_s:
                ending = Ending.CPU_LIMIT  # It ignored the warning.
        assert ending is not None
        return ExecutionResult(
            ending, exit_code, number, bytes(watch.stdout), bytes(watch.stderr), bytes(watch.report),
            wall_s=ended - watch.started_at, waited_s=watch.started_at - asked,
        )  # fmt: skip

    def _wait_until_ready(self) -> None:
        if self._init is not None:
            return
        told = _read_within(self._status, _START_S, self._process)
        if told != READY:
            self.kill()
            self._process.wait()
            said = _read_available(self._stderr)
            raise SandboxUnavailable(f"the sandbox does not start: {_decode(said) or 'it says nothing'}")
        info = json.loads(_read_within(self._info, _START_S, self._process))
        self._init = os.pidfd_open(info["child-pid"])
        self._open.append(self._init)

    def kill(self) -> None:
        """Every process of it, at once."""
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kills what is left, waits until it is gone, gives back every descriptor."""
        self.kill()
        self._process.wait()
        if self._init is not None:
            select.select([self._init], [], [], _END_S)
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()


class _Watch:
    """Feeds a sandbox and reads what it says, within caps and until a deadline."""

    def __init__(self, sandbox: Sandbox, order: bytes, limits: Limits) -> None:
        self.stdout, self.stderr, self.report = bytearray(), bytearray(), bytearray()
        self.started_at = 0.0
        self.refusal = ""
        self._order = memoryview(order)
        self._sandbox = sandbox
        self._limits = limits
        self._num_stderr = 0
        self._poll = select.poll()
        self._readers = {
            sandbox._stdout: self._take_stdout,
            sandbox._stderr: self._take_stderr,
            sandbox._report: self._take_report,
            sandbox._status: self._take_status,
        }
        self._exited = os.pidfd_open(sandbox._process.pid)
        sandbox._open.append(self._exited)
        for descriptor in (*self._readers, self._exited):
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(sandbox._stdin, select.POLLOUT)

    def until_end(self) -> Ending | None:
        """Why it must be ended, or None when it has ended itself."""
        fed_by = time.monotonic() + _START_S
        while True:
            deadline = self.started_at + self._limits.wall_s if self.started_at else fed_by
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return Ending.TIMED_OUT
            for descriptor, _ in self._poll.poll(left_s * 1000):
                if descriptor == self._exited:
                    return None
                if descriptor == self._sandbox._stdin:
                    self._feed()
                elif self._read(descriptor):
                    return Ending.OUTPUT_LIMIT

    def drain(self, within_s: float) -> None:
        """What was written before the end, now that nobody can write any more."""
        deadline = time.monotonic() + within_s
        self._poll.unregister(self._exited)
        while self._readers and time.monotonic() < deadline:
            for descriptor, _ in self._poll.poll((deadline - time.monotonic()) * 1000):
                if descriptor == self._sandbox._stdin:
                    self._poll.unregister(descriptor)
                else:
                    self._read(descriptor)

    def _feed(self) -> None:
        try:
            if self._order:
                self._order = self._order[os.write(self._sandbox._stdin, self._order[:_CHUNK_BYTES]) :]
        except BrokenPipeError:
            self._order = memoryview(b"")
        if not self._order:
            self._poll.unregister(self._sandbox._stdin)

    def _read(self, descriptor: int) -> bool:
        """Whether that was too much."""
        data = os.read(descriptor, _CHUNK_BYTES)
        if not data:
            self._poll.unregister(descriptor)
            del self._readers[descriptor]
            return False
        return self._readers[descriptor](data)

    def _take_stdout(self, data: bytes) -> bool:
        return self._take(self.stdout, data)

    def _take_report(self, data: bytes) -> bool:
        return self._take(self.report, data)

    def _take(self, taken: bytearray, data: bytes) -> bool:
        room = self._limits.output_kib * _KIB - len(taken)
        taken += data[:room]
        return len(data) > room

    def _take_stderr(self, data: bytes) -> bool:
        self._num_stderr += len(data)
        self.stderr += data
        del self.stderr[:-_STDERR_TAIL_BYTES]
        return self._num_stderr > self._limits.output_kib * _KIB

    def _take_status(self, data: bytes) -> bool:
        if data.startswith(STARTED):
            self.started_at = time.monotonic()
        elif data.startswith(REFUSED):
            self.refusal = data[len(REFUSED) :].decode(errors="replace")
        return False


def _order(execution: Execution, limits: Limits) -> bytes:
    files = {path: text.encode() if isinstance(text, str) else text for path, text in execution.files.items()}
    header = json.dumps(
        {
            "files": [(path, len(content)) for path, content in files.items()],
            "stdin_size": len(execution.stdin),
            "entry": execution.entry,
            "hash_seed": str(execution.hash_seed),
            "paths": [PACKAGES] if execution.packages else [],
            "limits": asdict(limits),
        }
    ).encode()
    return b"".join([len(header).to_bytes(8, "little"), header, *files.values(), execution.stdin])


def _ending_of(status: int) -> tuple[Ending, int | None, int | None]:
    """bwrap ends as what it jailed did, with 128 + signal as a shell would say it."""
    if status < 0:
        raise SandboxUnavailable(f"bwrap was ended from outside by signal {-status}")
    number = status - 128
    if number not in {*signal.valid_signals()}:
        return Ending.EXITED, status, None
    ending = {signal.SIGXCPU: Ending.CPU_LIMIT, signal.SIGXFSZ: Ending.FILE_LIMIT}.get(signal.Signals(number))
    return ending or Ending.KILLED, None, number


def _num_machine_out_of_memory() -> int:
    with open("/proc/vmstat") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)


def _read_within(descriptor: int, seconds: float, process: subprocess.Popen[bytes]) -> bytes:
    """What comes first, or nothing at the end of the other side or of the time."""
    readable, _, _ = select.select([descriptor], [], [], seconds)
    return os.read(descriptor, _CHUNK_BYTES) if readable else b""


def _read_available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK_BYTES)
    except BlockingIOError:
        return b""


def _decode(said: bytes | bytearray) -> str:
    return bytes(said[-400:]).decode(errors="replace").strip()
