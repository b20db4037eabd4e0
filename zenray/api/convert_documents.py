"""Document events of `UpdateDocuments` to domain objects and back."""

from __future__ import annotations

from itertools import islice

from zenray.api.convert import position_from_proto
from zenray.api.validate import Violations
from zenray.context.cursors import LinePosition, Position, PositionUnit
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
from zenray.v1 import completion_pb2, context_pb2

_UNITS = {unit: completion_pb2.PositionUnit.Value(f"POSITION_UNIT_{unit.name}") for unit in PositionUnit}


def event_from_proto(message: context_pb2.UpdateDocumentsRequest, found: Violations) -> DocumentEvent:
    """The event of a message. What has no domain value is added to `found`; the event then only serves to collect
    further violations."""
    match message.WhichOneof("event"):
        case "opened":
            opened = message.opened
            return DocumentOpened(opened.path, opened.language, opened.text, opened.version, opened.content_hash)
        case "edited":
            edited = message.edited
            # One too many is enough for the session to say so: a message has room for millions.
            edits = tuple(
                _edit_from_proto(edit, f"edited.edits[{i}]", found)
                for i, edit in enumerate(islice(edited.edits, MAX_EDITS + 1))
            )
            return DocumentEdited(edited.path, edited.base_version, edited.version, edits, edited.content_hash)
        case "closed":
            return DocumentClosed(message.closed.path)
        case "viewed":
            return RangeViewed(message.viewed.path, message.viewed.start_line, message.viewed.end_line)
        case "copied":
            return ClipboardCopied(message.copied.text)
        case "uploaded":
            return FileUploaded(message.uploaded.path, message.uploaded.text)
        case "workspace":
            return WorkspaceNamed(message.workspace.root)
        case "ended":
            return SessionEnded()
    names = [field.name for field in message.DESCRIPTOR.oneofs_by_name["event"].fields]
    found.add("event", None, f"one of {', '.join(names)}")
    return SessionEnded()


def event_to_proto(event: DocumentEvent, session_id: str = "") -> context_pb2.UpdateDocumentsRequest:
    """The message of an event; an empty `session_id` is that of the message before."""
    message = context_pb2.UpdateDocumentsRequest(session_id=session_id)
    match event:
        case DocumentOpened(path, language, text, version, content_hash):
            message.opened.path, message.opened.language, message.opened.text = path, language, text
            message.opened.version, message.opened.content_hash = version, content_hash
        case DocumentEdited(path, base_version, version, edits, content_hash):
            message.edited.path, message.edited.content_hash = path, content_hash
            message.edited.base_version, message.edited.version = base_version, version
            message.edited.edits.extend(map(_edit_to_proto, edits))
        case DocumentClosed(path):
            message.closed.path = path
        case RangeViewed(path, start_line, end_line):
            message.viewed.path, message.viewed.start_line, message.viewed.end_line = path, start_line, end_line
        case ClipboardCopied(text):
            message.copied.SetInParent()
            message.copied.text = text
        case FileUploaded(path, text):
            message.uploaded.path, message.uploaded.text = path, text
        case WorkspaceNamed(root):
            message.workspace.SetInParent()
            message.workspace.root = root
        case SessionEnded():
            message.ended.SetInParent()
    return message


def cursor_to_proto(position: Position, unit: PositionUnit) -> completion_pb2.Cursor:
    if isinstance(position, LinePosition):
        line_column = completion_pb2.LineColumn(line=position.line, column=position.column)
        return completion_pb2.Cursor(line_column=line_column, unit=_UNITS[unit])
    return completion_pb2.Cursor(offset=position.offset, unit=_UNITS[unit])


def _edit_from_proto(message: context_pb2.TextEdit, field: str, found: Violations) -> TextEdit:
    start, unit = position_from_proto(message.start, f"{field}.start", found)
    end, end_unit = position_from_proto(message.end, f"{field}.end", found)
    if end_unit is not unit:
        found.add(f"{field}.end.unit", end_unit.value, f"that of start, {unit.value}")
    return TextEdit(start, end, unit, message.text)


def _edit_to_proto(edit: TextEdit) -> context_pb2.TextEdit:
    start, end = cursor_to_proto(edit.start, edit.unit), cursor_to_proto(edit.end, edit.unit)
    return context_pb2.TextEdit(start=start, end=end, text=edit.text)
