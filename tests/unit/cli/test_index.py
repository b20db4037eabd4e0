"""`zenray index` builds, updates, tells and forgets, and says what to do when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner, Result

from zenray.cli.main import app
from zenray.context.index import index_path

WIDE = {"COLUMNS": "200", "TERM": "dumb"}


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["index", *map(str, args)], env=WIDE)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path / "home"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    (folder / "shapes.py").write_text("class Shape:\n    def area(self): ...\n")
    (folder / "sub" / "a.go").write_text("package a\nfunc A() {}\n")
    (folder / ".gitignore").write_text("*.log.py\n")
    (folder / "x.log.py").touch()
    (folder / "server.pem").touch()
    return folder


def words(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_builds_then_updates_and_says_what_it_did(tree: Path) -> None:
    first = words(run(tree))
    for expected in ("python 1 2", "go 1 1", "all 2 3", "files 2 new", "1 ignored", "MB/s", str(index_path(tree))):
        assert expected in first
    (tree / "more.py").write_text("def more(): ...\n")
    (tree / "sub" / "a.go").unlink()
    second = words(run(tree))
    assert "1 new, 1 unchanged, 1 gone" in second
    assert "python 2 3" in second


def test_what_was_left_out_is_counted_in_words(tree: Path) -> None:
    (tree / "__pycache__").mkdir()
    first = words(run(tree))
    assert "1 ignored folder" in first and "folders" not in first
    (tree / "node_modules").mkdir()
    assert "2 ignored folders" in words(run(tree))


def test_status_tells_without_looking_at_the_tree(tree: Path) -> None:
    words(run(tree))
    (tree / "more.py").write_text("def more(): ...\n")
    told = words(run(tree, "--status"))
    assert "all 2 3" in told
    assert "ago, in" in told
    values = json.loads(run(tree, "--status", "--json").stdout)
    assert (values["num_files"], values["num_definitions"], values["report"]["num_added"]) == (2, 3, 2)
    assert [row["language"] for row in values["languages"]] == ["go", "python"]


def test_json_holds_the_update_s_own_report(tree: Path) -> None:
    values = json.loads(run(tree, "--json").stdout)
    assert values["report"]["num_added"] == 2
    assert values["report"]["skipped"]["ignored"] == 1
    assert values["source_bytes"] > 0
    assert values["database_bytes"] > 0


def test_forgets(tree: Path) -> None:
    words(run(tree))
    assert index_path(tree).exists()
    assert "the index is deleted" in words(run(tree, "--forget"))
    assert not index_path(tree).exists()
    assert "there was no index" in words(run(tree, "--forget"))


def test_an_index_of_a_folder_that_is_gone_can_be_forgotten(tree: Path) -> None:
    words(run(tree))
    tree.rename(tree.parent / "elsewhere")
    assert "the index is deleted" in words(run(tree, "--forget"))


def test_the_same_folder_by_other_names_has_one_index(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words(run(tree))
    (tree.parent / "link").symlink_to(tree)
    monkeypatch.chdir(tree / "sub")
    for name in (tree.parent / "link", "..", f"{tree}/"):
        assert "all 2 3" in words(run(name, "--status"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("absent", [], "there is no folder"),
        ("shapes.py", [], "is a file; name the folder of a workspace"),
        (".", ["--status"], "has no index"),
        (".", ["--status"], "make one: zenray index"),
    ],
)
def test_errors_say_what_to_do(tree: Path, name: str, options: list[str], message: str) -> None:
    result = run(tree / name, *options)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_two_updates_at_once_are_refused(tree: Path) -> None:
    words(run(tree))
    with FileLock(f"{index_path(tree)}.lock"):
        result = run(tree)
    assert result.exit_code == 1
    assert "another process updates the index" in result.stderr
    assert "try again in 2.0 s" in result.stderr


def test_options_that_exclude_each_other_are_a_usage_error(tree: Path) -> None:
    assert run(tree, "--status", "--forget").exit_code == 2


def test_help_says_what_is_left_out() -> None:
    text = " ".join(run("--help").stdout.replace("│", " ").split())
    for part in (".zenrayignore", "larger than 1 MB", "only changed files are read", "--forget"):
        assert part in text
