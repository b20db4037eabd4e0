"""FILE:LINE:COL as editors print it: both from 1, in characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.cli.target import read_target
from zenray.errors import InvalidRequest

TEXT = "ab\r\ncd\n\tñ🙂x\rlast"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "doc.txt"
    path.write_bytes(TEXT.encode())
    return path


@pytest.mark.parametrize(
    ("place", "before"),
    [
        (":1:1", ""),
        (":1:2", "a"),
        (":1:3", "ab"),
        (":1", "ab"),
        (":2:1", "ab\r\n"),
        (":3:2", "ab\r\ncd\n\t"),
        (":3:4", "ab\r\ncd\n\tñ🙂"),
        (":3:5", "ab\r\ncd\n\tñ🙂x"),
        (":2:", "ab\r\ncd"),  # as grep -n and compilers print it
        (":2:1:", "ab\r\n"),
        (":4:5", TEXT),
        (":4", TEXT),
        ("", TEXT),
    ],
)
def test_the_cursor_stands_before_the_character(document: Path, place: str, before: str) -> None:
    target = read_target(f"{document}{place}")
    assert target.prefix == before
    assert target.prefix + target.suffix == TEXT


@pytest.mark.parametrize("place", [":0:1", ":5:1", ":1:0", ":1:4", ":4:6"])
def test_beyond_the_text_is_refused(document: Path, place: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed: 1 to"):
        read_target(f"{document}{place}")


def test_a_last_newline_starts_one_more_line(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("x\n")
    assert read_target(f"{path}:2:1").offset == 2
    path.write_text("")
    assert read_target(f"{path}:1:1").offset == 0


def test_a_path_that_looks_like_a_place(tmp_path: Path) -> None:
    path = tmp_path / "odd:3:4"
    path.write_text("abc")
    assert read_target(str(path)).offset == 3
    assert read_target(f"{path}:1:2").offset == 1


def test_the_path_is_shown_relative_to_here(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_target(str(document)).shown_path == "doc.txt"
    elsewhere = tmp_path / "sub"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert read_target(str(document)).shown_path == "doc.txt"
