"""`zenray complete` as an editor: files open beside, the suggestion made of the text, and the prompt explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from zenray.cli.main import app
from zenray.context.index import build_index
from zenray.v1 import completion_pb2, context_pb2

CODE = "def add(a, b):\n    \n"


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["complete", *args], env={"COLUMNS": "160"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "calc.py").write_text(CODE)
    (tmp_path / "src" / "other.py").write_text("x = 1\n")
    return tmp_path


def piece(source: int, text: str, tokens: int, **where: Any) -> context_pb2.ContextPiece:
    return context_pb2.ContextPiece(source=source, text=text, token_count=tokens, **where)


PROMPT = context_pb2.AssembleResponse(
    token_ids=range(40),
    token_budget=64,
    assemble_ms=3.25,
    dropped_tokens=1200,
    forced_prefix="ad",
    pieces=[
        piece(completion_pb2.CONTEXT_SOURCE_CONTROL, "<|file_sep|>", 1),
        piece(completion_pb2.CONTEXT_SOURCE_FILE_HEADER, "src/other.py\n", 4, path="src/other.py"),
        piece(
            completion_pb2.CONTEXT_SOURCE_OPEN_FILE, "x = \x1b[31m1\n", 15, path="src/other.py", end_line=1, score=0.05
        ),
        piece(completion_pb2.CONTEXT_SOURCE_PREFIX, "    return ", 20, path="src/calc.py", start_line=1, end_line=3),
    ],
    dropped_pieces=[
        context_pb2.DroppedPiece(
            source=completion_pb2.CONTEXT_SOURCE_CLIPBOARD, end_line=9, score=0.01, reason="duplicate"
        )
    ],
)


class TestSession:
    def test_other_files_are_opened_for_a_session_that_ends_with_the_command(
        self, fake_server: Any, folder: Path
    ) -> None:
        result = run(
            "src/calc.py:2:5", "--open", "src/other.py", "--workspace", "src", "--address", fake_server.address
        )
        assert result.exit_code == 0
        named, opened, ended = fake_server.document_events
        assert named.workspace.root == str(folder / "src")
        assert (opened.opened.path, opened.opened.text) == ("other.py", "x = 1\n")
        assert ended.WhichOneof("event") == "ended"
        (request,) = fake_server.requests
        assert request.editor.path == "calc.py"
        assert request.session_id == named.session_id == ended.session_id != ""

    def test_a_workspace_without_an_index_is_told_how_to_get_one(
        self, fake_server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ZENRAY_HOME", str(folder / "home"))
        asked = ("src/calc.py:2:5", "--workspace", "src", "--address", fake_server.address)
        before = run(*asked)
        assert "src has no index; make one: zenray index src" in before.stderr
        build_index(folder / "src")
        after = run(*asked)
        assert "no index" not in after.stderr
        assert before.stdout == after.stdout != ""

    def test_a_session_that_was_named_goes_on(self, fake_server: Any, folder: Path) -> None:
        run("src/calc.py", "--open", "src/other.py", "--session", "mine", "--address", fake_server.address)
        (opened,) = fake_server.document_events
        assert (opened.session_id, opened.opened.path) == ("mine", "src/other.py")
        assert fake_server.requests[0].session_id == "mine"

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["src/calc.py", "--open", "gone.py"], "--open is 'gone.py'; allowed: a readable file"),
            (["src/calc.py", "--workspace", "gone"], "--workspace is 'gone'; allowed: a folder"),
            (["--prompt", "x", "--open", "src/other.py"], "which was not given"),
        ],
    )
    def test_mistakes_reach_no_server(self, folder: Path, args: list[str], words: str) -> None:
        result = run(*args, "--address", "127.0.0.1:9")
        assert result.exit_code == 2
        assert words in result.stderr


class TestSuggestion:
    def test_a_pipe_gets_the_suggestion_and_raw_the_text(self, fake_server: Any, folder: Path) -> None:
        fake_server.suggestion = completion_pb2.Suggestion(text="return a", changes=["overlap removed"])
        assert run("src/calc.py:2:5", "--address", fake_server.address).stdout == "return a"
        assert run("src/calc.py:2:5", "--raw", "--address", fake_server.address).stdout == "return a + b\n"
        assert "overlap removed" in run("src/calc.py:2:5", "--stats", "--address", fake_server.address).stderr

    def test_a_server_that_makes_none_is_taken_at_its_word(self, fake_server: Any, folder: Path) -> None:
        assert run("src/calc.py:2:5", "--address", fake_server.address).stdout == "return a + b\n"

    def test_json_has_both(self, fake_server: Any, folder: Path) -> None:
        echo = completion_pb2.SUGGESTION_FILTER_PREFIX_ECHO
        fake_server.suggestion = completion_pb2.Suggestion(filter=echo)
        final = json.loads(run("src/calc.py", "--json", "--address", fake_server.address).stdout.splitlines()[-1])
        assert final["text"] == "return a + b\n"
        assert final["suggestion"] == {"text": "", "filter": "PREFIX_ECHO", "changes": []}


class TestExplain:
    def test_the_prompt_its_sources_and_what_was_left_out(self, fake_server: Any, folder: Path) -> None:
        fake_server.prompt = PROMPT
        result = run("src/calc.py:2:5", "--explain", "--address", fake_server.address)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert lines[:3] == ["<|file_sep|>src/other.py", "x = ␛[31m1", "    return ad"]
        bar = next(line for line in lines if line.startswith("█"))
        assert (len(bar), bar.count("·")) == (72, 72 - round(72 * 40 / 64))
        assert "40 of 64 tokens · assembled in 3.2 ms · about 1,200 tokens of this file left out" in lines
        rows = [line.split() for line in lines]
        assert ["██", "open", "file", "src/other.py:1", "0.0500", "15", "38%"] in rows
        assert ["██", "before", "the", "cursor", "src/calc.py:2–3", "20", "50%"] in rows
        assert ["██", "control", "tokens", "and", "names", "5", "12%"] in rows
        assert "clipboard" in result.stdout
        assert "says what the prompt says already" in result.stdout

    def test_as_json(self, fake_server: Any, folder: Path) -> None:
        fake_server.prompt = PROMPT
        shown = json.loads(run("src/calc.py", "--explain", "--json", "--address", fake_server.address).stdout)
        assert shown["event"] == "prompt"
        assert [each["token_count"] for each in shown["pieces"]] == [1, 4, 15, 20]
        assert shown["dropped_pieces"][0]["reason"] == "duplicate"
