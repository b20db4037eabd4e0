"""`zenray complete`: what is sent, what is shown, and how it ends when something goes wrong."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from zenray.cli.main import app
from zenray.errors import Unavailable
from zenray.v1 import common_pb2, completion_pb2

CODE = "def add(a, b):\n    \n\nprint(add(1, 2))\n"


def run(*args: str, input: str | bytes | None = None, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, list(args), input=input, env=env)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "calc.py"
    path.write_text(CODE)
    return path


class TestRequest:
    def test_a_place_in_a_file(self, fake_server: Any, source: Path) -> None:
        result = run("complete", "calc.py:2:5", "--address", fake_server.address)
        assert result.exit_code == 0
        (request,) = fake_server.requests
        assert request.editor.path == "calc.py"
        assert request.editor.text == CODE
        assert request.editor.cursor.offset == CODE.index("    \n") + 4
        assert request.editor.cursor.unit == completion_pb2.POSITION_UNIT_CODE_POINT

    def test_only_what_was_given_is_set(self, fake_server: Any) -> None:
        run("complete", "--prompt", "x", "--address", fake_server.address)
        (request,) = fake_server.requests
        assert request.prompt == "x"
        assert request.sampling.ListFields() == request.limits.ListFields() == []

    def test_every_option_reaches_the_server(self, fake_server: Any) -> None:
        given = {
            "--temperature": "0.5", "--top-k": "7", "--top-p": "0.9", "--seed": "3", "--n": "2", "--max-tokens": "9",
            "--max-lines": "2", "--deadline-ms": "8000", "--model": "toy-coder",
        }  # fmt: skip
        options = [part for pair in given.items() for part in pair]
        run(
            "complete",
            "--prefix",
            "a",
            "--suffix",
            "b",
            *options,
            "--stop",
            "\n\n",
            "--stop",
            "#",
            "--address",
            fake_server.address,
        )
        (request,) = fake_server.requests
        assert (request.infill.prefix, request.infill.suffix, request.model) == ("a", "b", "toy-coder")
        sampling, limits = request.sampling, request.limits
        assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed, sampling.n) == (0.5, 7, 0.9, 3, 2)
        assert (limits.max_tokens, limits.max_lines, limits.deadline_ms, list(limits.stop)) == (
            9,
            2,
            8000,
            ["\n\n", "#"],
        )

    def test_stdin_and_the_environment(self, fake_server: Any) -> None:
        result = run("complete", "--prompt", "-", input="größe = ", env={"ZENRAY_ADDRESS": fake_server.address})
        assert result.exit_code == 0
        assert fake_server.requests[0].prompt == "größe = "


class TestMistakes:
    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["--prompt", "a", "calc.py:1:1"], "FILE:LINE:COL and --prompt were given"),
            (["--max-tokens", "3"], "nothing was given"),
            (["gone.py:1:1"], "a readable file (No such file or directory)"),
            (["calc.py:9:1"], "LINE is 9; allowed: 1 to 5, the lines of calc.py"),
            (["calc.py:0:1"], "LINE is 0"),
            (["calc.py:2:7"], "COL is 7; allowed: 1 to 5 on line 2 of calc.py"),
            (["latin.py:1:1"], "a UTF-8 text; its byte 3 is not"),
            (["."], "a readable file"),
            (["--prompt", "a", "--seed", str(2**64)], "--seed is 18446744073709551616"),
            (["--prompt", "a", "--temperature", "warm"], "Invalid value for '--temperature'"),
        ],
    )
    def test_usage_is_exit_code_2_and_reaches_no_server(self, source: Path, args: list[str], words: str) -> None:
        (source.parent / "latin.py").write_bytes(b"x =\xe9\n")
        result = run("complete", *args, "--address", "127.0.0.1:9", env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize("address", ["localhost", "http://127.0.0.1:9000", "127.0.0.1:port", "a:70000", ""])
    def test_what_is_no_address(self, address: str) -> None:
        result = run("complete", "--prompt", "a", "--address", address, env={"COLUMNS": "200"})
        assert result.exit_code == 2
        assert "is no address; allowed: HOST:PORT" in result.stderr

    def test_a_message_grpc_refuses_is_not_a_full_queue(self, fake_server: Any) -> None:
        result = run("complete", "--prompt", "x" * 5_000_000, "--address", fake_server.address)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: RESOURCE_EXHAUSTED: ")

    def test_no_server(self) -> None:
        result = run("complete", "--prompt", "a", "--address", "127.0.0.1:9")
        assert result.exit_code == 1
        assert result.stderr.splitlines()[0] == "error: no zenray server answers at 127.0.0.1:9"
        assert "zenray serve" in result.stderr

    @pytest.mark.parametrize(
        ("prompt", "lines"),
        [
            ("busy", ["error: the server is busy: 64 requests wait already", "  try again in 1.5 s"]),
            ("draining", ["error: the server cannot serve now: the server is draining", "  try again in 0.5 s"]),
            (
                "bad",
                [
                    "error: the server refuses the request",
                    "  - sampling.temperature is -1.0; allowed: 0 to 10",
                    "  - limits.max_tokens is 99999; allowed: at most 4096",
                ],
            ),
            ("bad-one", ["error: sampling.top_p is 3.0; allowed: above 0, up to 1"]),
        ],
    )
    def test_what_the_server_says_is_shown(self, fake_server: Any, prompt: str, lines: list[str]) -> None:
        result = run("complete", "--prompt", prompt, "--address", fake_server.address)
        assert result.exit_code == 1
        assert result.stderr.splitlines() == lines

    def test_a_stream_that_breaks_keeps_what_came(self, fake_server: Any) -> None:
        fake_server.fail_after = (2, Unavailable("the verifier died", retry_ms=100))
        result = run("complete", "--prompt", "x", "--address", fake_server.address)
        assert result.exit_code == 1
        assert result.stdout == "return a + b"
        assert "the verifier died" in result.stderr

    def test_debug_shows_the_traceback(self) -> None:
        result = run("--debug", "complete", "--prompt", "a", "--address", "127.0.0.1:9")
        assert type(result.exception).__name__ == "CallFailed"


class TestOutput:
    def test_a_pipe_gets_the_text_byte_for_byte(self, fake_server: Any) -> None:
        fake_server.pieces = ("\tx = 1\r\n", "\x1b[31m", "é")
        result = run("complete", "--prompt", "x", "--address", fake_server.address)
        assert result.stdout_bytes == "\tx = 1\r\n\x1b[31mé".encode()
        assert result.stderr == ""

    def test_stats_go_beside_it(self, fake_server: Any) -> None:
        result = run("complete", "--prompt", "x", "--stats", "--address", fake_server.address)
        assert result.stdout == "return a + b\n"
        assert re.search(r"TTFT \d+ ms \(server 21 ms\) · .*6 tokens in [\d.]+ s", result.stderr)
        assert "prompt 12 tokens, 8 cached" in result.stderr
        assert "EOS (the model ended)" in result.stderr

    def test_stats_tell_what_each_drafter_did(self, fake_server: Any) -> None:
        fake_server.drafters = (
            common_pb2.DrafterUsage(drafter="suffix", rounds=1, drafted_tokens=4, accepted_tokens=3),
            common_pb2.DrafterUsage(drafter="recycling", rounds=1, drafted_tokens=2, accepted_tokens=0),
        )
        complete = ("complete", "--prompt", "x", "--stats", "-n", "2", "--address", fake_server.address)
        text = run(*complete).stderr
        assert "12 tokens in 6 verifier rounds, 2.00 each (1 without drafts):" in text
        rows = [line.split() for line in text.splitlines()]
        assert ["suffix", "2", "8", "6", "75%", "4.00", "2"] in rows
        assert ["recycling", "2", "4", "0", "0%", "1.00", "4"] in rows
        assert ["no", "draft", "2", "1.00"] in rows
        stats = json.loads(run(*complete, "--json").stdout.splitlines()[-1])
        assert (stats["rounds"], stats["tokens_per_round"]) == (6, 2)
        assert stats["drafters"][0] == {
            "drafter": "suffix", "rounds": 2, "drafted_tokens": 8, "accepted_tokens": 6, "acceptance": 0.75,
        }  # fmt: skip

    def test_without_drafters_stats_have_no_table(self, fake_server: Any) -> None:
        text = run("complete", "--prompt", "x", "--stats", "--address", fake_server.address).stderr
        assert "rounds" not in text

    def test_json_is_one_object_per_event(self, fake_server: Any) -> None:
        result = run("complete", "--prompt", "x", "--json", "--stats", "--address", fake_server.address)
        events = [json.loads(line) for line in result.stdout.splitlines()]
        assert [event["event"] for event in events] == ["started", "delta", "delta", "delta", "final", "stats"]
        assert events[0] == {"event": "started", "request_id": "r1", "prompt_tokens": 12, "cached_tokens": 8}
        assert "".join(event["text"] for event in events[1:4]) == events[4]["text"] == "return a + b\n"
        assert events[4]["finish_reason"] == "EOS"
        assert events[4]["usage"] == {
            "prompt_tokens": 12, "completion_tokens": 6, "cached_tokens": 8, "saved_tokens": 0, "rounds": 3,
        }  # fmt: skip
        assert events[5]["ttft_ms"] > 0
        assert events[5]["cached_tokens"] == 8

    def test_several_choices_are_told_apart(self, fake_server: Any) -> None:
        result = run("complete", "--prompt", "x", "-n", "2", "--address", fake_server.address)
        assert result.stdout == "--- choice 1 of 2\nreturn a + b\n--- choice 2 of 2\nreturn a + b\n"


def start(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "zenray.cli.main", *args], **options)


def read_terminal(master: int) -> bytes:
    seen = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the other end is closed
            return seen
        if not chunk:
            return seen
        seen += chunk


class TestProcess:
    """A real process with a real terminal or pipe."""

    def test_on_a_terminal_the_text_stands_highlighted_in_its_surroundings(
        self, fake_server: Any, source: Path
    ) -> None:
        fake_server.pieces = ("return a", " + b", "\x1b]0;pwned\x07")
        master, slave = pty.openpty()
        process = start(
            "complete", f"{source}:2:5", "--address", fake_server.address,
            stdout=slave, stderr=slave, stdin=slave, env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": ""},
        )  # fmt: skip
        os.close(slave)
        seen = read_terminal(master)
        os.close(master)
        assert process.wait(30) == 0
        plain = re.sub(rb"\x1b\[[0-9;]*m", b"", seen).replace(b"\r\n", b"\n").decode()
        assert plain == "def add(a, b):\n    return a + b␛]0;pwned␇\n\nprint(add(1, 2))\n"
        assert b"\x1b]0" not in seen
        assert b"\x1b[1;32mreturn a" in seen
        assert b"\x1b[2m" in seen

    def test_ctrl_c_cancels_the_call_and_ends_quietly(self, fake_server: Any) -> None:
        fake_server.hold = True
        process = start(
            "complete", "--prompt", "x", "--address", fake_server.address,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.read(len("return ")) == b"return "
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert fake_server.cancelled.wait(30)
        assert process.returncode == 130
        assert out == b""
        assert b"Traceback" not in err

    def test_a_reader_that_leaves_is_no_error_message(self, fake_server: Any) -> None:
        fake_server.pieces = ("x" * 70_000,) * 40
        process = start(
            "complete", "--prompt", "x", "--address", fake_server.address,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == b""
        process.stderr.close()
