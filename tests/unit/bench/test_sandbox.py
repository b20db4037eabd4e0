"""What a program written by a model cannot do, and that nothing runs where it could."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zenray.bench import sandbox as sandbox_module
from zenray.bench.sandbox import Sandbox, SandboxLimits, SandboxUnavailable, Verdict

try:
    SANDBOX = Sandbox(SandboxLimits(wall_s=20, cpu_s=2, memory_mib=256, file_mib=1))
    WHY_NOT = ""
except SandboxUnavailable as reason:
    WHY_NOT = str(reason)

jailed = pytest.mark.skipif(bool(WHY_NOT), reason=f"no sandbox here: {WHY_NOT}")


@jailed
def test_a_program_passes_only_by_running_to_its_end() -> None:
    assert SANDBOX.run("import math\nassert math.gcd(12, 18) == 6") is Verdict.PASSED
    assert SANDBOX.run("assert 1 == 2") is Verdict.FAILED
    assert SANDBOX.run("def broken(:") is Verdict.FAILED
    assert SANDBOX.run("exit(0)") is Verdict.FAILED
    assert SANDBOX.run("import os\nos._exit(1)") is Verdict.FAILED
    assert SANDBOX.run("print('x' * 100_000)") is Verdict.PASSED


@jailed
def test_an_endless_loop_is_ended_by_its_processor_time_and_a_sleeper_by_the_clock() -> None:
    assert SANDBOX.run("while True: pass") is Verdict.FAILED
    assert Sandbox(SandboxLimits(wall_s=2)).run("import time\ntime.sleep(3600)") is Verdict.TIMED_OUT


@jailed
@pytest.mark.parametrize(
    "attempt",
    [
        "bytearray(2**30)",
        "import socket\nsocket.create_connection(('127.0.0.1', 22), 1)",
        "import socket\nsocket.getaddrinfo('example.org', 80)",
        "open('/usr/lib/written', 'w')",
        "open('/written', 'w')",
        "open('/tmp/large', 'wb').write(bytes(4 * 2**20))",
        "import os\nos.listdir('/root')",
        "open('/etc/passwd')",
        "import os\nos.setuid(0)",
        "import subprocess\nsubprocess.run(['/usr/bin/unshare', '-U', 'true'], check=True)",
        "import os\nassert 'PATH' in os.environ",
    ],
)
def test_what_is_out_of_bounds_fails(attempt: str) -> None:
    assert SANDBOX.run(attempt) is Verdict.FAILED


@jailed
def test_a_fork_bomb_runs_into_its_limit_and_leaves_nothing_behind() -> None:
    mark = "zenray-sandbox-test-bomb"
    bomb = f"import subprocess\nwhile True: subprocess.Popen(['/usr/bin/python3', '-c', 'input()', '{mark}'])"
    assert SANDBOX.run(bomb) is not Verdict.PASSED
    assert mark not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@jailed
def test_many_programs_one_after_the_other_all_run() -> None:
    assert {SANDBOX.run("pass") for _ in range(60)} == {Verdict.PASSED}


@jailed
def test_a_file_written_in_the_jail_is_gone_with_it(tmp_path: Path) -> None:
    assert SANDBOX.run("open('/tmp/kept', 'w').write('x')") is Verdict.PASSED
    assert SANDBOX.run("open('/tmp/kept')") is Verdict.FAILED
    assert SANDBOX.run(f"open({str(tmp_path / 'out')!r}, 'w')") is Verdict.FAILED


@pytest.mark.parametrize("missing", ["bwrap", "setpriv", "prlimit"])
def test_without_a_layer_there_is_no_sandbox(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox_module._tool.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None if name == missing else f"/usr/bin/{name}")
    with pytest.raises(SandboxUnavailable, match=f"{missing} is not installed"):
        Sandbox()
    sandbox_module._tool.cache_clear()


@jailed
def test_a_jail_that_breaks_later_is_no_failed_program(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox()
    monkeypatch.setattr(sandbox, "_command", ["/usr/bin/false"])
    with pytest.raises(SandboxUnavailable, match="does not hold here"):
        sandbox.run("pass")


def test_a_jail_that_does_not_hold_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "_command", lambda limits: [sys.executable, "-I", "-"])
    with pytest.raises(SandboxUnavailable, match="does not hold here"):
        Sandbox()
