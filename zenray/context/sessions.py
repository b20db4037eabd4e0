"""The editor sessions of one aggregator, within bounds of number and bytes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from zenray.config import ContextSettings
from zenray.context import index
from zenray.context.document_events import (
    ClipboardCopied,
    DocumentClosed,
    DocumentEdited,
    DocumentEvent,
    DocumentOpened,
    FileUploaded,
    RangeViewed,
    SessionEnded,
    WorkspaceNamed,
)
from zenray.context.pieces import Snippet
from zenray.context.request import EditorState, TrackedEditor
from zenray.context.session import Session, not_open
from zenray.context.session_symbols import NewUploads, OpenIndex
from zenray.context.sized_lru import SizedLru
from zenray.context.surroundings import Surroundings
from zenray.errors import InvalidRequest, ZenrayError

_MIB = 1024 * 1024


class SessionStore:
    """Sessions by id. Owned by one event loop; what it hands out is immutable.

    A session begins with its first event or request and is forgotten when it ends, or when there are too many or
    their documents are too large in all: least recently used first. A client learns of it by StaleDocument and
    sends its documents again.
    """

    def __init__(
        self,
        settings: ContextSettings,
        clock: Callable[[], float] = time.monotonic,
        *,
        open_index: OpenIndex = index.open_index,
        new_uploads: NewUploads = index.UploadedIndex,
        on_forgotten: Callable[[str], None] = lambda session_id: None,
    ) -> None:
        """`clock` in seconds. `on_forgotten` hears of every session that ended or had to go."""
        self._settings, self._clock = settings, clock
        self._on_forgotten = on_forgotten
        self._open_index, self._new_uploads = open_index, new_uploads
        self._max_bytes = int(settings.max_total_mib * _MIB)
        self._max_session_bytes = min(int(settings.max_session_mib * _MIB), self._max_bytes)
        self._sessions: SizedLru[str, Session] = SizedLru()
        self._changed = asyncio.Event()
        """Set, and replaced, when an event was applied."""

    @property
    def num_bytes(self) -> int:
        """Held for all sessions together, at most context.max_total_mib."""
        return self._sessions.size

    def __len__(self) -> int:
        return len(self._sessions)

    def apply(self, session_id: str, event: DocumentEvent) -> None:
        """Bring the session up to date. Raises StaleDocument when `event` builds on a state the session does not
        have, InvalidRequest when it does not fit."""
        if isinstance(event, SessionEnded):
            self.end(session_id)
            return
        session = self._sessions.get(session_id) or self._new_session()
        try:
            self._apply(session, event)
        except ZenrayError:
            if session_id in self._sessions:  # no session begins with an error
                self._keep(session_id, session)
            raise
        self._keep(session_id, session)
        self._changed.set()
        self._changed = asyncio.Event()

    def _apply(self, session: Session, event: DocumentEvent) -> None:
        now_s = self._clock()
        match event:
            case DocumentOpened():
                session.open(event, now_s)
            case DocumentEdited():
                session.edit(event, now_s)
            case DocumentClosed():
                session.close(event)
            case RangeViewed():
                session.view(event, now_s)
            case ClipboardCopied():
                session.copy(event, now_s)
            case FileUploaded():
                session.upload(event)
            case WorkspaceNamed():
                if event.root and self._settings.mode == "cloud":
                    raise InvalidRequest.of("workspace.root", event.root, "empty: in cloud mode no workspace is read")
                session.work_in(event.root, self._open_index(event.root) if event.root else None)
            case SessionEnded():
                raise AssertionError("a session cannot end itself")

    def observe(self, session_id: str, state: EditorState) -> None:
        """A whole text that came with a request; how it differs from the one before becomes a recent edit. A request
        without a session is not remembered."""
        if not session_id:
            return
        session = self._sessions.get(session_id) or self._new_session()
        session.observe(state, self._clock())
        self._keep(session_id, session)

    def resolve(self, session_id: str, tracked: TrackedEditor) -> EditorState:
        """The document and cursor meant. Raises StaleDocument unless the session has the document at that version,
        InvalidRequest for a cursor outside it."""
        session = self._sessions.get(session_id)
        if session is None:
            raise not_open(tracked.path)
        try:
            return session.resolve(tracked)
        finally:
            self._keep(session_id, session)

    async def resolve_soon(self, session_id: str, tracked: TrackedEditor) -> EditorState:
        """The same, but a version that may be on its way is waited for, for at most context.version_wait_ms."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.version_wait_ms / 1000):
                while self._may_arrive(session_id, tracked):
                    await self._changed.wait()
        return self.resolve(session_id, tracked)

    def surroundings(self, session_id: str, current_path: str, snippets: Sequence[Snippet] = ()) -> Surroundings:
        """What is known around the document at `current_path`; of an unknown session only `snippets`."""
        session = self._sessions.get(session_id)
        if session is None:
            return Surroundings(snippets=tuple(snippets), now_s=self._clock())
        around = session.surroundings(current_path, snippets, self._clock())
        self._keep(session_id, session)
        return around

    def end(self, session_id: str) -> None:
        """Forget the session; one that is not known changes nothing."""
        self._sessions.forget(session_id)
        self._on_forgotten(session_id)

    def _new_session(self) -> Session:
        return Session(self._max_session_bytes, self._new_uploads)

    def _keep(self, session_id: str, session: Session) -> None:
        """The session was used: its size counts anew, and the longest unused ones go if need be."""
        self._sessions.put(session_id, session, session.num_bytes)
        while len(self._sessions) > self._settings.max_sessions or self.num_bytes > self._max_bytes:
            self.end(self._sessions.oldest())

    def _may_arrive(self, session_id: str, tracked: TrackedEditor) -> bool:
        session = self._sessions.get(session_id)
        version = session.version_of(tracked.path) if session is not None else None
        return version is None or version < tracked.version
