"""Code that means harm, in the real jail: what it may not do is refused, what it may not take is bounded and named."""

from __future__ import annotations

import platform
from dataclasses import replace

import pytest

from zenray.batch.sandbox import Ending, Execution, ExecutionResult, SandboxPool

PRELUDE = """
import array, ctypes, errno, fcntl, mmap, os, resource, shutil, signal, socket, stat, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def report(text):
    os.write(int(os.environ["ZENRAY_REPORT_FD"]), text.encode())
"""
REFUSAL = """
try:
    {}
except (OSError, ValueError) as error:
    report("refused: " + str(error))
else:
    report("done")
"""
REFUSALS = {
    # Networks: there is none, and no way to ask for one.
    "tcp": "socket.create_connection(('127.0.0.1', 22), 1)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "tcp over ipv6": "socket.socket(socket.AF_INET6)",
    "raw packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "dns": "socket.getaddrinfo('example.org', 80)",
    "a socket of the host": "socket.socket(socket.AF_UNIX).connect('/run/host.sock')",
    # Files of others.
    "passwords": "open('/etc/shadow')",
    "users": "open('/etc/passwd')",
    "homes": "os.listdir('/root') + os.listdir('/home')",
    "the host's first process": "os.readlink('/proc/1/root') == '/' and open('/proc/1/root/etc/passwd')",
    "kernel memory": "open('/dev/mem', 'rb')",
    "a disk": "open('/dev/vda', 'rb')",
    # Writing outside.
    "the root": "open('/written', 'w')",
    "the system": "open('/usr/lib/written', 'w')",
    "the runtime": "open('/runtime/bootstrap.py', 'a')",
    "removing the runtime": "os.unlink('/runtime/bootstrap.py')",
    "devices": "open('/dev/written', 'w')",
    "settings of the kernel": "open('/proc/sys/kernel/core_pattern', 'w')",
    "the magic key": "open('/proc/sysrq-trigger', 'w')",
    "its own limits": "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
    "a large shared memory": "os.posix_fallocate(os.open('/dev/shm/x', os.O_CREAT | os.O_RDWR), 0, 2**22)",
    # Becoming somebody else.
    "root": "os.setuid(0)",
    "giving a file away": "open('mine', 'w').close() or os.chown('mine', 0, 0)",
    "a device": "os.mknod('zero', stat.S_IFCHR | 0o666, os.makedev(1, 5))",
    "a user namespace": "call(272, 0x10000000)",
    "a child in a user namespace": "call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)",
    "clone3": "call(435, ctypes.create_string_buffer(88), 88)",
    "joining a namespace": "call(308, os.open('/proc/self/ns/net', os.O_RDONLY), 0)",
    "mounting": "call(165, b'none', b'/scratch', b'tmpfs', 0, 0)",
    "unmounting": "call(166, b'/usr', 2)",
    "a new root": "os.chroot('/scratch')",
    # The kernel's wider doors.
    "ptrace": "call(101, 16, os.getppid(), 0, 0)",
    "reading another's memory": "call(310, 1, 0, 0, 0, 0, 0)",
    "bpf": "call(321, 0, 0, 0)",
    "perf": "call(298, 0, 0, 0, 0, 0)",
    "keys": "call(250, 0, 0, 0, 0, 0)",
    "userfaultfd": "call(323, 0)",
    "io_uring": "call(425, 1, ctypes.create_string_buffer(120))",
    "a kernel module": "call(313, 0, b'', 0)",
    "a reboot": "call(169, 0, 0, 0, 0)",
    "the host's name": "socket.sethostname('owned')",
    "the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "a call of the future": "call(999)",
}


def run(pool: SandboxPool, code: str, **limits: float) -> ExecutionResult:
    execution = Execution({"code.py": PRELUDE + code}, "code.py", limits=replace(pool.limits, **limits))
    return pool.run_blocking(execution)


@pytest.mark.parametrize("attempt", REFUSALS)
def test_what_is_out_of_bounds_is_refused(pool: SandboxPool, attempt: str) -> None:
    if REFUSALS[attempt].startswith("call(") and platform.machine() != "x86_64":
        pytest.skip("calls have other numbers here")
    code = REFUSAL.format(REFUSALS[attempt])
    result = run(pool, code)
    assert (result.ending, result.exit_code) == (Ending.EXITED, 0), result.stderr_tail.decode()
    assert result.report.startswith(b"refused: "), result.report


E = Ending
ATTACKS = {
    # name: (code, the endings it may have, its report, limits of its own)
    "a fork bomb": (
        """
def spawn():
    while True:
        try:
            if os.fork() == 0:
                spawn()
        except OSError:
            time.sleep(0.01)
spawn()
""",
        {E.TIMED_OUT},
        b"",
        {"wall_s": 1},
    ),
    "threads without end": (
        """
try:
    while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError: report("refused")
""",
        {E.EXITED},
        b"refused",
        {},
    ),
    "2 GB at once": ("bytearray(2 * 2**30)", {E.EXITED}, b"", {}),
    "2 GB bit by bit": ("kept = []\nwhile True: kept.append(bytearray(2**20))", {E.EXITED}, b"", {}),
    "2 GB over many processes": (
        """
for _ in range(12):
    if os.fork() == 0:
        bytearray(180 * 2**20); time.sleep(60); os._exit(0)
while True: report(str(os.wait()[1]) + " "); os.kill(os.getpid(), 9)
""",
        {E.KILLED, E.OUT_OF_MEMORY},
        None,
        {},
    ),
    "a file of 100 MB": (
        """
try: open("large", "wb").write(bytes(100 * 2**20))
except OSError as error: report(errno.errorcode[error.errno])
""",
        {E.EXITED},
        b"EFBIG",
        {},
    ),
    "a file of 100 MB by another program": (
        "os.execv('/bin/dd', ['dd', 'if=/dev/zero', 'of=x', 'bs=1M', 'count=100', 'status=none'])",
        {E.EXITED},
        b"",
        {},
    ),
    "many files": (
        """
try:
    for name in range(100): open(str(name), "wb").write(bytes(2**20))
except OSError as error: report(errno.errorcode[error.errno])
""",
        {E.EXITED},
        b"ENOSPC",
        {},
    ),
    "many empty files": (
        """
for name in range(10**9): open(str(name), "wb").close()
""",
        {E.CPU_LIMIT, E.OUT_OF_MEMORY},
        b"",
        {},
    ),
    "many open files": (
        """
kept = []
try:
    while True: kept.append(open("/dev/null"))
except OSError as error: report(errno.errorcode[error.errno])
""",
        {E.EXITED},
        b"EMFILE",
        {},
    ),
    "an endless loop": ("while True: pass", {E.CPU_LIMIT}, b"", {}),
    "an endless loop that ignores the warning": (
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        {E.CPU_LIMIT},
        b"",
        {},
    ),
    "a long loop in C": ("10 ** 10 ** 8", {E.CPU_LIMIT, E.EXITED}, b"", {}),
    "a regular expression without end": ("import re; re.match(r'(a+)+$', 'a' * 64 + 'b')", {E.CPU_LIMIT}, b"", {}),
    "sleep for ever": ("time.sleep(10**6)", {E.TIMED_OUT}, b"", {"wall_s": 1}),
    "sleep for ever, deaf to signals": (
        """
for number in signal.valid_signals():
    try: signal.signal(number, signal.SIG_IGN)
    except OSError: pass
while True: time.sleep(10**6)
""",
        {E.TIMED_OUT},
        b"",
        {"wall_s": 1},
    ),
    "waiting for input": ("report(sys.stdin.read() or 'end')", {E.EXITED}, b"end", {}),
    "a flood on stdout": ("while True: print('x' * 4096)", {E.OUTPUT_LIMIT}, b"", {}),
    "a flood on stderr": ("while True: sys.stderr.write('x' * 4096)", {E.OUTPUT_LIMIT}, b"", {}),
    "a flood that ends": ("sys.stdout.write('x' * (65536 + 1))", {E.OUTPUT_LIMIT}, b"", {}),
    "as much as is allowed": ("sys.stdout.write('x' * 65536)", {E.EXITED}, b"", {}),
    "a flood of reports": ("while True: report('x' * 65536)", {E.OUTPUT_LIMIT}, b"x" * 65536, {}),
    "killing everything": ("os.kill(-1, 9)", {E.EXITED, E.KILLED}, b"", {}),
    "killing everything, from a child": (
        """
if os.fork() == 0: os.kill(-1, 9)
time.sleep(60)
""",
        {E.KILLED},
        b"",
        {},
    ),
    "killing its parent": (
        """
os.kill(os.getppid(), 9); os.kill(os.getppid(), 15); report("alive")
""",
        {E.EXITED},
        b"alive",
        {},
    ),
    "killing itself": ("os.kill(os.getpid(), 9)", {E.KILLED}, b"", {}),
    "leaving early": ("os._exit(0)", {E.EXITED}, b"", {}),
    "a status that looks like a signal": ("os._exit(139)", {E.KILLED}, b"", {}),
    "a crash": ("ctypes.string_at(0)", {E.KILLED}, b"", {}),
    "recursion without end": ("def f(): f()\nf()", {E.EXITED}, b"", {}),
    "recursion in C without end": (
        "sys.setrecursionlimit(10**9)\nclass A:\n    def __getattr__(self, n): return getattr(self, n)\nA().x",
        {E.KILLED, E.EXITED},
        b"",
        {},
    ),
    "a daemon": (
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(10**6)
    os._exit(0)
report("left")
""",
        {E.EXITED},
        b"left",
        {},
    ),
    "a daemon that holds the report": (
        """
if os.fork() == 0:
    os.setsid()
    while True: report("x"); time.sleep(0.001)
os._exit(0)
""",
        {E.EXITED},
        None,
        {},
    ),
    "zombies": (
        """
for _ in range(8):
    if os.fork() == 0: os._exit(0)
report("left")
""",
        {E.EXITED},
        b"left",
        {},
    ),
    "deleting what it stands on": (
        "shutil.rmtree('/', ignore_errors=True); report(str(len(os.listdir('/scratch'))))",
        {E.EXITED},
        b"0",
        {},
    ),
    "a program that is somebody else": (
        """
shutil.copy("/usr/bin/python3", "tool"); os.chmod("tool", 0o6755)
report(str(subprocess.run(["./tool", "-S", "-c", "import os; print(os.geteuid() == os.getuid())"],
    capture_output=True, text=True).stdout.strip()))
""",
        {E.EXITED},
        b"True",
        {"file_mib": 12},
    ),
    "garbage as a report": ("os.write(3, bytes(range(256))); os.close(3)", {E.EXITED}, bytes(range(256)), {}),
    "closing everything": ("os.closerange(0, 1000); time.sleep(10**6)", {E.TIMED_OUT}, b"", {"wall_s": 1}),
    "stopping itself": ("os.kill(os.getpid(), signal.SIGSTOP)", {E.TIMED_OUT}, b"", {"wall_s": 1}),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_contained_and_named(pool: SandboxPool, attack: str) -> None:
    code, endings, report, limits = ATTACKS[attack]
    result = run(pool, code, **limits)
    assert result.ending in endings, result
    assert report is None or result.report == report
