from zenray.v1 import common_pb2 as _common_pb2
from zenray.v1 import experts_pb2 as _experts_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PositionUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POSITION_UNIT_UNSPECIFIED: _ClassVar[PositionUnit]
    POSITION_UNIT_UTF8_BYTE: _ClassVar[PositionUnit]
    POSITION_UNIT_UTF16_CODE_UNIT: _ClassVar[PositionUnit]
    POSITION_UNIT_CODE_POINT: _ClassVar[PositionUnit]

class ContextSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTEXT_SOURCE_UNSPECIFIED: _ClassVar[ContextSource]
    CONTEXT_SOURCE_CONTROL: _ClassVar[ContextSource]
    CONTEXT_SOURCE_PROMPT: _ClassVar[ContextSource]
    CONTEXT_SOURCE_PREFIX: _ClassVar[ContextSource]
    CONTEXT_SOURCE_SUFFIX: _ClassVar[ContextSource]
    CONTEXT_SOURCE_FILE_HEADER: _ClassVar[ContextSource]
    CONTEXT_SOURCE_OPEN_FILE: _ClassVar[ContextSource]
    CONTEXT_SOURCE_RECENT_EDIT: _ClassVar[ContextSource]
    CONTEXT_SOURCE_DEFINITION: _ClassVar[ContextSource]
    CONTEXT_SOURCE_IMPORT: _ClassVar[ContextSource]
    CONTEXT_SOURCE_VIEWED: _ClassVar[ContextSource]
    CONTEXT_SOURCE_CLIPBOARD: _ClassVar[ContextSource]
    CONTEXT_SOURCE_SNIPPET: _ClassVar[ContextSource]
    CONTEXT_SOURCE_SAME_FILE: _ClassVar[ContextSource]

class SuggestionFilter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUGGESTION_FILTER_UNSPECIFIED: _ClassVar[SuggestionFilter]
    SUGGESTION_FILTER_EMPTY: _ClassVar[SuggestionFilter]
    SUGGESTION_FILTER_PREFIX_ECHO: _ClassVar[SuggestionFilter]
    SUGGESTION_FILTER_SUFFIX_ECHO: _ClassVar[SuggestionFilter]
    SUGGESTION_FILTER_SECRET: _ClassVar[SuggestionFilter]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_SHOWN: _ClassVar[Outcome]
    OUTCOME_ACCEPTED: _ClassVar[Outcome]
    OUTCOME_PARTLY_ACCEPTED: _ClassVar[Outcome]
    OUTCOME_REJECTED: _ClassVar[Outcome]
    OUTCOME_PERSISTED: _ClassVar[Outcome]
POSITION_UNIT_UNSPECIFIED: PositionUnit
POSITION_UNIT_UTF8_BYTE: PositionUnit
POSITION_UNIT_UTF16_CODE_UNIT: PositionUnit
POSITION_UNIT_CODE_POINT: PositionUnit
CONTEXT_SOURCE_UNSPECIFIED: ContextSource
CONTEXT_SOURCE_CONTROL: ContextSource
CONTEXT_SOURCE_PROMPT: ContextSource
CONTEXT_SOURCE_PREFIX: ContextSource
CONTEXT_SOURCE_SUFFIX: ContextSource
CONTEXT_SOURCE_FILE_HEADER: ContextSource
CONTEXT_SOURCE_OPEN_FILE: ContextSource
CONTEXT_SOURCE_RECENT_EDIT: ContextSource
CONTEXT_SOURCE_DEFINITION: ContextSource
CONTEXT_SOURCE_IMPORT: ContextSource
CONTEXT_SOURCE_VIEWED: ContextSource
CONTEXT_SOURCE_CLIPBOARD: ContextSource
CONTEXT_SOURCE_SNIPPET: ContextSource
CONTEXT_SOURCE_SAME_FILE: ContextSource
SUGGESTION_FILTER_UNSPECIFIED: SuggestionFilter
SUGGESTION_FILTER_EMPTY: SuggestionFilter
SUGGESTION_FILTER_PREFIX_ECHO: SuggestionFilter
SUGGESTION_FILTER_SUFFIX_ECHO: SuggestionFilter
SUGGESTION_FILTER_SECRET: SuggestionFilter
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_SHOWN: Outcome
OUTCOME_ACCEPTED: Outcome
OUTCOME_PARTLY_ACCEPTED: Outcome
OUTCOME_REJECTED: Outcome
OUTCOME_PERSISTED: Outcome

class CompleteRequest(_message.Message):
    __slots__ = ("request_id", "session_id", "prompt", "infill", "editor", "prompt_token_ids", "sampling", "limits", "priority", "model", "suggestion", "snippets")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    INFILL_FIELD_NUMBER: _ClassVar[int]
    EDITOR_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    SNIPPETS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    session_id: str
    prompt: str
    infill: Infill
    editor: EditorState
    prompt_token_ids: TokenIds
    sampling: _common_pb2.Sampling
    limits: _common_pb2.Limits
    priority: _common_pb2.Priority
    model: str
    suggestion: SuggestionOptions
    snippets: _containers.RepeatedCompositeFieldContainer[Snippet]
    def __init__(self, request_id: _Optional[str] = ..., session_id: _Optional[str] = ..., prompt: _Optional[str] = ..., infill: _Optional[_Union[Infill, _Mapping]] = ..., editor: _Optional[_Union[EditorState, _Mapping]] = ..., prompt_token_ids: _Optional[_Union[TokenIds, _Mapping]] = ..., sampling: _Optional[_Union[_common_pb2.Sampling, _Mapping]] = ..., limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., model: _Optional[str] = ..., suggestion: _Optional[_Union[SuggestionOptions, _Mapping]] = ..., snippets: _Optional[_Iterable[_Union[Snippet, _Mapping]]] = ...) -> None: ...

class SuggestionOptions(_message.Message):
    __slots__ = ("scope_end", "suffix_match", "single_line", "repetition", "heal_tokens", "post_process", "reuse")
    SCOPE_END_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_MATCH_FIELD_NUMBER: _ClassVar[int]
    SINGLE_LINE_FIELD_NUMBER: _ClassVar[int]
    REPETITION_FIELD_NUMBER: _ClassVar[int]
    HEAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    POST_PROCESS_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    scope_end: bool
    suffix_match: bool
    single_line: bool
    repetition: bool
    heal_tokens: bool
    post_process: bool
    reuse: bool
    def __init__(self, scope_end: _Optional[bool] = ..., suffix_match: _Optional[bool] = ..., single_line: _Optional[bool] = ..., repetition: _Optional[bool] = ..., heal_tokens: _Optional[bool] = ..., post_process: _Optional[bool] = ..., reuse: _Optional[bool] = ...) -> None: ...

class Snippet(_message.Message):
    __slots__ = ("path", "text", "start_line")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_LINE_FIELD_NUMBER: _ClassVar[int]
    path: str
    text: str
    start_line: int
    def __init__(self, path: _Optional[str] = ..., text: _Optional[str] = ..., start_line: _Optional[int] = ...) -> None: ...

class Infill(_message.Message):
    __slots__ = ("prefix", "suffix")
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_FIELD_NUMBER: _ClassVar[int]
    prefix: str
    suffix: str
    def __init__(self, prefix: _Optional[str] = ..., suffix: _Optional[str] = ...) -> None: ...

class TokenIds(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ids: _Optional[_Iterable[int]] = ...) -> None: ...

class EditorState(_message.Message):
    __slots__ = ("path", "language", "text", "cursor", "tracked")
    PATH_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    TRACKED_FIELD_NUMBER: _ClassVar[int]
    path: str
    language: str
    text: str
    cursor: Cursor
    tracked: TrackedDocument
    def __init__(self, path: _Optional[str] = ..., language: _Optional[str] = ..., text: _Optional[str] = ..., cursor: _Optional[_Union[Cursor, _Mapping]] = ..., tracked: _Optional[_Union[TrackedDocument, _Mapping]] = ...) -> None: ...

class TrackedDocument(_message.Message):
    __slots__ = ("version", "content_hash")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    version: int
    content_hash: str
    def __init__(self, version: _Optional[int] = ..., content_hash: _Optional[str] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("offset", "line_column", "unit")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LINE_COLUMN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    offset: int
    line_column: LineColumn
    unit: PositionUnit
    def __init__(self, offset: _Optional[int] = ..., line_column: _Optional[_Union[LineColumn, _Mapping]] = ..., unit: _Optional[_Union[PositionUnit, str]] = ...) -> None: ...

class LineColumn(_message.Message):
    __slots__ = ("line", "column")
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    line: int
    column: int
    def __init__(self, line: _Optional[int] = ..., column: _Optional[int] = ...) -> None: ...

class CompleteEvent(_message.Message):
    __slots__ = ("started", "delta", "final")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    started: Started
    delta: Delta
    final: Final
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., final: _Optional[_Union[Final, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "request_id", "prompt_logprobs", "attribution", "reused")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    REUSED_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    request_id: str
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprob]
    attribution: _containers.RepeatedCompositeFieldContainer[SourceTokens]
    reused: bool
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., request_id: _Optional[str] = ..., prompt_logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprob, _Mapping]]] = ..., attribution: _Optional[_Iterable[_Union[SourceTokens, _Mapping]]] = ..., reused: _Optional[bool] = ...) -> None: ...

class SourceTokens(_message.Message):
    __slots__ = ("source", "token_count")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    source: ContextSource
    token_count: int
    def __init__(self, source: _Optional[_Union[ContextSource, str]] = ..., token_count: _Optional[int] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("index", "text", "token_count", "logprobs")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    token_count: int
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprob]
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., token_count: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprob, _Mapping]]] = ...) -> None: ...

class Final(_message.Message):
    __slots__ = ("index", "text", "finish_reason", "usage", "timings", "suggestion")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    finish_reason: _common_pb2.FinishReason
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    suggestion: Suggestion
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., suggestion: _Optional[_Union[Suggestion, _Mapping]] = ...) -> None: ...

class Suggestion(_message.Message):
    __slots__ = ("text", "filter", "changes")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    text: str
    filter: SuggestionFilter
    changes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[str] = ..., filter: _Optional[_Union[SuggestionFilter, str]] = ..., changes: _Optional[_Iterable[str]] = ...) -> None: ...

class CompleteResponse(_message.Message):
    __slots__ = ("request_id", "choices", "usage", "prompt_logprobs")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    choices: _containers.RepeatedCompositeFieldContainer[Choice]
    usage: _common_pb2.Usage
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprob]
    def __init__(self, request_id: _Optional[str] = ..., choices: _Optional[_Iterable[_Union[Choice, _Mapping]]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., prompt_logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprob, _Mapping]]] = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ("index", "text", "finish_reason", "usage", "timings", "logprobs", "suggestion")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    finish_reason: _common_pb2.FinishReason
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprob]
    suggestion: Suggestion
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprob, _Mapping]]] = ..., suggestion: _Optional[_Union[Suggestion, _Mapping]] = ...) -> None: ...

class PrefetchRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: CompleteRequest
    def __init__(self, request: _Optional[_Union[CompleteRequest, _Mapping]] = ...) -> None: ...

class PrefetchResponse(_message.Message):
    __slots__ = ("completion_tokens",)
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    completion_tokens: int
    def __init__(self, completion_tokens: _Optional[int] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("request_id", "session_id", "index", "outcome", "accepted_characters", "elapsed_ms", "language")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_MS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    session_id: str
    index: int
    outcome: Outcome
    accepted_characters: int
    elapsed_ms: int
    language: str
    def __init__(self, request_id: _Optional[str] = ..., session_id: _Optional[str] = ..., index: _Optional[int] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., accepted_characters: _Optional[int] = ..., elapsed_ms: _Optional[int] = ..., language: _Optional[str] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("model", "default_sampling", "default_limits", "bounds")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LIMITS_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    model: _common_pb2.ModelInfo
    default_sampling: _common_pb2.Sampling
    default_limits: _common_pb2.Limits
    bounds: RequestBounds
    def __init__(self, model: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., default_sampling: _Optional[_Union[_common_pb2.Sampling, _Mapping]] = ..., default_limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ..., bounds: _Optional[_Union[RequestBounds, _Mapping]] = ...) -> None: ...

class RequestBounds(_message.Message):
    __slots__ = ("max_tokens", "max_n", "max_logprobs", "max_stop", "max_stop_length", "max_request_bytes", "max_deadline_ms", "max_snippets", "max_snippet_bytes", "max_stream_events")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_N_FIELD_NUMBER: _ClassVar[int]
    MAX_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_SNIPPETS_FIELD_NUMBER: _ClassVar[int]
    MAX_SNIPPET_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_EVENTS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    max_n: int
    max_logprobs: int
    max_stop: int
    max_stop_length: int
    max_request_bytes: int
    max_deadline_ms: int
    max_snippets: int
    max_snippet_bytes: int
    max_stream_events: int
    def __init__(self, max_tokens: _Optional[int] = ..., max_n: _Optional[int] = ..., max_logprobs: _Optional[int] = ..., max_stop: _Optional[int] = ..., max_stop_length: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., max_deadline_ms: _Optional[int] = ..., max_snippets: _Optional[int] = ..., max_snippet_bytes: _Optional[int] = ..., max_stream_events: _Optional[int] = ...) -> None: ...

class GetLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLoadResponse(_message.Message):
    __slots__ = ("load", "verifier_replicas", "experts")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    load: _common_pb2.Load
    verifier_replicas: int
    experts: _containers.RepeatedCompositeFieldContainer[ReplicaExperts]
    def __init__(self, load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ..., verifier_replicas: _Optional[int] = ..., experts: _Optional[_Iterable[_Union[ReplicaExperts, _Mapping]]] = ...) -> None: ...

class ReplicaExperts(_message.Message):
    __slots__ = ("replica_id", "status")
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    replica_id: str
    status: _experts_pb2.ExpertStatus
    def __init__(self, replica_id: _Optional[str] = ..., status: _Optional[_Union[_experts_pb2.ExpertStatus, _Mapping]] = ...) -> None: ...
