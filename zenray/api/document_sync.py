"""The client's side of a session's documents: successive texts become the events that keep the server up to date."""

from __future__ import annotations

from dataclasses import dataclass

from zenray.api.client import AsyncClient, Client
from zenray.api.convert_documents import cursor_to_proto, event_to_proto
from zenray.context.cursors import OffsetPosition, PositionUnit
from zenray.context.document_events import DocumentClosed, DocumentEdited, DocumentOpened, SessionEnded, TextEdit
from zenray.context.edits import difference
from zenray.context.text_facts import content_hash
from zenray.errors import StaleDocument
from zenray.v1 import completion_pb2, context_pb2


@dataclass(frozen=True, slots=True)
class _Sent:
    language: str
    text: str
    version: int
    content_hash: str


class DocumentSync:
    """What one session's server should know.

    `update` sends; `edited` and `whole` give the messages to whoever sends them. A call that raises StaleDocument,
    be it an update or a request for `editor(...)`, is repaired by sending `whole(path)`; then it can be sent
    again.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self._sent: dict[str, _Sent] = {}
        self._next_version = 1

    def edited(self, path: str, text: str, language: str = "") -> list[context_pb2.UpdateDocumentsRequest]:
        """From the text before to `text`: a whole document at first, the least possible edit later, nothing when
        nothing changed."""
        before = self._sent.get(path)
        if before is not None and before.text == text:
            return []
        sent = _Sent(language or (before.language if before else ""), text, self._next_version, content_hash(text))
        self._sent[path] = sent
        self._next_version += 1
        if before is None:
            return [self.whole(path)]
        change = difference(before.text, text)
        start, end = OffsetPosition(change.start), OffsetPosition(change.end)
        edit = TextEdit(start, end, PositionUnit.CODE_POINT, change.text)
        event = DocumentEdited(path, before.version, sent.version, (edit,), sent.content_hash)
        return [event_to_proto(event, self.session_id)]

    def whole(self, path: str) -> context_pb2.UpdateDocumentsRequest:
        """The document as it was last given, which has to have happened."""
        sent = self._sent[path]
        event = DocumentOpened(path, sent.language, sent.text, sent.version, sent.content_hash)
        return event_to_proto(event, self.session_id)

    def closed(self, path: str) -> context_pb2.UpdateDocumentsRequest:
        self._sent.pop(path, None)
        return event_to_proto(DocumentClosed(path), self.session_id)

    def ended(self) -> context_pb2.UpdateDocumentsRequest:
        self._sent.clear()
        return event_to_proto(SessionEnded(), self.session_id)

    def editor(self, path: str, cursor_offset: int) -> completion_pb2.EditorState:
        """The input of a request in the document as it was last given; the cursor counts code points."""
        sent = self._sent[path]
        return completion_pb2.EditorState(
            path=path,
            cursor=cursor_to_proto(OffsetPosition(cursor_offset), PositionUnit.CODE_POINT),
            tracked=completion_pb2.TrackedDocument(version=sent.version, content_hash=sent.content_hash),
        )

    def update(self, client: Client, path: str, text: str, language: str = "") -> None:
        """Bring the server to `text`. Raises CallFailed."""
        events = self.edited(path, text, language)
        try:
            if events:
                client.update_documents(events)
        except StaleDocument:
            client.update_documents([self.whole(path)])

    async def update_async(self, client: AsyncClient, path: str, text: str, language: str = "") -> None:
        """The same on an event loop."""
        events = self.edited(path, text, language)
        try:
            if events:
                await client.update_documents(events)
        except StaleDocument:
            await client.update_documents([self.whole(path)])
