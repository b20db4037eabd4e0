"""What may be asked of a sandbox, without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.sandbox import Execution, Limits, SandboxUnavailable
from zenray.batch.sandbox import runtime as runtime_module
from zenray.batch.sandbox.seccomp import seccomp_program
from zenray.errors import InvalidRequest


@pytest.mark.parametrize("name", ["wall_s", "cpu_s", "memory_mib", "file_mib", "scratch_mib", "num_processes"])
def test_a_limit_of_nothing_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"limits\.{name} is 0; allowed: more than 0"):
        Limits(**{name: 0})


@given(st.lists(st.sampled_from(["a", "b c", "..", ".", "", "x.py"]), min_size=1, max_size=4).map("/".join))
def test_a_file_never_leaves_the_scratch_folder(path: str) -> None:
    inside = not {"", ".", ".."} & set(path.split("/"))
    if inside:
        assert Execution({path: ""}, path).entry == path
    else:
        with pytest.raises(InvalidRequest, match="relative paths"):
            Execution({path: ""}, path)


def test_the_entry_is_a_file_and_a_seed_one_that_python_takes() -> None:
    with pytest.raises(InvalidRequest, match=r"entry is 'b\.py'"):
        Execution({"a.py": ""}, "b.py")
    for seed in (-1, 2**32):
        with pytest.raises(InvalidRequest, match="hash_seed"):
            Execution({"a.py": ""}, "a.py", hash_seed=seed)


def test_requirements_come_along_without_optional_parts() -> None:
    found = runtime_module._with_requirements(("PyTest",))
    assert {"pytest", "pluggy", "iniconfig", "packaging"} <= found
    assert not found & {"hypothesis", "requests", "attrs"}  # Of its extra "dev".


def test_a_folder_that_others_may_write_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_HOME", tmp_path)
    home = runtime_module._private_home()
    assert home.stat().st_mode & 0o777 == 0o755
    home.chmod(0o777)
    with pytest.raises(SandboxUnavailable, match="can be written by others"):
        runtime_module._private_home()
    home.rmdir()
    home.symlink_to(tmp_path)
    with pytest.raises(SandboxUnavailable, match="can be written by others"):
        runtime_module._private_home()


def test_a_runtime_is_written_once_and_named_by_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        runtime_module.find_interpreter()
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(runtime_module, "_HOME", tmp_path)
    make = runtime_module.runtime_folder.__wrapped__
    bare, with_coverage = make(()), make(("coverage",))
    assert bare != with_coverage and (with_coverage / "packages/coverage/__init__.py").is_file()
    written = {path: path.stat().st_mtime_ns for path in bare.rglob("*")}
    assert make(()) == bare and {path: path.stat().st_mtime_ns for path in bare.rglob("*")} == written
    assert all(path.stat().st_mode & 0o022 == 0 for path in with_coverage.rglob("*"))


def test_an_interpreter_in_a_closed_folder_is_passed_by(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "python").touch()
    assert not runtime_module._anyone_reaches(tmp_path / "python")
    assert runtime_module._anyone_reaches(Path("/usr"))


def test_the_filter_is_a_program_of_whole_instructions() -> None:
    try:
        program = seccomp_program()
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    assert program and len(program) % 8 == 0 and program == seccomp_program.__wrapped__()
