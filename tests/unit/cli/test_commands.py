"""The other commands: help that helps, status, models, config, and failures without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from zenray.batch.sandbox.model import SandboxUnavailable
from zenray.cli.converting import convert
from zenray.cli.failures import Failure, describe
from zenray.cli.main import app
from zenray.cli.serving import prepare_model
from zenray.config_load import load_config
from zenray.errors import ConfigError, ModelFileError, NotFound, Overloaded, ZenrayError

WIDE = {"COLUMNS": "200", "TERM": "dumb"}


def run(*args: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(args), env={**WIDE, **(env or {})})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class TestHelp:
    def test_names_every_command(self) -> None:
        text = run("--help").stdout
        for command in ("serve", "complete", "models", "status", "bench", "config", "version"):
            assert f" {command} " in text

    def test_complete_states_the_unit_of_a_place(self) -> None:
        text = " ".join(run("complete", "--help").stdout.replace("│", " ").split())
        assert "LINE and COL count from 1, in characters" in text
        for option in ("--prompt", "--prefix", "--suffix", "--stats", "--json", "--max-tokens", "--deadline-ms"):
            assert option in text

    def test_serve_names_profiles_and_set(self) -> None:
        text = " ".join(run("serve", "--help").stdout.replace("│", " ").split())
        assert "local, tiny or gpu" in text
        assert "server.grpc_port=9100" in text

    def test_imports_nothing_heavy(self) -> None:
        code = (
            "import sys\nfrom zenray.cli.main import app\n"
            "from typer.testing import CliRunner\n"
            "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
            "print([m for m in ('torch', 'ray', 'grpc', 'numpy', 'pydantic', 'fastapi') if m in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "[]\n"

    def test_an_unknown_command_is_a_usage_error(self) -> None:
        result = run("serv")
        assert result.exit_code == 2
        assert "serve" in result.stderr

    def test_version(self) -> None:
        assert run("--version").stdout.startswith("zenray ")
        assert "torch " in run("version").stdout


class TestStatus:
    def test_says_what_is_up_and_how_busy(self, fake_server: Any) -> None:
        text = run("status", "--address", fake_server.address).stdout
        for words in ("toy-coder", "qwen2, 1.54 B, mixed, context 8,192", "2 running, 1 of at most 64 waiting"):
            assert words in text
        assert "1,234 tokens since start" in text
        assert "4,321 tokens since start" in text
        assert "10 in use, 30 cached, 100 in all" in text
        assert "1,000 tokens, 25% from the prefix cache" in text
        assert "617, 2.00 tokens each" in text
        assert "50% of 1,200 tokens accepted, 3.00 tokens/round, 0.9 s drafting" in text
        assert "2 replicas, answers 12 ms old, 4 late" in text
        assert "no draft verified yet" in text

    def test_json(self, fake_server: Any) -> None:
        found = json.loads(run("status", "--json", "--address", fake_server.address).stdout)
        assert found["model"]["name"] == "toy-coder"
        assert found["load"]["generated_tokens"] == 1234
        assert [drafter["accepted_tokens"] for drafter in found["load"]["drafters"]] == [600, 0]
        assert found["verifier_replicas"] == 1

    def test_nothing_up_is_exit_code_1(self) -> None:
        result = run("status", "--address", "127.0.0.1:9")
        assert result.exit_code == 1
        assert "no zenray server answers at 127.0.0.1:9" in result.stderr


class TestModels:
    def test_list(self) -> None:
        text = run("models", "list").stdout
        assert "smollm2-135m" in text
        assert "not here" in text
        states = {entry["name"]: entry["state"] for entry in json.loads(run("models", "list", "--json").stdout)}
        assert states["qwen2.5-coder-0.5b"] == "not here"

    def test_inspect_what_is_not_here_says_how_to_get_it(self) -> None:
        result = run("models", "inspect", "smollm2-135m")
        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            "error: smollm2-135m is not on this machine",
            "  fetch it: zenray models pull smollm2-135m",
        ]

    def test_a_name_nobody_knows(self) -> None:
        result = run("models", "pull", "smollm2")
        assert result.exit_code == 1
        assert "did you mean 'smollm2-135m'?" in result.stderr

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        path.write_text("hello")
        result = run("models", "import", str(path))
        assert result.exit_code == 1
        assert "not a GGUF file" in result.stderr


class TestConfig:
    def test_show_prints_a_file_that_reads_back(self, tmp_path: Path) -> None:
        text = run("config", "show", "--profile", "tiny", "--set", "server.grpc_port=9100").stdout
        assert "grpc_port: 9100  # --set server.grpc_port" in text
        path = tmp_path / "shown.yaml"
        path.write_text(text)
        assert load_config("local", path) == load_config("tiny", None, ["server.grpc_port=9100"])
        assert yaml.safe_load(text)["model"]["name"] == "preset:tiny"

    def test_list_names_the_profiles(self) -> None:
        text = run("config", "list").stdout
        assert "local (default)" in text
        assert "preset:tiny" in text

    def test_a_wrong_key_is_one_line_and_no_traceback(self) -> None:
        result = run("serve", "--profile", "tiny", "--set", "server.grpc_prt=1")
        assert result.exit_code == 1
        assert "did you mean server.grpc_port?" in result.stderr
        assert "Traceback" not in result.output

    def test_an_unknown_profile(self) -> None:
        result = run("serve", "--profile", "locl")
        assert result.exit_code == 1
        assert "did you mean 'local'" in result.stderr


class TestPreparing:
    def test_a_model_that_is_nowhere(self) -> None:
        with pytest.raises(NotFound, match="did you mean 'smollm2-135m'"):
            prepare_model("smollm2", "int8")

    def test_a_preset_needs_nothing(self) -> None:
        prepare_model("preset:tiny", "float32")

    def test_a_conversion_that_fails_says_why(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        path.write_text("not a model")
        with pytest.raises(ModelFileError, match=r"x\.gguf"):
            convert(path, "int8", lambda done, total, what: None)


class TestFailures:
    def test_what_to_do_next_stands_on_its_own_line(self) -> None:
        failure = describe(ModelFileError("toy is not on this machine; fetch it: zenray models pull toy"))
        assert (failure.message, failure.hint) == ("toy is not on this machine", "fetch it: zenray models pull toy")

    def test_several_mistakes_are_a_list(self) -> None:
        failure = describe(ConfigError("a is 1\nb is 2"))
        assert failure.lines == ("a is 1", "b is 2")

    def test_a_retry_time_is_said(self) -> None:
        assert describe(Overloaded("full", retry_ms=250)).hint == "try again in 0.2 s"

    def test_many_lines_are_no_wrong_configuration_by_themselves(self) -> None:
        assert describe(ZenrayError("a stage failed: it\nbroke")) == Failure("a stage failed: it", ("broke",))

    def test_what_is_missing_here_is_not_waited_for(self) -> None:
        assert describe(SandboxUnavailable("bwrap is not installed")).hint == ""

    def test_a_file_that_cannot_be_written_names_it(self) -> None:
        assert describe(PermissionError(13, "Permission denied", "/x")).message == "/x: Permission denied"

    def test_the_unexpected_offers_the_traceback(self) -> None:
        failure = describe(KeyError("x"))
        assert "KeyError" in failure.message
        assert "--debug" in failure.hint
