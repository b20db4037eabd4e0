"""Ray starts with what was decided, unless the user decided otherwise."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from zenray.serving import environment
from zenray.serving.environment import RAY_ENVIRONMENT, prepare_environment, put_interpreter_first


def test_what_the_user_set_is_left_alone() -> None:
    variables = {"RAY_AUTH_MODE": "disabled"}
    prepare_environment(variables)
    assert variables == {**RAY_ENVIRONMENT, "RAY_AUTH_MODE": "disabled"}


def test_a_jobs_python_is_the_one_that_runs_here() -> None:
    variables = {"PATH": "/usr/bin"}
    put_interpreter_first(variables)
    assert shutil.which("python", path=variables["PATH"]) == str(Path(sys.executable).with_name("python"))
    once = dict(variables)
    put_interpreter_first(variables)
    assert variables == once


@pytest.mark.parametrize("can_keep", [True, False])
def test_a_token_of_its_own_only_where_rays_cannot_be_kept(can_keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_can_keep_token", lambda: can_keep)
    variables: dict[str, str] = {}
    prepare_environment(variables)
    assert ("RAY_AUTH_TOKEN" in variables) is not can_keep
    given = {"RAY_AUTH_TOKEN_PATH": "/run/secrets/token"}
    prepare_environment(given)
    assert "RAY_AUTH_TOKEN" not in given


def test_a_token_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("x")
    assert environment._can_keep_token()
