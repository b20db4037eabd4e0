"""What happens to the documents of an editor session, as data."""

from __future__ import annotations

from dataclasses import dataclass

from zenray.context.cursors import Position, PositionUnit


@dataclass(frozen=True, slots=True)
class TextEdit:
    """`text` takes the place from `start` to `end`, both counted in `unit`."""

    start: Position
    end: Position
    unit: PositionUnit
    text: str


@dataclass(frozen=True, slots=True)
class DocumentOpened:
    """A document as a whole. `language` empty is guessed; `content_hash` is SHA-256 of the text's UTF-8 bytes in
    lower-case hex, here and below; empty is not checked."""

    path: str
    language: str
    text: str
    version: int
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class DocumentEdited:
    """Edits that lead from one version to a later one, each applied to the text the one before left."""

    path: str
    base_version: int
    version: int
    edits: tuple[TextEdit, ...]
    content_hash: str = ""


@dataclass(frozen=True, slots=True)
class DocumentClosed:
    path: str


@dataclass(frozen=True, slots=True)
class RangeViewed:
    """Lines [start_line, end_line), from zero, were on the screen for a while."""

    path: str
    start_line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class ClipboardCopied:
    """An empty text forgets the clipboard."""

    text: str


@dataclass(frozen=True, slots=True)
class FileUploaded:
    """A file that is not open, for the session's own symbol index. An empty text forgets it."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class WorkspaceNamed:
    """The folder on this machine that paths are relative to; empty for none."""

    root: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Everything about the session is forgotten."""


DocumentEvent = (
    DocumentOpened
    | DocumentEdited
    | DocumentClosed
    | RangeViewed
    | ClipboardCopied
    | FileUploaded
    | WorkspaceNamed
    | SessionEnded
)
