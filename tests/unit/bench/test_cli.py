from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zenray.bench.cli import app
from zenray.bench.machine import CpuClock, describe_machine, find_processes, resident_bytes
from zenray.bench.prompts import read_jsonl
from zenray.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["engine", "--batch", "0"], "--batch is '0'"),
        (["engine", "--batch", "1,x"], "positive whole numbers"),
        (["engine", "--measure", "decode,speed"], "allowed: a list of decode,prefill,repeat"),
        (["serving", "--kind", "huge"], "--kind is 'huge'"),
        (["serving", "--rate", "0"], "--rate is '0'"),
        (["serving", "--rate", "fast"], "positive numbers"),
        (["serving", "--target", "host:1"], "allowed: grpc://HOST:PORT"),
        (["profile", "--batch", ""], "positive whole numbers"),
        (["speculative", "--kind", "fresh,old"], "allowed: a list of fresh,infill,edit"),
        (["speculative", "--gamma", "0"], "allowed: a list of auto and numbers from 1 to 64"),
        (["speculative", "--drafters", "suffix+oracle"], "joined by +"),
        (["speculative", "--markdown", "/no/such/folder/out.md"], "there is no folder"),
        (["speculative", "--profile", "tiny", "--drafters", "all"], "give --draft-model"),
        (["engine", "--json", "/no/such/folder/out.json"], "--json /no/such/folder/out.json: there is no folder"),
        (["serving", "--plot", "/no/such/folder/out.png"], "there is no folder"),
        (["overhead", "--json", "/no/such/folder/out.json"], "there is no folder"),
    ],
)
def test_wrong_options_say_what_is_allowed(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)


def test_prompts_are_written_for_others(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["prompts", str(tmp_path / "p.jsonl")]).exit_code == 0
    assert len(read_jsonl(tmp_path / "p.jsonl").prompts) == 40


def test_help_needs_no_torch() -> None:
    heavy = "{'torch', 'ray', 'grpc', 'matplotlib'}"
    code = f"import sys, zenray.bench.cli; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_machine_is_described() -> None:
    machine = describe_machine(3)
    assert machine["threads"] == 3 and machine["memory_gib"] > 0 and machine["processor"]
    assert re.match(r"3\.\d+", machine["python"])


def test_processes_are_found_by_their_title_and_tree() -> None:
    marker = f"zenray-marker-{os.getpid()}"
    command = [sys.executable, "-c", "input(1)", marker]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            child.stdout.read(1)  # it runs: only now the system shows its command line
            assert find_processes(marker) == find_processes(marker, os.getpid()) == [child.pid]
            assert find_processes(marker, child.pid) == [child.pid]
            assert resident_bytes([child.pid]) > 1 << 20
        finally:
            child.kill()
    assert find_processes(marker) == []
    assert resident_bytes([child.pid]) == 0


def test_own_work_is_not_foreign() -> None:
    before = CpuClock(machine_s=100.0, own_s=10.0)
    cores = len(os.sched_getaffinity(0))
    assert before.foreign_share(CpuClock(103.0, 13.0), wall_s=2.0) == 0
    assert before.foreign_share(CpuClock(100.0 + cores, 10.0), wall_s=2.0) == pytest.approx(0.5)
    assert CpuClock.read().own_s > 0
