"""A session is exactly what its events say, within its bounds, whatever they are."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from zenray.config import ContextSettings
from zenray.context.cursors import LinePosition, OffsetPosition, PositionUnit
from zenray.context.document_events import (
    ClipboardCopied,
    DocumentClosed,
    DocumentEdited,
    DocumentOpened,
    FileUploaded,
    RangeViewed,
    SessionEnded,
    TextEdit,
    WorkspaceNamed,
)
from zenray.context.index.build import build_index
from zenray.context.pieces import ContextSource, Snippet
from zenray.context.request import EditorState, TrackedEditor
from zenray.context.session import CLIPBOARD_LIFE_S, MAX_CLIPBOARD_CHARACTERS, MAX_VIEWED_RANGES
from zenray.context.sessions import SessionStore
from zenray.context.surroundings import Document, RecentEdit, Surroundings, ViewedRange
from zenray.errors import InvalidRequest, StaleDocument

POINTS = PositionUnit.CODE_POINT
MIB = 1024 * 1024


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Symbols:
    """An index that knows what it was given, and answers with one snippet a file."""

    def __init__(self, **files: str) -> None:
        self.files = dict(files)

    def put(self, path: str, text: str) -> None:
        self.files[path] = text

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def is_private(self, path: str) -> bool:
        return False

    def is_withheld(self, path: str) -> bool:
        return path.startswith("withheld/")

    def definitions(self, names: object, language: str, limit: int) -> list[Snippet]:
        return [Snippet(ContextSource.DEFINITION, path, text) for path, text in self.files.items()][:limit]

    def exports(self, modules: object, importer_path: str, language: str, limit: int) -> list[Snippet]:
        return [Snippet(ContextSource.IMPORT, path, text) for path, text in self.files.items()][:limit]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where indexes are kept."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ZENRAY_HOME", str(folder))
    return folder


@pytest.fixture
def store(clock: Clock) -> SessionStore:
    return SessionStore(ContextSettings(), clock, new_uploads=Symbols)


def opened(path: str, text: str, version: int = 1) -> DocumentOpened:
    return DocumentOpened(path, "", text, version)


def put_in(at: int, text: str) -> TextEdit:
    return TextEdit(OffsetPosition(at), OffsetPosition(at), POINTS, text)


def typed(path: str, base: int, at: int, text: str, content_hash: str = "") -> DocumentEdited:
    return DocumentEdited(path, base, base + 1, (put_in(at, text),), content_hash)


def tracked(path: str, version: int, offset: int = 0, content_hash: str = "") -> TrackedEditor:
    return TrackedEditor(path, "", version, content_hash, OffsetPosition(offset), POINTS)


def texts(around: Surroundings) -> dict[str, str]:
    return {document.path: document.text for document in around.documents}


def test_a_request_names_a_version_and_gets_the_text(store: SessionStore) -> None:
    store.apply("s", DocumentOpened("a.py", "", "def f(\n", 7, sha("def f(\n")))
    store.apply("s", typed("a.py", 7, 6, "x)"))
    state = store.resolve("s", tracked("a.py", 8, 8, sha("def f(x)\n")))
    assert state == EditorState("a.py", "python", "def f(x)\n", 8)
    in_utf16 = replace(tracked("a.py", 8), position=LinePosition(0, 4), unit=PositionUnit.UTF16_CODE_UNIT)
    assert store.resolve("s", in_utf16).cursor_offset == 4
    assert store.resolve("s", replace(tracked("a.py", 8), language="cython")).language == "cython"
    with pytest.raises(InvalidRequest, match=r"editor\.cursor\.offset"):
        store.resolve("s", tracked("a.py", 8, 10))


def test_the_first_line_may_say_the_language(store: SessionStore) -> None:
    store.apply("s", opened("tool", "#!/usr/bin/env python3\nx = 1\n"))
    store.apply("s", DocumentOpened("other", "lua", "#!/usr/bin/env python3\n", 1))
    assert [document.language for document in store.surroundings("s", "").documents] == ["lua", "python"]


def test_edits_of_one_event_build_on_each_other_and_apply_wholly_or_not_at_all(store: SessionStore) -> None:
    store.apply("s", opened("a.py", "ab"))
    insert = put_in(2, "\ncd")
    within = TextEdit(LinePosition(1, 1), LinePosition(1, 2), POINTS, "🙂")
    store.apply("s", DocumentEdited("a.py", 1, 2, (insert, within)))
    assert store.resolve("s", tracked("a.py", 2)).text == "ab\nc🙂"
    outside = put_in(9, "x")
    before = store.surroundings("s", "")
    with pytest.raises(InvalidRequest) as raised:
        store.apply("s", DocumentEdited("a.py", 2, 3, (insert, outside)))
    assert raised.value.violations[0].field == "edited.edits[1].start.offset"
    assert store.surroundings("s", "") == before


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (typed("b.py", 1, 0, "x"), "not open"),
        (typed("a.py", 4, 0, "x"), "at version 5, not at 4"),
        (typed("a.py", 6, 0, "x"), "at version 5, not at 6"),
        (typed("a.py", 4, 0, "x", sha("other")), "at version 5, not at 4"),
        (DocumentEdited("a.py", 5, 6, (put_in(0, "x" * 6000),) * 80), "80 edits of 480002 characters"),
    ],
)
def test_an_edit_of_another_state_changes_nothing_and_says_what_to_send(
    store: SessionStore, event: DocumentEdited, found: str
) -> None:
    store.apply("s", opened("a.py", "ab", 5))
    with pytest.raises(StaleDocument, match=found) as raised:
        store.apply("s", event)
    assert (raised.value.path, raised.value.remedy) == (event.path, "send it whole, as DocumentOpened")
    assert texts(store.surroundings("s", "")) == {"a.py": "ab"}


def test_an_edit_that_came_twice_is_applied_once(store: SessionStore) -> None:
    store.apply("s", opened("a.py", "ab"))
    for _ in range(2):
        store.apply("s", typed("a.py", 1, 2, "c", sha("abc")))
    assert store.resolve("s", tracked("a.py", 2)).text == "abc"


def test_a_document_that_is_not_what_its_hash_says_is_forgotten(store: SessionStore) -> None:
    store.apply("s", opened("a.py", "ab"))
    with pytest.raises(StaleDocument, match="forgotten"):
        store.apply("s", typed("a.py", 1, 2, "c", sha("something else")))
    with pytest.raises(StaleDocument, match="not open"):
        store.resolve("s", tracked("a.py", 1))
    store.apply("s", opened("a.py", "ab"))
    with pytest.raises(StaleDocument, match="forgotten"):
        store.resolve("s", tracked("a.py", 1, content_hash=sha("AB")))
    assert store.surroundings("s", "").documents == ()
    with pytest.raises(InvalidRequest, match=r"opened\.content_hash"):
        store.apply("s", DocumentOpened("a.py", "", "ab", 1, sha("AB")))


def test_opening_again_counts_whatever_its_version(store: SessionStore) -> None:
    """An editor that starts anew counts from one again."""
    store.apply("s", opened("a.py", "old\n", 900))
    store.apply("s", opened("a.py", "new\n", 1))
    assert store.resolve("s", tracked("a.py", 1)).text == "new\n"
    assert store.surroundings("s", "").edits == (RecentEdit("a.py", 0, "old\n", "new\n", 100.0),)


def test_documents_keep_their_identity_while_nothing_changes(store: SessionStore) -> None:
    store.apply("s", opened("a.py", "ab"))
    store.apply("s", opened("b.py", "cd"))
    first = {document.path: document for document in store.surroundings("s", "").documents}
    store.apply("s", opened("a.py", "ab"))
    store.observe("s", EditorState("b.py", "python", "cd", 1))
    store.apply("s", typed("a.py", 1, 2, "x"))
    second = {document.path: document for document in store.surroundings("s", "").documents}
    assert second["b.py"] is first["b.py"]
    assert second["a.py"] == Document("a.py", "python", "abx", 2)


def test_surroundings_are_newest_first_without_the_current_document(store: SessionStore, clock: Clock) -> None:
    for path in ("a.py", "b.py", "c.py"):
        store.apply("s", opened(path, path))
    clock.now_s += 1
    store.apply("s", typed("a.py", 1, 0, "1"))
    clock.now_s += 1
    store.apply("s", typed("b.py", 1, 0, "2"))
    store.apply("s", RangeViewed("c.py", 10, 20))
    store.apply("s", RangeViewed("a.py", 3, 4))
    snippet = Snippet(ContextSource.SNIPPET, "d.py", "d")
    around = store.surroundings("s", "b.py", [snippet])
    assert [document.path for document in around.documents] == ["a.py", "c.py"]
    assert [(edit.path, edit.at_s) for edit in around.edits] == [("b.py", 102.0), ("a.py", 101.0)]
    assert around.viewed == (ViewedRange("a.py", 3, 4, 102.0), ViewedRange("c.py", 10, 20, 102.0))
    assert (around.snippets, around.symbols, around.now_s) == ((snippet,), None, 102.0)
    assert store.surroundings("unknown", "b.py", [snippet]).snippets == (snippet,)
    assert len(store) == 1, "asking begins no session"


def test_whole_texts_of_requests_become_documents_and_edits(store: SessionStore) -> None:
    store.observe("s", EditorState("a.py", "python", "a = 1\nb\n", 7))
    store.observe("s", EditorState("a.py", "python", "a = 1\nb = \n", 10))
    store.observe("s", EditorState("a.py", "python", "a = 1\nb = 2\n", 11))
    around = store.surroundings("s", "a.py")
    assert around.edits == (RecentEdit("a.py", 1, "b\n", "b = 2\n", 100.0),)
    assert texts(store.surroundings("s", "")) == {"a.py": "a = 1\nb = 2\n"}
    with pytest.raises(StaleDocument, match="not open"):
        store.apply("s", typed("a.py", 0, 0, "x"))
    with pytest.raises(StaleDocument, match="not open"):
        store.resolve("s", tracked("a.py", 0))
    store.observe("", EditorState("a.py", "python", "x", 0))
    assert len(store) == 1


def test_a_request_does_not_overtake_the_events_of_its_document(store: SessionStore) -> None:
    store.apply("s", opened("a.py", "ab"))
    store.observe("s", EditorState("a.py", "python", "abc", 3))
    store.apply("s", typed("a.py", 1, 2, "c"))
    assert store.resolve("s", tracked("a.py", 2)).text == "abc"


def test_edits_outlive_their_document_while_it_is_as_they_left_it(store: SessionStore) -> None:
    store.apply("s", opened("a.py", "ab\n"))
    store.apply("s", typed("a.py", 1, 2, "c"))
    store.apply("s", DocumentClosed("a.py"))
    (edit,) = store.surroundings("s", "").edits
    store.apply("s", opened("a.py", "abc\nd\n"))
    assert store.surroundings("s", "").edits == (edit,)
    store.apply("s", DocumentClosed("a.py"))
    store.apply("s", opened("a.py", "changed elsewhere\n"))
    assert store.surroundings("s", "").edits == ()


def test_ranges_within_a_new_one_give_way_and_old_ones_too(store: SessionStore) -> None:
    store.apply("s", RangeViewed("a.py", 10, 20))
    store.apply("s", RangeViewed("a.py", 15, 40))
    store.apply("s", RangeViewed("a.py", 5, 30))
    assert [(seen.start_line, seen.end_line) for seen in store.surroundings("s", "").viewed] == [(5, 30), (15, 40)]
    for i in range(50):
        store.apply("s", RangeViewed("b.py", i, i + 1))
    assert len(store.surroundings("s", "").viewed) == MAX_VIEWED_RANGES


def test_the_clipboard_is_forgotten_after_a_while(store: SessionStore, clock: Clock) -> None:
    store.apply("s", ClipboardCopied("copied"))
    clock.now_s += CLIPBOARD_LIFE_S
    assert store.surroundings("s", "").clipboard == "copied"
    clock.now_s += 1
    assert store.surroundings("s", "").clipboard == ""
    assert store.num_bytes == 0
    store.apply("s", ClipboardCopied("copied"))
    store.apply("s", ClipboardCopied(""))
    assert store.surroundings("s", "").clipboard == ""
    store.apply("s", ClipboardCopied("x" * (MAX_CLIPBOARD_CHARACTERS + 1)))
    assert store.surroundings("s", "").clipboard == ""


def test_uploads_and_the_workspace_answer_together(clock: Clock) -> None:
    indexes = {"/home/me/work": Symbols(**{"workspace.py": "w"})}
    store = SessionStore(ContextSettings(), clock, open_index=indexes.__getitem__, new_uploads=Symbols)
    store.apply("s", WorkspaceNamed("/home/me/work"))
    around = store.surroundings("s", "")
    assert (around.symbols, around.workspace) == (indexes["/home/me/work"], "work")
    store.apply("s", FileUploaded("up.py", "u"))
    symbols = store.surroundings("s", "").symbols
    assert symbols is not None
    assert [snippet.path for snippet in symbols.definitions(["x"], "python", 5)] == ["up.py", "workspace.py"]
    assert [snippet.path for snippet in symbols.exports(["x"], "a.py", "python", 1)] == ["up.py"]
    store.apply("s", FileUploaded("up.py", ""))
    store.apply("s", WorkspaceNamed(""))
    assert (store.surroundings("s", "").symbols, store.surroundings("s", "").workspace) == (None, "")


def test_the_workspace_says_which_files_are_private(clock: Clock, tmp_path: Path, home: Path) -> None:
    (tmp_path / ".zenrayignore").write_text("generated/\n")
    store = SessionStore(ContextSettings(), clock)
    assert store.surroundings("s", "").is_private(".env"), "also without a workspace"
    store.apply("s", WorkspaceNamed(str(tmp_path)))
    around = store.surroundings("s", "")
    private = {path: around.is_private(path) for path in ("generated/a.py", "a.py", ".env")}
    assert private == {"generated/a.py": True, "a.py": False, ".env": True}
    store.apply("s", WorkspaceNamed(""))
    assert not store.surroundings("s", "").is_private("generated/a.py")


def test_sessions_share_what_is_indexed_and_keep_their_uploads_apart(clock: Clock, tmp_path: Path, home: Path) -> None:
    (tmp_path / "shared.py").write_text("def shared(x):\n    return x\n")
    build_index(tmp_path)
    store = SessionStore(ContextSettings(), clock)
    for name in ("s", "t"):
        store.apply(name, WorkspaceNamed(str(tmp_path)))
        store.apply(name, FileUploaded("up.py", f"def only_{name}():\n    pass\n"))
    found = store.surroundings("s", "").symbols.definitions(["only_s", "only_t", "shared"], "python", 9)
    assert [(snippet.path, snippet.start_line) for snippet in found] == [("up.py", 0), ("shared.py", 0)]
    store.apply("s", FileUploaded("up.py", ""))
    index = store.surroundings("s", "").symbols
    store.apply("t", FileUploaded("up.py", ""))
    assert store.surroundings("t", "").symbols is index


def test_in_cloud_mode_no_workspace_is_opened(clock: Clock) -> None:
    store = SessionStore(ContextSettings(mode="cloud"), clock, open_index=lambda root: pytest.fail(f"opened {root}"))
    with pytest.raises(InvalidRequest, match=r"workspace\.root"):
        store.apply("s", WorkspaceNamed("/work"))
    store.apply("s", WorkspaceNamed(""))


def small(num_sessions: int = 8, session_bytes: int = 20_000, total_bytes: int = 50_000) -> ContextSettings:
    return ContextSettings(
        max_sessions=num_sessions, max_session_mib=session_bytes / MIB, max_total_mib=total_bytes / MIB
    )


def test_a_full_session_forgets_uploads_then_the_documents_unused_for_longest(clock: Clock) -> None:
    store = SessionStore(small(session_bytes=10_000), clock, new_uploads=Symbols)
    store.apply("s", FileUploaded("up.py", "u" * 3000))
    store.apply("s", opened("a.py", "a" * 2000))
    store.apply("s", opened("b.py", "b" * 2000))
    assert store.surroundings("s", "").symbols is not None
    store.apply("s", opened("c.py", "c" * 2000))
    assert store.surroundings("s", "").symbols is None
    store.resolve("s", tracked("a.py", 1))
    store.apply("s", opened("d.py", "d" * 2000))
    assert [document.path for document in store.surroundings("s", "").documents] == ["d.py", "a.py", "c.py"]
    with pytest.raises(StaleDocument, match="not open"):
        store.apply("s", typed("b.py", 1, 0, "x"))


def test_whoever_keeps_something_for_a_session_hears_of_its_end(clock: Clock) -> None:
    forgotten: list[str] = []
    store = SessionStore(small(num_sessions=2), clock, on_forgotten=forgotten.append)
    for session_id in ("s", "t", "s", "u"):
        store.apply(session_id, opened("a.py", "a"))
    assert forgotten == ["t"]
    store.apply("u", SessionEnded())
    assert forgotten == ["t", "u"]


def test_what_can_never_fit_is_refused(clock: Clock) -> None:
    store = SessionStore(small(session_bytes=10_000), clock, new_uploads=Symbols)
    store.apply("s", opened("a.py", "a" * 5000))
    with pytest.raises(InvalidRequest, match=r"opened\.text .*max_session_mib"):
        store.apply("s", opened("b.py", "b" * 10_000))
    with pytest.raises(InvalidRequest, match=r"edited\.edits"):
        store.apply("s", typed("a.py", 1, 0, "a" * 5000))
    with pytest.raises(InvalidRequest, match=r"uploaded\.text"):
        store.apply("s", FileUploaded("b.py", "b" * 10_000))
    store.observe("s", EditorState("b.py", "python", "b" * 10_000, 0))
    assert texts(store.surroundings("s", "")) == {"a.py": "a" * 5000}
    with pytest.raises(InvalidRequest):
        store.apply("new", opened("b.py", "b" * 10_000))
    assert len(store) == 1, "no session begins with an error"


def test_sessions_unused_for_longest_go_when_there_are_too_many_or_too_large(clock: Clock) -> None:
    store = SessionStore(small(num_sessions=3, session_bytes=20_000, total_bytes=50_000), clock)
    for session_id in ("a", "b", "c"):
        store.apply(session_id, opened("x.py", session_id))
    store.resolve("a", tracked("x.py", 1))
    store.apply("d", opened("x.py", "d"))
    assert [bool(store.surroundings(name, "").documents) for name in "abcd"] == [True, False, True, True]
    for session_id in ("a", "c", "d"):
        store.apply(session_id, opened("y.py", "y" * 17_000))
    assert [bool(store.surroundings(name, "").documents) for name in "acd"] == [False, True, True]
    store.apply("c", SessionEnded())
    store.end("d")
    store.end("d")
    assert (len(store), store.num_bytes) == (0, 0)


async def test_a_version_on_its_way_is_waited_for() -> None:
    store = SessionStore(ContextSettings(version_wait_ms=10_000))
    store.apply("other", opened("a.py", "other"))
    waiting = asyncio.create_task(store.resolve_soon("s", tracked("a.py", 2, 3)))
    await asyncio.sleep(0)
    for event in (opened("a.py", "ab"), opened("b.py", ""), typed("a.py", 1, 2, "c")):
        assert not waiting.done()
        store.apply("s", event)
        await asyncio.sleep(0)
    assert (await waiting).text == "abc"
    assert (await store.resolve_soon("s", tracked("a.py", 2, 3))).text == "abc"


async def test_a_version_that_is_past_is_not_waited_for_and_no_version_for_long() -> None:
    store = SessionStore(ContextSettings(version_wait_ms=3_600_000))
    store.apply("s", opened("a.py", "ab", 9))
    with pytest.raises(StaleDocument, match="at version 9, not at 8"):
        await store.resolve_soon("s", tracked("a.py", 8))
    with pytest.raises(StaleDocument, match="forgotten"):
        await store.resolve_soon("s", tracked("a.py", 9, content_hash=sha("x")))
    store = SessionStore(ContextSettings(version_wait_ms=1))
    with pytest.raises(StaleDocument, match="not open"):
        await store.resolve_soon("s", tracked("a.py", 8))
    assert len(store) == 0
