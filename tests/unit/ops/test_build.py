"""Building the kernels: once, whole or not at all, and with a fallback that says why."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from zenray.errors import ConfigError
from zenray.ops import backend_for, build, choose, native, pack
from zenray.ops.cpu import CpuBackend


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("ZENRAY_KERNELS", raising=False)
    monkeypatch.setattr(build, "cpu_features", lambda: build.REQUIRED_FEATURES)
    native.kernels.cache_clear()
    choose._warn_once.cache_clear()


def fake_compiler(folder: Path, script: str) -> str:
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_torch_serves_and_one_warning_says_what_to_install(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        backends = [backend_for("cpu", torch.bfloat16) for _ in range(2)]
    assert [backend.name for backend in backends] == ["cpu-torch", "cpu-torch"]
    assert len(caplog.records) == 1
    assert "no-such-compiler" in caplog.text
    assert "install" in caplog.text
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    assert backends[0].linear(x, pack(torch.ones(3, 64), "int4")).tolist() == [[64.0] * 3]


@pytest.mark.usefixtures("no_compiler")
def test_insisting_on_compiled_kernels_is_an_error_without_a_compiler() -> None:
    with pytest.raises(ConfigError, match="no-such-compiler"):
        backend_for("cpu", torch.bfloat16, kernels="compiled")


def test_the_environment_chooses_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENRAY_KERNELS", "torch")
    assert backend_for("cpu", torch.bfloat16).name == "cpu-torch"
    monkeypatch.setenv("ZENRAY_KERNELS", "reference")
    assert backend_for("cpu", torch.bfloat16).name == "reference"
    monkeypatch.setenv("ZENRAY_KERNELS", "fast")
    with pytest.raises(ConfigError, match=r"'fast'.*auto, compiled, torch, reference"):
        backend_for("cpu", torch.bfloat16)
    monkeypatch.delenv("ZENRAY_KERNELS")
    assert backend_for("cpu", torch.float32).name == "reference"


def test_a_missing_processor_feature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cpu_features", lambda: build.REQUIRED_FEATURES - {"avx512_vnni"})
    with pytest.raises(build.KernelsUnavailable, match="avx512_vnni"):
        build.library()


def test_a_failing_compiler_is_quoted_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = 'test "$1" = --version && exit 0; echo "x.cpp:1:2: error: no luck today" >&2; exit 1'
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, script))
    monkeypatch.setattr(build, "cpu_features", lambda: build.REQUIRED_FEATURES)
    with pytest.raises(build.KernelsUnavailable, match="no luck today"):
        build.library(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.so"))


def test_an_unwritable_cache_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "cpu_features", lambda: build.REQUIRED_FEATURES)
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, "exit 0"))
    (tmp_path / "file").touch()
    with pytest.raises(build.KernelsUnavailable, match="cannot write the kernel cache"):
        build.library(tmp_path / "file" / "cache")


@pytest.mark.usefixtures("compiled")
def test_processes_that_start_together_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    real = build.find_compiler()
    script = f'test "$1" = --version || echo built >> {log}\nexec {real} "$@"'
    environment = {**os.environ, "CXX": fake_compiler(tmp_path, script)}
    program = (
        "import sys, pathlib\n"
        "from zenray.ops import build, native\n"
        "path = build.library(pathlib.Path(sys.argv[1]))\n"
        "native.Kernels(path)\n"
        "print(path)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(paths) == 1
    assert log.read_text().splitlines() == ["built"]
    assert [path.name for path in Path(paths.pop()).parent.glob("*.so*")] == ["zenray_kernels.so"]


def test_no_second_openmp_runtime_is_loaded(compiled: CpuBackend) -> None:
    compiled.rms_norm(torch.ones(1, 8, dtype=torch.bfloat16), torch.ones(8), 1e-6)
    maps = Path("/proc/self/maps").read_text().splitlines()
    runtimes = {line.split()[-1] for line in maps if re.match(r"lib(g|i)?omp", Path(line.split()[-1]).name)}
    assert len(runtimes) <= 1, runtimes


def test_callers_on_several_threads_do_not_disturb_each_other(compiled: CpuBackend) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 512, generator=generator).bfloat16()
    weight = pack(torch.randn(700, 512, generator=generator), "int4")
    expected = compiled.linear(x, weight)
    wrong: list[int] = []

    def call() -> None:
        torch.set_num_threads(2)
        wrong.extend(i for i in range(200) if not torch.equal(compiled.linear(x, weight), expected))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_computes_too(compiled: CpuBackend) -> None:
    """Threads do not survive a fork: the child starts its own team."""
    x = torch.ones(2, 256, dtype=torch.bfloat16)
    weight = pack(torch.ones(600, 256), "bf16")
    assert float(compiled.linear(x, weight)[1, 599]) == 256
    child = os.fork()
    if child == 0:
        os._exit(0 if float(compiled.linear(x, weight)[1, 599]) == 256 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
