"""The pool in the real jail: results, isolation, broken sandboxes, and what is left when it is closed: nothing."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import replace

import psutil
import pytest

from zenray.batch.sandbox import Ending, Execution, Limits, SandboxPool, SandboxUnavailable
from zenray.batch.sandbox import jail as jail_module
from zenray.batch.sandbox import sandbox as sandbox_module
from zenray.errors import InvalidRequest

ECHO = """
import os, sys
sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.stderr.write("aside")
os.write(int(os.environ["ZENRAY_REPORT_FD"]), open("folder/data", "rb").read())
sys.exit(3)
"""
HASHES = "print([hash(str(number)) for number in range(4)])"


def python(code: str, **more: object) -> Execution:
    return Execution({"code.py": "import os\n" + code}, "code.py", **more)  # type: ignore[arg-type]


def eventually(condition: Callable[[], bool], within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_an_execution_gets_its_files_and_input_and_answers_on_three_channels(pool: SandboxPool) -> None:
    files = {"run.py": ECHO, "folder/data": b"\x00\xff"}
    result = pool.run_blocking(Execution(files, "run.py", stdin=b"in\xff"))
    assert (result.ending, result.exit_code) == (Ending.EXITED, 3)
    assert (result.stdout, result.stderr_tail, result.report) == (b"in\xff", b"aside", b"\x00\xff")


def test_the_entry_is_main_and_a_traceback_shows_nothing_but_its_own(pool: SandboxPool) -> None:
    result = pool.run_blocking(python("assert __name__ == '__main__' and __file__ == '/scratch/code.py'\n1/0"))
    lines = result.stderr_tail.decode().splitlines()
    assert lines[1] == '  File "/scratch/code.py", line 3, in <module>'
    assert lines[-1] == "ZeroDivisionError: division by zero" and "bootstrap" not in "".join(lines)


def test_a_hash_seed_decides_hashes_whatever_sandbox_was_waiting(pool: SandboxPool) -> None:
    seeds = [0, 1, 1, 2**32 - 1, 0, 7, 1]
    said = {(seed, pool.run_blocking(python(HASHES, hash_seed=seed)).stdout) for seed in seeds}
    assert len(said) == len(set(seeds)) == len({hashes for _, hashes in said})


def test_every_run_of_one_execution_ends_alike(pool: SandboxPool) -> None:
    code = (
        "import sys; print(sorted(os.environ.items()), sys.path, sys.argv, os.getcwd(), os.listdir('/'), os.umask(0))"
    )
    first, *others = [pool.run_blocking(python(code)) for _ in range(3)]
    assert all(other == first for other in others) and first.exited_cleanly


@pytest.mark.parametrize("package", ["coverage", "pytest"])
def test_packages_of_ours_can_be_imported_and_no_others(pool: SandboxPool, package: str) -> None:
    code = f"import {package}\ntry: import torch\nexcept ImportError: print({package}.__version__)"
    result = pool.run_blocking(python(code, packages=(package,), limits=replace(pool.limits, cpu_s=10)))
    assert result.stdout, result.stderr_tail.decode()
    assert pool.run_blocking(python(f"import {package}")).exit_code == 1


async def test_many_run_at_once_and_none_sees_another(pool: SandboxPool) -> None:
    look = """
import time
open("mine-{0}", "w").close(); open("/dev/shm/mine-{0}", "w").close()
time.sleep(0.3)
processes = [name for name in os.listdir("/proc") if name.isdigit()]
os.write(3, repr((os.listdir("."), os.listdir("/dev/shm"), len(processes), os.getuid(), os.getgid())).encode())
"""
    results = await asyncio.gather(*(pool.run(python(look.format(number))) for number in range(4)))
    for number, result in enumerate(results):
        files, shared, num_processes, *user = eval(result.report)
        assert sorted(files) == ["code.py", f"mine-{number}"] and shared == [f"mine-{number}"]
        assert num_processes == 2  # Itself, and the first process, which is the jail's.
        assert user == [1000, 1000]  # The same in every worker: it may get into what the code says.


def test_an_abstract_socket_of_one_is_not_there_for_another(pool: SandboxPool) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0zenray-test-host")
        server.listen()
        attempt = "import socket\ntry: socket.socket(socket.AF_UNIX).connect('\\0zenray-test-host')\n"
        result = pool.run_blocking(python(attempt + "except ConnectionRefusedError: print('refused')"))
    assert result.stdout == b"refused\n"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"code.py": "", "large": bytes(20 * 2**20)}, "No space left"),
        ({"code.py": "", "a": "", "a/b": ""}, "a"),
        ({"code.py": "", "a" * 300: ""}, "too long"),
    ],
)
def test_files_that_cannot_be_placed_are_the_callers_fault(
    pool: SandboxPool, files: dict[str, bytes], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        pool.run_blocking(Execution(files, "code.py"))


def test_a_package_that_is_not_installed_is_the_callers_fault(pool: SandboxPool) -> None:
    with pytest.raises(InvalidRequest, match="no-such-package"):
        pool.run_blocking(python("", packages=("no-such-package",)))


def test_a_sandbox_that_breaks_once_is_replaced(pool: SandboxPool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, num_broken = jail_module.jail_command, []

    def breaking(*arguments: object, **named: object) -> list[str]:
        command = whole(*arguments, **named)  # type: ignore[arg-type]
        if len(num_broken) < 2:
            num_broken.append(1)
            return ["/bin/sh", "-c", "echo bwrap: no memory >&2; exit 1"]
        return command

    limits = replace(pool.limits, scratch_mib=8)  # Like no sandbox that waits.
    monkeypatch.setattr(sandbox_module, "jail_command", breaking)
    assert pool.run_blocking(python("print('whole')", limits=limits)).stdout == b"whole\n"
    assert len(num_broken) == 2


def test_sandboxes_that_keep_breaking_are_no_verdict(pool: SandboxPool, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ["/bin/sh", "-c", "echo bwrap: no memory >&2; exit 1"]
    monkeypatch.setattr(sandbox_module, "jail_command", lambda *_, **__: broken)
    with pytest.raises(SandboxUnavailable, match="does not start: bwrap: no memory"):
        pool.run_blocking(python("", limits=replace(pool.limits, scratch_mib=9)))  # Like none that waits here either.


async def test_cancelling_kills_and_the_worker_goes_on(pool: SandboxPool) -> None:
    mark = "zenray-test-cancelled"
    sleeper = f"os.execv('/bin/sh', ['sh', '-c', 'sleep 600; exit', '{mark}'])"
    tasks = [asyncio.create_task(pool.run(python(sleeper))) for _ in range(2)]

    def count() -> int:
        return sum(
            mark in process.info["cmdline"] for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]
        )

    assert await asyncio.to_thread(eventually, lambda: count() == 2)
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    assert await asyncio.to_thread(eventually, lambda: count() == 0)
    assert (await pool.run(python("print(1)"))).stdout == b"1\n"


@pytest.mark.parametrize("missing", ["bwrap", "setpriv"])
def test_without_a_tool_there_is_no_sandbox(missing: str, monkeypatch: pytest.MonkeyPatch, pool: SandboxPool) -> None:
    jail_module.tool.cache_clear()
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None if name == missing else which(name, path=path))
    try:
        with pytest.raises(SandboxUnavailable, match=f"{missing} is not installed: apt-get install"):
            SandboxPool(1)
    finally:
        jail_module.tool.cache_clear()


@pytest.mark.parametrize(
    ("hole", "found"),
    [
        (("--cap-drop", "ALL"), None),  # bwrap gives none to the unprivileged anyway: no hole.
        (("--disable-userns",), None),  # The filter refuses them too.
        (("--seccomp",), "a seccomp filter"),
        (("--remount-ro", "/"), "a read-only root"),
        (("--remount-ro", "/dev"), "a read-only root"),
    ],
)
def test_a_wall_that_does_not_stand_is_found(
    hole: tuple[str, ...], found: str | None, monkeypatch: pytest.MonkeyPatch, pool: SandboxPool
) -> None:
    whole = jail_module.jail_command

    def with_hole(*arguments: object, **named: object) -> list[str]:
        command = whole(*arguments, **named)  # type: ignore[arg-type]
        size = 2 if hole == ("--seccomp",) else len(hole)
        start = next(at for at in range(len(command)) if tuple(command[at : at + len(hole)]) == hole)
        return command[:start] + command[start + size :]

    monkeypatch.setattr(sandbox_module, "jail_command", with_hole)
    if found is None:
        SandboxPool(1, pool.limits).close()
    else:
        with pytest.raises(SandboxUnavailable, match=found):
            SandboxPool(1, pool.limits)


def test_a_process_with_many_descriptors_can_have_sandboxes(pool: SandboxPool) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with SandboxPool(1, pool.limits) as other:
            assert other.run_blocking(python("print(1)")).stdout == b"1\n"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_a_control_group_all_processes_together_must_fit(
    monkeypatch: pytest.MonkeyPatch, pool: SandboxPool
) -> None:
    monkeypatch.setattr("zenray.batch.sandbox.cgroups._hierarchies", lambda writable=True: [])
    with SandboxPool(1, pool.limits) as small:
        assert small.run_blocking(python("print(1)")).stdout == b"1\n"
        with pytest.raises(SandboxUnavailable, match="could take more than the"):
            small.run_blocking(python("", limits=Limits(memory_mib=2**20)))
