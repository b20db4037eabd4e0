"""Every document event crosses the wire unchanged, and a bad one names all its bad fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.api.convert_documents import event_from_proto, event_to_proto
from zenray.api.validate import Violations
from zenray.api.validate_documents import collect_event
from zenray.config import ContextSettings
from zenray.context.cursors import LinePosition, OffsetPosition, PositionUnit
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
    WorkspaceNamed,
)
from zenray.context.session import MAX_EDITS
from zenray.context.sessions import SessionStore
from zenray.errors import StaleDocument
from zenray.v1 import completion_pb2, context_pb2

HASH = "0123456789abcdef" * 4
texts = st.text(max_size=20)
versions, lines = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
positions = st.builds(OffsetPosition, versions) | st.builds(LinePosition, lines, lines)
edits = st.lists(st.builds(TextEdit, positions, positions, st.sampled_from(PositionUnit), texts), max_size=3).map(tuple)
events = st.one_of(
    st.builds(DocumentOpened, texts, texts, texts, versions, texts),
    st.builds(DocumentEdited, texts, versions, versions, edits, texts),
    st.builds(DocumentClosed, texts),
    st.builds(RangeViewed, texts, lines, lines),
    st.builds(ClipboardCopied, texts),
    st.builds(FileUploaded, texts, texts),
    st.builds(WorkspaceNamed, texts),
    st.just(SessionEnded()),
)


@given(events)
def test_events_round_trip_through_the_wire(event: DocumentEvent) -> None:
    found = Violations()
    message = event_to_proto(event, "s")
    assert event_from_proto(type(message).FromString(message.SerializeToString()), found) == event
    assert (list(found), message.session_id) == ([], "s")


EDIT = TextEdit(OffsetPosition(0), OffsetPosition(0), PositionUnit.CODE_POINT, "x")
GOOD = [
    DocumentOpened("a.py", "python", "", 0),
    DocumentOpened("src/ü b/..a..py", "", "x", 2**64 - 1, HASH),
    DocumentEdited("a.py", 0, 1, ()),
    DocumentEdited("a" * 4096, 0, 9, (EDIT,), HASH),
    DocumentClosed("untitled:Untitled-1"),
    RangeViewed("a.py", 0, 1),
    ClipboardCopied(""),
    FileUploaded("a\\b.py", ""),
    WorkspaceNamed(""),
    WorkspaceNamed("/home/me"),
    WorkspaceNamed("C:\\work"),
    SessionEnded(),
]
BAD: list[tuple[DocumentEvent, list[str]]] = [
    *[
        (DocumentClosed(path), ["closed.path"])
        for path in (
            "",
            "/etc/passwd",
            "\\\\host\\share",
            "c:/x",
            "../x",
            "a/../../x",
            "a\\..\\x",
            "a\nb",
            "a\0",
            "x" * 4097,
        )
    ],
    (
        DocumentOpened("", "x\n", "\ud800", 1, HASH.upper()),
        [f"opened.{n}" for n in ("path", "language", "text", "content_hash")],
    ),
    (DocumentEdited("..", 3, 3, (), "short"), ["edited.path", "edited.version", "edited.content_hash"]),
    (RangeViewed("/", 3, 3), ["viewed.path", "viewed.end_line"]),
    (ClipboardCopied("\udfff"), ["copied.text"]),
    (FileUploaded("/", "\udfff"), ["uploaded.path", "uploaded.text"]),
    *[(WorkspaceNamed(root), ["workspace.root"]) for root in ("work", "../work", "/a\0b", "/" + "x" * 4096)],
]


@pytest.mark.parametrize("event", GOOD, ids=lambda event: type(event).__name__)
def test_good_events_pass(event: DocumentEvent) -> None:
    found = Violations()
    collect_event(event, found)
    assert list(found) == []


@pytest.mark.parametrize(("event", "fields"), BAD)
def test_a_bad_event_names_every_bad_field(event: DocumentEvent, fields: list[str]) -> None:
    found = Violations()
    collect_event(event, found)
    assert [violation.field for violation in found] == fields
    assert all(violation.allowed for violation in found)


def test_what_has_no_domain_value_is_named() -> None:
    found = Violations()
    event_from_proto(context_pb2.UpdateDocumentsRequest(session_id="s"), found)
    assert [violation.field for violation in found] == ["event"]
    assert "opened, edited, closed" in next(iter(found)).allowed
    found = Violations()
    utf16 = completion_pb2.Cursor(offset=0, unit=completion_pb2.POSITION_UNIT_UTF16_CODE_UNIT)
    edit = context_pb2.TextEdit(start=completion_pb2.Cursor(offset=0), end=utf16)
    edited = context_pb2.DocumentEdited(path="a", version=1, edits=[edit, context_pb2.TextEdit()])
    event_from_proto(context_pb2.UpdateDocumentsRequest(edited=edited), found)
    assert [violation.field for violation in found] == [
        "edited.edits[0].end.unit",
        "edited.edits[1].start",
        "edited.edits[1].end",
    ]


def test_of_too_many_edits_only_so_many_are_read_that_the_session_refuses_them() -> None:
    message = event_to_proto(DocumentEdited("a.py", 1, 2, (EDIT,) * (2 * MAX_EDITS)), "s")
    found = Violations()
    event = event_from_proto(message, found)
    assert isinstance(event, DocumentEdited)
    assert len(event.edits) < len(message.edited.edits)
    store = SessionStore(ContextSettings())
    store.apply("s", DocumentOpened("a.py", "python", "", 1))
    with pytest.raises(StaleDocument, match="more work"):
        store.apply("s", event)
    empty = context_pb2.UpdateDocumentsRequest()
    empty.edited.edits.extend([context_pb2.TextEdit()] * (2 * MAX_EDITS))
    event_from_proto(empty, found)
    assert len(list(found)) <= 2 * len(event.edits)
