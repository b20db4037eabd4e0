"""One editor session: what is open, edited, seen and copied, within a bound of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

from zenray.context.cursors import cursor_offset
from zenray.context.document_events import (
    ClipboardCopied,
    DocumentClosed,
    DocumentEdited,
    DocumentOpened,
    FileUploaded,
    RangeViewed,
)
from zenray.context.edits import change_of, difference, remember, still_there
from zenray.context.pieces import Snippet
from zenray.context.privacy.secret_files import is_secret_file
from zenray.context.request import EditorState, TrackedEditor
from zenray.context.session_symbols import NewUploads, UploadedSymbols, WorkspaceSymbols, combined
from zenray.context.sized_lru import SizedLru
from zenray.context.surroundings import Document, RecentEdit, Surroundings, SymbolIndex, ViewedRange
from zenray.context.text_facts import content_hash, guess_language
from zenray.errors import InvalidRequest, Quantity, StaleDocument

MAX_VIEWED_RANGES = 16
MAX_CLIPBOARD_CHARACTERS = 16_384
"""A longer text is not kept: it would never fit a prompt."""
CLIPBOARD_LIFE_S = 600.0
MAX_EDIT_WORK = 2**24
"""Characters that the edits of one event may move, as each makes the text anew: 35 to 80 ms. Beyond, the text is
cheaper to send."""
_EDIT_CHARACTERS = 4096
"""What an edit costs besides, in characters that could be moved meanwhile."""
MAX_EDITS = MAX_EDIT_WORK // _EDIT_CHARACTERS
"""More edits in one event are always too much work."""
_ITEM_BYTES = 512
"""What an item costs besides its texts."""
_REMEDY = "send it whole, as DocumentOpened"


def num_bytes(*texts: str) -> int:
    """Bytes of memory that an item of `texts` takes, at most: Python holds every character of a text in the width
    of the widest."""
    return _ITEM_BYTES + sum(len(text) if text.isascii() else 4 * len(text) for text in texts)


def not_open(path: str) -> StaleDocument:
    return StaleDocument(path, "not open in this session", _REMEDY)


@dataclass(frozen=True)
class HeldDocument:
    """A document and how it came: told by events with versions, or seen as the whole text of a request."""

    document: Document
    has_version: bool
    known_hash: str = ""

    @cached_property
    def content_hash(self) -> str:
        return self.known_hash or content_hash(self.document.text)


class Session:
    """State of one session. Events are applied wholly or, when they raise, not at all.

    What would exceed `max_bytes` makes the rest go, in this order: uploaded files, open documents, both least
    recently used first, then edits, ranges and the clipboard.
    """

    def __init__(self, max_bytes: int, new_uploads: NewUploads) -> None:
        self._max_bytes, self._new_uploads = max_bytes, new_uploads
        self._documents: SizedLru[str, HeldDocument] = SizedLru()
        self._uploads: UploadedSymbols | None = None
        self._uploaded: SizedLru[str, None] = SizedLru()
        self._edits: tuple[RecentEdit, ...] = ()
        self._viewed: tuple[ViewedRange, ...] = ()
        self._clipboard, self._copied_s = "", 0.0
        self._workspace_name = ""
        self._workspace: WorkspaceSymbols | None = None

    @property
    def num_bytes(self) -> int:
        small = sum(num_bytes(edit.path, edit.before, edit.after) for edit in self._edits)
        small += sum(num_bytes(viewed.path) for viewed in self._viewed)
        small += num_bytes(self._clipboard) if self._clipboard else 0
        return self._documents.size + self._uploaded.size + small

    def version_of(self, path: str) -> int | None:
        """None for a document that is not open or came without a version."""
        held = self._documents.get(path)
        return held.document.version if held is not None and held.has_version else None

    def open(self, event: DocumentOpened, now_s: float) -> None:
        """The text counts whatever was known before. Raises InvalidRequest for one that is too large or is not
        what its hash says."""
        if event.content_hash and event.content_hash != content_hash(event.text):
            raise InvalidRequest.of("opened.content_hash", event.content_hash, "the SHA-256 of opened.text")
        self._check_fits(event.path, event.text, "opened.text")
        language = event.language or guess_language(event.path, event.text)
        document = Document(event.path, language, event.text, event.version)
        self._replace(HeldDocument(document, True, event.content_hash), now_s)

    def edit(self, event: DocumentEdited, now_s: float) -> None:
        """Raises StaleDocument unless the document is at the base version, or at the version after the edits with
        the same hash: then they came twice. A text that does not get the hash it should is forgotten."""
        held = self._documents.get(event.path)
        if held is None or not held.has_version:
            raise not_open(event.path)
        document = held.document
        if event.version == document.version and event.content_hash and event.content_hash == held.content_hash:
            self._documents.touch(event.path)
            return
        if document.version != event.base_version:
            found = f"at version {document.version}, not at {event.base_version}"
            raise StaleDocument(event.path, found, _REMEDY)
        num_characters = len(document.text) + sum(len(edit.text) for edit in event.edits)
        if len(event.edits) * (num_characters + _EDIT_CHARACTERS) > MAX_EDIT_WORK:
            found = f"{len(event.edits)} edits of {num_characters} characters are more work than its text"
            raise StaleDocument(event.path, found, _REMEDY)
        text, edits = document.text, self._edits
        for i, edit in enumerate(event.edits):
            change = change_of(edit, text, f"edited.edits[{i}]")
            edits = remember(edits, event.path, text, change, now_s)
            text = change.applied_to(text)
        if event.content_hash and event.content_hash != content_hash(text):
            self._documents.forget(event.path)
            raise StaleDocument(event.path, "not the text that its hash says, and forgotten", _REMEDY)
        self._check_fits(event.path, text, "edited.edits")
        self._edits = edits
        after = Document(event.path, document.language, text, event.version)
        self._hold(HeldDocument(after, True, event.content_hash))

    def observe(self, state: EditorState, now_s: float) -> None:
        """A document seen in a request. One that events keep is theirs alone: the request may be ahead of them. One
        without a path could be any."""
        if not state.path:
            return
        held = self._documents.get(state.path)
        if held is not None and (held.has_version or held.document.text == state.text):
            self._documents.touch(state.path)
        elif num_bytes(state.path, state.text) <= self._max_bytes:
            self._replace(HeldDocument(Document(state.path, state.language, state.text), False), now_s)

    def close(self, event: DocumentClosed) -> None:
        self._documents.forget(event.path)

    def view(self, event: RangeViewed, now_s: float) -> None:
        """Takes the place of ranges within it."""
        seen = ViewedRange(event.path, event.start_line, event.end_line, now_s)
        others = (
            old
            for old in self._viewed
            if old.path != seen.path or old.start_line < seen.start_line or old.end_line > seen.end_line
        )
        self._viewed = (seen, *others)[:MAX_VIEWED_RANGES]
        if event.path in self._documents:
            self._documents.touch(event.path)
        self._make_room()

    def copy(self, event: ClipboardCopied, now_s: float) -> None:
        self._clipboard = event.text if len(event.text) <= MAX_CLIPBOARD_CHARACTERS else ""
        self._copied_s = now_s
        self._make_room()

    def upload(self, event: FileUploaded) -> None:
        """Raises InvalidRequest for a file that is too large."""
        if not event.text:
            self._forget_upload(event.path)
            return
        self._check_fits(event.path, event.text, "uploaded.text")
        self._uploads = self._uploads or self._new_uploads()
        self._uploads.put(event.path, event.text)
        self._uploaded.put(event.path, None, num_bytes(event.path, event.text))
        self._make_room()

    def work_in(self, root: str, index: WorkspaceSymbols | None) -> None:
        """`index` is that of the folder `root`; None for no folder."""
        self._workspace_name, self._workspace = PurePath(root).name, index

    def resolve(self, tracked: TrackedEditor) -> EditorState:
        """Raises StaleDocument unless the document is at the version named, with the hash named; one with another
        hash is forgotten. Raises InvalidRequest for a cursor outside it."""
        held = self._documents.get(tracked.path)
        if held is None or not held.has_version:
            raise not_open(tracked.path)
        document = held.document
        if document.version != tracked.version:
            raise StaleDocument(tracked.path, f"at version {document.version}, not at {tracked.version}", _REMEDY)
        if tracked.content_hash and tracked.content_hash != held.content_hash:
            self._documents.forget(tracked.path)
            raise StaleDocument(tracked.path, "not the text that its hash says, and forgotten", _REMEDY)
        offset = cursor_offset(document.text, tracked.position, tracked.unit, "editor.cursor")
        self._documents.touch(tracked.path)
        return EditorState(tracked.path, tracked.language or document.language, document.text, offset)

    def surroundings(self, current_path: str, snippets: Sequence[Snippet], now_s: float) -> Surroundings:
        if now_s - self._copied_s > CLIPBOARD_LIFE_S:
            self._clipboard = ""
        symbols: list[SymbolIndex] = []
        if self._uploads is not None and len(self._uploaded):
            symbols.append(self._uploads)
        if self._workspace is not None:
            symbols.append(self._workspace)
        documents = (held.document for held in self._documents.newest_values())
        return Surroundings(
            documents=tuple(document for document in documents if document.path != current_path),
            edits=self._edits,
            viewed=self._viewed,
            clipboard=self._clipboard,
            snippets=tuple(snippets),
            symbols=combined(symbols),
            now_s=now_s,
            workspace=self._workspace_name,
            is_private=is_secret_file if self._workspace is None else self._workspace.is_private,
            is_withheld=is_secret_file if self._workspace is None else self._workspace.is_withheld,
        )

    def _check_fits(self, path: str, text: str, field: str) -> None:
        if num_bytes(path, text) > self._max_bytes:
            allowed = f"a text of at most {self._max_bytes} bytes (context.max_session_mib)"
            raise InvalidRequest.of(field, Quantity(len(text), "characters"), allowed)

    def _replace(self, new: HeldDocument, now_s: float) -> None:
        """A whole text in the place of the one before, from which it differs by an edit."""
        path, text = new.document.path, new.document.text
        held = self._documents.get(path)
        if held is None:
            self._edits = still_there(self._edits, path, text)
        else:
            before = held.document.text
            self._edits = remember(self._edits, path, before, difference(before, text), now_s)
        self._hold(new)

    def _hold(self, new: HeldDocument) -> None:
        """An equal document stays the object it was: others keep what they computed from it."""
        path = new.document.path
        held = self._documents.get(path)
        if held is not None and held.document == new.document:
            new = replace(new, document=held.document)
        self._documents.put(path, new, num_bytes(path, new.document.text))
        self._make_room()

    def _make_room(self) -> None:
        """Forgets until the session is within its bound. What was used last fits alone, so it stays, unless it
        is an upload."""
        while self.num_bytes > self._max_bytes:
            if len(self._uploaded):
                self._forget_upload(self._uploaded.oldest())
            elif len(self._documents) > 1:
                self._documents.forget(self._documents.oldest())
            elif self._edits:
                self._edits = self._edits[:-1]
            elif self._viewed:
                self._viewed = self._viewed[:-1]
            else:
                self._clipboard = ""

    def _forget_upload(self, path: str) -> None:
        if path in self._uploaded:
            assert self._uploads is not None
            self._uploads.remove(path)
            self._uploaded.forget(path)
