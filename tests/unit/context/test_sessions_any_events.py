"""Any events in any order leave a session exactly what they say, within its bounds, and its bytes accounted for."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zenray.config import ContextSettings
from zenray.context.cursors import OffsetPosition, PositionUnit
from zenray.context.document_events import (
    ClipboardCopied,
    DocumentClosed,
    DocumentEdited,
    DocumentEvent,
    DocumentOpened,
    FileUploaded,
    RangeViewed,
    SessionEnded,
    TextEdit,
)
from zenray.context.pieces import Snippet
from zenray.context.request import EditorState, TrackedEditor
from zenray.context.session import CLIPBOARD_LIFE_S, num_bytes
from zenray.context.sessions import SessionStore
from zenray.context.surroundings import Document
from zenray.context.text_facts import content_hash
from zenray.errors import StaleDocument, ZenrayError

MAX_SESSIONS, MAX_SESSION_BYTES, MAX_TOTAL_BYTES = 2, 12_000, 18_000
MIB = 1024 * 1024
POINTS = PositionUnit.CODE_POINT


class Files:
    """An index that answers nothing and lets its files be counted."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def put(self, path: str, text: str) -> None:
        self.files[path] = text

    def remove(self, path: str) -> None:
        del self.files[path]

    def definitions(self, names: object, language: str, limit: int) -> list[Snippet]:
        return []

    def exports(self, modules: object, importer_path: str, language: str, limit: int) -> list[Snippet]:
        return []


PATHS = st.sampled_from(["a.py", "b.py", "ü.py"])
SESSIONS = st.sampled_from(["s", "t", "u"])
TEXTS = st.text(st.sampled_from("ab\n\ré漢🙂"), max_size=30) | st.integers(0, 900).map("long line\n".__mul__)


class SessionsMachine(RuleBasedStateMachine):
    """Beside the store a plain dictionary of what every document should be; the store may forget, never differ."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        bounds = ContextSettings(
            max_sessions=MAX_SESSIONS, max_session_mib=MAX_SESSION_BYTES / MIB, max_total_mib=MAX_TOTAL_BYTES / MIB
        )
        self.store = SessionStore(bounds, lambda: self.now_s, new_uploads=Files)
        self.expected: dict[tuple[str, str], tuple[int, str]] = {}

    def apply(self, session_id: str, event: DocumentEvent) -> bool:
        self.now_s += 1
        try:
            self.store.apply(session_id, event)
        except ZenrayError:
            return False
        return True

    @rule(session_id=SESSIONS, path=PATHS, text=TEXTS, version=st.integers(0, 5), hashed=st.booleans())
    def open(self, session_id: str, path: str, text: str, version: int, hashed: bool) -> None:
        event = DocumentOpened(path, "", text, version, content_hash(text) if hashed else "")
        if self.apply(session_id, event):
            self.expected[session_id, path] = (version, text)
            assert self.documents(session_id)[path].text == text

    @rule(
        session_id=SESSIONS,
        path=PATHS,
        base=st.integers(0, 5),
        places=st.tuples(st.integers(0, 40), st.integers(0, 40)),
        text=TEXTS,
        hashed=st.sampled_from(["no", "right", "wrong"]),
    )
    def edit(self, session_id: str, path: str, base: int, places: tuple[int, int], text: str, hashed: str) -> None:
        known = self.expected.get((session_id, path))
        start, end = sorted(places)
        after = known[1][:start] + text + known[1][end:] if known else ""
        sent_hash = {"no": "", "right": content_hash(after), "wrong": content_hash(after + "!")}[hashed]
        edit = TextEdit(OffsetPosition(start), OffsetPosition(end), POINTS, text)
        if self.apply(session_id, DocumentEdited(path, base, base + 1, (edit,), sent_hash)):
            assert known is not None and hashed != "wrong"
            assert known[0] in (base, base + 1)
            if known[0] == base:
                assert end <= len(known[1])
                self.expected[session_id, path] = (base + 1, after)
                assert self.documents(session_id)[path].text == after

    @rule(session_id=SESSIONS, path=PATHS, text=TEXTS)
    def observe(self, session_id: str, path: str, text: str) -> None:
        held = self.documents(session_id).get(path)
        self.store.observe(session_id, EditorState(path, "python", text, 0))
        if held is None or self.expected.get((session_id, path)) != (held.version, held.text):
            self.expected.pop((session_id, path), None)

    @rule(session_id=SESSIONS, path=PATHS, text=TEXTS, first=st.integers(0, 5), length=st.integers(0, 5))
    def surround(self, session_id: str, path: str, text: str, first: int, length: int) -> None:
        self.apply(session_id, RangeViewed(path, first, first + length))
        self.apply(session_id, ClipboardCopied(text))
        self.apply(session_id, FileUploaded(path, text))

    @rule(session_id=SESSIONS, path=PATHS)
    def close(self, session_id: str, path: str) -> None:
        assert self.apply(session_id, DocumentClosed(path))
        assert path not in self.documents(session_id)

    @rule(session_id=SESSIONS, seconds=st.sampled_from([1.0, CLIPBOARD_LIFE_S]))
    def wait(self, session_id: str, seconds: float) -> None:
        self.now_s += seconds
        self.store.surroundings(session_id, "")

    @rule(session_id=SESSIONS)
    def end(self, session_id: str) -> None:
        assert self.apply(session_id, SessionEnded())
        assert self.documents(session_id) == {}

    def documents(self, session_id: str) -> dict[str, Document]:
        return {document.path: document for document in self.store.surroundings(session_id, "").documents}

    def tracked(self, path: str, version: int, text: str) -> TrackedEditor:
        return TrackedEditor(path, "", version, content_hash(text), OffsetPosition(0), POINTS)

    @invariant()
    def documents_are_what_the_events_say(self) -> None:
        for session_id, path in list(self.expected):
            version, text = self.expected[session_id, path]
            try:
                state = self.store.resolve(session_id, self.tracked(path, version, text))
            except StaleDocument:
                assert path not in self.documents(session_id) or self.documents(session_id)[path].version == 0
                del self.expected[session_id, path]
            else:
                assert state.text == text

    @invariant()
    def bounds_hold_and_bytes_are_accounted_for(self) -> None:
        held = {session_id: self.bytes_of(session_id) for session_id in ("s", "t", "u")}
        assert self.store.num_bytes == sum(held.values()) <= MAX_TOTAL_BYTES
        assert all(size <= MAX_SESSION_BYTES for size in held.values())
        assert len(self.store) <= MAX_SESSIONS

    def bytes_of(self, session_id: str) -> int:
        """Recounted from what the session gives away."""
        around = self.store.surroundings(session_id, "")
        files = around.symbols.files if isinstance(around.symbols, Files) else {}
        return (
            sum(num_bytes(document.path, document.text) for document in around.documents)
            + sum(num_bytes(edit.path, edit.before, edit.after) for edit in around.edits)
            + sum(num_bytes(viewed.path) for viewed in around.viewed)
            + sum(num_bytes(path, text) for path, text in files.items())
            + (num_bytes(around.clipboard) if around.clipboard else 0)
        )

    @invariant()
    def edits_show_what_stands_in_open_documents(self) -> None:
        for session_id in ("s", "t", "u"):
            documents = self.documents(session_id)
            for edit in self.store.surroundings(session_id, "").edits:
                if edit.path in documents:
                    lines = documents[edit.path].text.split("\n")
                    assert "\n".join(lines[edit.start_line :]).startswith(edit.after)


TestSessionsMachine = SessionsMachine.TestCase
TestSessionsMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
