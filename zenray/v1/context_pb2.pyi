from zenray.v1 import completion_pb2 as _completion_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ContextSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTEXT_SOURCE_UNSPECIFIED: _ClassVar[ContextSource]
    CONTEXT_SOURCE_CONTROL: _ClassVar[ContextSource]
    CONTEXT_SOURCE_PROMPT: _ClassVar[ContextSource]
    CONTEXT_SOURCE_PREFIX: _ClassVar[ContextSource]
    CONTEXT_SOURCE_SUFFIX: _ClassVar[ContextSource]
    CONTEXT_SOURCE_FILE_HEADER: _ClassVar[ContextSource]
CONTEXT_SOURCE_UNSPECIFIED: ContextSource
CONTEXT_SOURCE_CONTROL: ContextSource
CONTEXT_SOURCE_PROMPT: ContextSource
CONTEXT_SOURCE_PREFIX: ContextSource
CONTEXT_SOURCE_SUFFIX: ContextSource
CONTEXT_SOURCE_FILE_HEADER: ContextSource

class AssembleRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: _completion_pb2.CompleteRequest
    def __init__(self, request: _Optional[_Union[_completion_pb2.CompleteRequest, _Mapping]] = ...) -> None: ...

class AssembleResponse(_message.Message):
    __slots__ = ("token_ids", "prompt", "pieces", "token_budget", "dropped_tokens", "stop_token_ids")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUDGET_FIELD_NUMBER: _ClassVar[int]
    DROPPED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    prompt: str
    pieces: _containers.RepeatedCompositeFieldContainer[ContextPiece]
    token_budget: int
    dropped_tokens: int
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., prompt: _Optional[str] = ..., pieces: _Optional[_Iterable[_Union[ContextPiece, _Mapping]]] = ..., token_budget: _Optional[int] = ..., dropped_tokens: _Optional[int] = ..., stop_token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class ContextPiece(_message.Message):
    __slots__ = ("source", "path", "token_count", "text")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    source: ContextSource
    path: str
    token_count: int
    text: str
    def __init__(self, source: _Optional[_Union[ContextSource, str]] = ..., path: _Optional[str] = ..., token_count: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...
