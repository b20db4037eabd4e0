"""Typing sessions: what is recorded is what is replayed, and it ends in the files it was made from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.bench.typing_sessions import (
    Edited,
    Moved,
    Opened,
    TypingSession,
    moments,
    read_session,
    recorded_sessions,
    typed_next,
    write_session,
)
from zenray.bench.typing_typist import Passage, SourceFile, record
from zenray.errors import ConfigError

FINISHED = "def größe(liste):\n    return len(liste)\n\n\nprint(größe([1, 2]))\n"
PASSAGE = Passage("a.py", "def größe(liste):", "\n    return len(liste)")


def a_session(seed: int = 0) -> TypingSession:
    files = [SourceFile("a.py", "python", FINISHED), SourceFile("b.py", "python", "x = 1\n")]
    return record("short", files, [PASSAGE, Passage("b.py", "x", "")], seed, "here", "MIT")


def last_texts(session: TypingSession) -> dict[str, str]:
    texts = {event.path: event.text for event in session.events if isinstance(event, Opened)}
    for event in session.events:
        if isinstance(event, Edited):
            texts[event.path] = event.applied_to(texts[event.path])
    return texts


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_file_gives_back_the_session_it_was_written_from(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("session") / "one.jsonl.gz"
    session = a_session(seed)
    write_session(session, path)
    again = path.read_bytes()
    assert read_session(path) == session
    write_session(session, path)
    assert path.read_bytes() == again


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_typist_ends_where_the_finished_files_are(seed: int) -> None:
    assert last_texts(a_session(seed)) == {"a.py": FINISHED, "b.py": "x = 1\n"}


def test_passages_typed_out_of_order_still_end_there() -> None:
    text = "one\ntwo\nthree\n"
    passages = [Passage("a", "two\n", "three\n"), Passage("a", "", "one\n"), Passage("a", "one\n", "two\n")]
    session = record("order", [SourceFile("a", "text", text)], passages, 3, "here", "MIT")
    opened = session.events[0]
    assert isinstance(opened, Opened) and opened.text == ""
    assert last_texts(session) == {"a": text}


def test_the_sessions_that_ship_are_what_the_page_says() -> None:
    sessions = recorded_sessions()
    assert len(sessions) >= 6
    assert {event.language for s in sessions for event in s.events if isinstance(event, Opened)} >= {
        "python",
        "cpp",
        "typescript",
    }
    for session in sessions:
        assert session.license in ("Apache-2.0", "MIT")
        seen = list(moments(session))
        assert 50_000 < session.duration_ms < 100_000
        assert any(moment.quiet_ms is not None and moment.quiet_ms >= 500 for moment in seen)
        assert any(isinstance(event, Edited) and event.remove for event in session.events), "nothing is taken back"
        assert {moment.document.path for moment in seen} | {other.path for other in seen[0].others} == {
            event.path for event in session.events if isinstance(event, Opened)
        }


def test_a_moment_knows_what_is_typed_next_with_mistakes_corrected() -> None:
    first = Edited(0, "a", 2, 10, 0, "r")
    rest = [
        Edited(1, "a", 3, 11, 0, "x"),
        Edited(2, "a", 4, 11, 1, ""),
        Edited(3, "a", 5, 11, 0, "e"),
        Edited(4, "a", 6, 12, 0, "\n  "),
        Moved(5, "a", 0),
        Edited(6, "a", 7, 0, 0, "elsewhere"),
    ]
    assert typed_next(first, rest) == "e\n  "
    assert typed_next(rest[0], rest[1:]) == ""  # type: ignore[arg-type]  # a mistake is not continued
    assert typed_next(rest[1], rest[2:]) == "e\n  "  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(start_ms=st.integers(0, 90_000), length_ms=st.integers(0, 90_000), number=st.integers(0, 5))
def test_an_excerpt_is_the_same_typing_from_the_same_texts(start_ms: int, length_ms: int, number: int) -> None:
    session = recorded_sessions()[number]
    excerpt = session.excerpt(start_ms, length_ms)
    seen = [m for m in moments(session) if start_ms <= m.edit.time_ms < start_ms + length_ms]
    assert [m.document.text for m in moments(excerpt)] == [m.document.text for m in seen]
    assert [m.edit.time_ms for m in moments(excerpt)] == [m.edit.time_ms - start_ms for m in seen]


def test_a_wrong_file_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl.gz"
    head = {"format": "zenray.typing/1", "name": "n", "source": "s", "license": "l", "seed": 0}
    opened = {"time_ms": 0, "open": "a", "language": "python", "text": "abc"}
    edit = {"time_ms": 5, "edit": "a", "version": 2, "offset": 1, "remove": 0, "insert": "x"}
    wrong = {
        "not open": [head, edit],
        "version 3": [head, opened, {**edit, "version": 3}],
        "at 9": [head, opened, {**edit, "offset": 9}],
        "removes 4": [head, opened, {**edit, "remove": 4}],
        "order of time": [head, {**opened, "time_ms": 7}, edit],
        "format is": [{**head, "format": "other"}],
        "not a typing session": [head, {"time_ms": 0}],
    }
    for reason, lines in wrong.items():
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
        with pytest.raises(ConfigError, match=reason):
            read_session(path)
    path.write_bytes(b"plain")
    with pytest.raises(ConfigError, match="not a typing session"):
        read_session(path)


def test_a_passage_that_is_not_there_or_twice_is_refused() -> None:
    files = [SourceFile("a", "text", "x x")]
    for text in ("y", "x"):
        with pytest.raises(ValueError, match="want once"):
            record("n", files, [Passage("a", "", text)], 0, "here", "MIT")
