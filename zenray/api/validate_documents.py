"""What a document event may hold, checked at the edge: pure. Field names are those of `UpdateDocumentsRequest`."""

from __future__ import annotations

import re

from zenray.api.validate import MAX_PATH_LENGTH, Violations, check_hash, check_language, check_path, check_text
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

_ROOT = re.compile(r"(?:[/\\]|[A-Za-z]:[/\\])[^\x00-\x1f\x7f]*")


def collect_event(event: DocumentEvent, found: Violations) -> None:
    """Adds what is wrong with `event` by itself, whatever the session holds."""
    match event:
        case DocumentOpened():
            check_path("opened.path", event.path, found)
            check_language("opened.language", event.language, found)
            check_text("opened.text", event.text, found)
            check_hash("opened.content_hash", event.content_hash, found)
        case DocumentEdited():
            check_path("edited.path", event.path, found)
            if event.version <= event.base_version:
                found.add("edited.version", event.version, f"more than base_version, {event.base_version}")
            for i, edit in enumerate(event.edits):
                check_text(f"edited.edits[{i}].text", edit.text, found)
            check_hash("edited.content_hash", event.content_hash, found)
        case DocumentClosed():
            check_path("closed.path", event.path, found)
        case RangeViewed():
            check_path("viewed.path", event.path, found)
            if event.end_line <= event.start_line:
                found.add("viewed.end_line", event.end_line, f"more than start_line, {event.start_line}")
        case ClipboardCopied():
            check_text("copied.text", event.text, found)
        case FileUploaded():
            check_path("uploaded.path", event.path, found)
            check_text("uploaded.text", event.text, found)
        case WorkspaceNamed():
            if event.root and (len(event.root) > MAX_PATH_LENGTH or not _ROOT.fullmatch(event.root)):
                found.add(
                    "workspace.root", event.root[:80], f"an absolute path of at most {MAX_PATH_LENGTH} characters"
                )
        case SessionEnded():
            pass
