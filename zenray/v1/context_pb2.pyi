from zenray.v1 import completion_pb2 as _completion_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AssembleRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: _completion_pb2.CompleteRequest
    def __init__(self, request: _Optional[_Union[_completion_pb2.CompleteRequest, _Mapping]] = ...) -> None: ...

class AssembleResponse(_message.Message):
    __slots__ = ("token_ids", "prompt", "pieces", "token_budget", "dropped_tokens", "stop_token_ids", "dropped_pieces", "forced_prefix", "assemble_ms")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUDGET_FIELD_NUMBER: _ClassVar[int]
    DROPPED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PIECES_FIELD_NUMBER: _ClassVar[int]
    FORCED_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ASSEMBLE_MS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    prompt: str
    pieces: _containers.RepeatedCompositeFieldContainer[ContextPiece]
    token_budget: int
    dropped_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    dropped_pieces: _containers.RepeatedCompositeFieldContainer[DroppedPiece]
    forced_prefix: str
    assemble_ms: float
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., prompt: _Optional[str] = ..., pieces: _Optional[_Iterable[_Union[ContextPiece, _Mapping]]] = ..., token_budget: _Optional[int] = ..., dropped_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., dropped_pieces: _Optional[_Iterable[_Union[DroppedPiece, _Mapping]]] = ..., forced_prefix: _Optional[str] = ..., assemble_ms: _Optional[float] = ...) -> None: ...

class ContextPiece(_message.Message):
    __slots__ = ("source", "path", "token_count", "text", "start_line", "end_line", "score")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_LINE_FIELD_NUMBER: _ClassVar[int]
    END_LINE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    source: _completion_pb2.ContextSource
    path: str
    token_count: int
    text: str
    start_line: int
    end_line: int
    score: float
    def __init__(self, source: _Optional[_Union[_completion_pb2.ContextSource, str]] = ..., path: _Optional[str] = ..., token_count: _Optional[int] = ..., text: _Optional[str] = ..., start_line: _Optional[int] = ..., end_line: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class DroppedPiece(_message.Message):
    __slots__ = ("source", "path", "start_line", "end_line", "score", "reason")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    START_LINE_FIELD_NUMBER: _ClassVar[int]
    END_LINE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    source: _completion_pb2.ContextSource
    path: str
    start_line: int
    end_line: int
    score: float
    reason: str
    def __init__(self, source: _Optional[_Union[_completion_pb2.ContextSource, str]] = ..., path: _Optional[str] = ..., start_line: _Optional[int] = ..., end_line: _Optional[int] = ..., score: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class UpdateDocumentsRequest(_message.Message):
    __slots__ = ("session_id", "opened", "edited", "closed", "viewed", "copied", "uploaded", "ended", "workspace")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    EDITED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    VIEWED_FIELD_NUMBER: _ClassVar[int]
    COPIED_FIELD_NUMBER: _ClassVar[int]
    UPLOADED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    opened: DocumentOpened
    edited: DocumentEdited
    closed: DocumentClosed
    viewed: RangeViewed
    copied: ClipboardCopied
    uploaded: FileUploaded
    ended: SessionEnded
    workspace: WorkspaceNamed
    def __init__(self, session_id: _Optional[str] = ..., opened: _Optional[_Union[DocumentOpened, _Mapping]] = ..., edited: _Optional[_Union[DocumentEdited, _Mapping]] = ..., closed: _Optional[_Union[DocumentClosed, _Mapping]] = ..., viewed: _Optional[_Union[RangeViewed, _Mapping]] = ..., copied: _Optional[_Union[ClipboardCopied, _Mapping]] = ..., uploaded: _Optional[_Union[FileUploaded, _Mapping]] = ..., ended: _Optional[_Union[SessionEnded, _Mapping]] = ..., workspace: _Optional[_Union[WorkspaceNamed, _Mapping]] = ...) -> None: ...

class UpdateDocumentsResponse(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: int
    def __init__(self, events: _Optional[int] = ...) -> None: ...

class DocumentOpened(_message.Message):
    __slots__ = ("path", "language", "text", "version", "content_hash")
    PATH_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    path: str
    language: str
    text: str
    version: int
    content_hash: str
    def __init__(self, path: _Optional[str] = ..., language: _Optional[str] = ..., text: _Optional[str] = ..., version: _Optional[int] = ..., content_hash: _Optional[str] = ...) -> None: ...

class DocumentEdited(_message.Message):
    __slots__ = ("path", "base_version", "version", "edits", "content_hash")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EDITS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    path: str
    base_version: int
    version: int
    edits: _containers.RepeatedCompositeFieldContainer[TextEdit]
    content_hash: str
    def __init__(self, path: _Optional[str] = ..., base_version: _Optional[int] = ..., version: _Optional[int] = ..., edits: _Optional[_Iterable[_Union[TextEdit, _Mapping]]] = ..., content_hash: _Optional[str] = ...) -> None: ...

class TextEdit(_message.Message):
    __slots__ = ("start", "end", "text")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    start: _completion_pb2.Cursor
    end: _completion_pb2.Cursor
    text: str
    def __init__(self, start: _Optional[_Union[_completion_pb2.Cursor, _Mapping]] = ..., end: _Optional[_Union[_completion_pb2.Cursor, _Mapping]] = ..., text: _Optional[str] = ...) -> None: ...

class DocumentClosed(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class RangeViewed(_message.Message):
    __slots__ = ("path", "start_line", "end_line")
    PATH_FIELD_NUMBER: _ClassVar[int]
    START_LINE_FIELD_NUMBER: _ClassVar[int]
    END_LINE_FIELD_NUMBER: _ClassVar[int]
    path: str
    start_line: int
    end_line: int
    def __init__(self, path: _Optional[str] = ..., start_line: _Optional[int] = ..., end_line: _Optional[int] = ...) -> None: ...

class ClipboardCopied(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class FileUploaded(_message.Message):
    __slots__ = ("path", "text")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    path: str
    text: str
    def __init__(self, path: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class WorkspaceNamed(_message.Message):
    __slots__ = ("root",)
    ROOT_FIELD_NUMBER: _ClassVar[int]
    root: str
    def __init__(self, root: _Optional[str] = ...) -> None: ...

class SessionEnded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
