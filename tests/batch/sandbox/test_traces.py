"""What a pool leaves behind when it is closed, or when its process is killed: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from zenray.batch.sandbox import Execution, Limits, SandboxPool, SandboxUnavailable
from zenray.batch.sandbox.worker import Worker


@pytest.fixture(autouse=True)
def needs_a_sandbox() -> None:
    try:
        SandboxPool(1).close()
    except SandboxUnavailable as reason:
        pytest.skip(f"no sandbox here: {reason}")


def python(code: str) -> Execution:
    return Execution({"code.py": "import os\n" + code}, "code.py")


def eventually(condition: Callable[[], bool], within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def traces() -> tuple[object, ...]:
    """Processes, descriptors, threads and mounts of ours, and temporary files."""
    me = psutil.Process()
    return (
        len(me.children(recursive=True)),
        me.num_fds(),
        sum(isinstance(thread, Worker) for thread in threading.enumerate()),
        Path("/proc/self/mounts").read_text().count("\n"),
        sorted(path.name for path in Path("/var/tmp").glob("zenray-sandbox-*/.new-*")),
        sorted(path.name for path in Path("/tmp").glob("*sandbox*")),
    )


def test_a_closed_pool_leaves_nothing() -> None:
    before = traces()
    with SandboxPool(2, Limits(wall_s=600)) as pool:
        groups = [worker._group.folder for worker in pool._workers]
        users = {worker._uid for worker in pool._workers if worker._uid}
        for _ in range(3):
            pool.run_blocking(python("for _ in range(3): os.fork()\nimport time; time.sleep(0.05)"))
        running = pool._submit(python("import time; time.sleep(600)"))
        waiting = [pool._submit(python("")) for _ in range(5)]
        assert eventually(running.result.running)
    for order in (running, *waiting):
        assert order.result.done()
    with pytest.raises(SandboxUnavailable, match="given up"):
        running.result.result()
    with pytest.raises(SandboxUnavailable, match="closed"):
        pool.run_blocking(python(""))
    assert traces() == before
    assert not any(group and group.exists() for group in groups)
    assert not [process for process in psutil.process_iter(["uids"]) if process.info["uids"].real in users]


def test_jailed_processes_die_with_the_process_that_wanted_them(tmp_path: Path) -> None:
    mark = "zenray-test-orphan"
    code = f"os.execv('/bin/sh', ['sh', '-c', 'sleep 600; exit', '{mark}'])"
    script = tmp_path / "owner.py"
    script.write_text(
        "from zenray.batch.sandbox import Execution, SandboxPool\n"
        f"SandboxPool(1).run_blocking(Execution({{'code.py': 'import os\\n' + {code!r}}}, 'code.py'))\n"
    )
    owner = subprocess.Popen([sys.executable, str(script)], cwd=Path.cwd())

    def lives() -> bool:
        every = psutil.process_iter(["cmdline", "name"])
        return any(mark in (process.info["cmdline"] or []) and process.info["name"] == "sh" for process in every)

    try:
        assert eventually(lives)
        os.kill(owner.pid, signal.SIGKILL)
        assert eventually(lambda: not lives())
    finally:
        owner.kill()
        owner.wait()
