from zenray.v1 import common_pb2 as _common_pb2
from zenray.v1 import experts_pb2 as _experts_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("request_id", "prompt_token_ids", "sampling", "limits", "priority", "session_id", "text_stops", "forced_prefix")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_STOPS_FIELD_NUMBER: _ClassVar[int]
    FORCED_PREFIX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    sampling: _common_pb2.Sampling
    limits: _common_pb2.Limits
    priority: _common_pb2.Priority
    session_id: str
    text_stops: TextStops
    forced_prefix: bytes
    def __init__(self, request_id: _Optional[str] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[_common_pb2.Sampling, _Mapping]] = ..., limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., session_id: _Optional[str] = ..., text_stops: _Optional[_Union[TextStops, _Mapping]] = ..., forced_prefix: _Optional[bytes] = ...) -> None: ...

class TextStops(_message.Message):
    __slots__ = ("language", "before", "after", "scope_end", "suffix_match", "single_line", "repetition")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    SCOPE_END_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_MATCH_FIELD_NUMBER: _ClassVar[int]
    SINGLE_LINE_FIELD_NUMBER: _ClassVar[int]
    REPETITION_FIELD_NUMBER: _ClassVar[int]
    language: str
    before: str
    after: str
    scope_end: bool
    suffix_match: bool
    single_line: bool
    repetition: bool
    def __init__(self, language: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ..., scope_end: _Optional[bool] = ..., suffix_match: _Optional[bool] = ..., single_line: _Optional[bool] = ..., repetition: _Optional[bool] = ...) -> None: ...

class GenerateEvent(_message.Message):
    __slots__ = ("started", "delta", "final")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    started: GenerateStarted
    delta: GenerateDelta
    final: GenerateFinal
    def __init__(self, started: _Optional[_Union[GenerateStarted, _Mapping]] = ..., delta: _Optional[_Union[GenerateDelta, _Mapping]] = ..., final: _Optional[_Union[GenerateFinal, _Mapping]] = ...) -> None: ...

class GenerateStarted(_message.Message):
    __slots__ = ("prompt_tokens", "cached_tokens", "prompt_logprobs")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    cached_tokens: int
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprob]
    def __init__(self, prompt_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., prompt_logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprob, _Mapping]]] = ...) -> None: ...

class GenerateDelta(_message.Message):
    __slots__ = ("index", "text", "token_ids", "logprobs")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedCompositeFieldContainer[_common_pb2.TokenLogprob]
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[_Union[_common_pb2.TokenLogprob, _Mapping]]] = ...) -> None: ...

class GenerateFinal(_message.Message):
    __slots__ = ("index", "text", "finish_reason", "usage", "timings")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    finish_reason: _common_pb2.FinishReason
    usage: _common_pb2.Usage
    timings: _common_pb2.Timings
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., finish_reason: _Optional[_Union[_common_pb2.FinishReason, str]] = ..., usage: _Optional[_Union[_common_pb2.Usage, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("request_id", "token_ids", "first_scored", "format", "seed", "hidden_layers", "priority", "deadline_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_SCORED_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_LAYERS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    first_scored: int
    format: ScoreFormat
    seed: int
    hidden_layers: _containers.RepeatedScalarFieldContainer[int]
    priority: _common_pb2.Priority
    deadline_ms: int
    def __init__(self, request_id: _Optional[str] = ..., token_ids: _Optional[_Iterable[int]] = ..., first_scored: _Optional[int] = ..., format: _Optional[_Union[ScoreFormat, _Mapping]] = ..., seed: _Optional[int] = ..., hidden_layers: _Optional[_Iterable[int]] = ..., priority: _Optional[_Union[_common_pb2.Priority, str]] = ..., deadline_ms: _Optional[int] = ...) -> None: ...

class ScoreFormat(_message.Message):
    __slots__ = ("max_head", "head_mass", "num_tail_samples", "least_probability")
    MAX_HEAD_FIELD_NUMBER: _ClassVar[int]
    HEAD_MASS_FIELD_NUMBER: _ClassVar[int]
    NUM_TAIL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    LEAST_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    max_head: int
    head_mass: float
    num_tail_samples: int
    least_probability: float
    def __init__(self, max_head: _Optional[int] = ..., head_mass: _Optional[float] = ..., num_tail_samples: _Optional[int] = ..., least_probability: _Optional[float] = ...) -> None: ...

class ScoreEvent(_message.Message):
    __slots__ = ("started", "rows", "final")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    started: GenerateStarted
    rows: ScoredRows
    final: GenerateFinal
    def __init__(self, started: _Optional[_Union[GenerateStarted, _Mapping]] = ..., rows: _Optional[_Union[ScoredRows, _Mapping]] = ..., final: _Optional[_Union[GenerateFinal, _Mapping]] = ...) -> None: ...

class ScoredRows(_message.Message):
    __slots__ = ("first_position", "num_rows", "gold_logprobs", "entropies", "head_counts", "head_ids", "head_logprobs", "tail_masses", "tail_ids", "hidden")
    FIRST_POSITION_FIELD_NUMBER: _ClassVar[int]
    NUM_ROWS_FIELD_NUMBER: _ClassVar[int]
    GOLD_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    ENTROPIES_FIELD_NUMBER: _ClassVar[int]
    HEAD_COUNTS_FIELD_NUMBER: _ClassVar[int]
    HEAD_IDS_FIELD_NUMBER: _ClassVar[int]
    HEAD_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TAIL_MASSES_FIELD_NUMBER: _ClassVar[int]
    TAIL_IDS_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    first_position: int
    num_rows: int
    gold_logprobs: bytes
    entropies: bytes
    head_counts: bytes
    head_ids: bytes
    head_logprobs: bytes
    tail_masses: bytes
    tail_ids: bytes
    hidden: _containers.RepeatedCompositeFieldContainer[HiddenRows]
    def __init__(self, first_position: _Optional[int] = ..., num_rows: _Optional[int] = ..., gold_logprobs: _Optional[bytes] = ..., entropies: _Optional[bytes] = ..., head_counts: _Optional[bytes] = ..., head_ids: _Optional[bytes] = ..., head_logprobs: _Optional[bytes] = ..., tail_masses: _Optional[bytes] = ..., tail_ids: _Optional[bytes] = ..., hidden: _Optional[_Iterable[_Union[HiddenRows, _Mapping]]] = ...) -> None: ...

class HiddenRows(_message.Message):
    __slots__ = ("layer", "values", "scales")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    layer: int
    values: bytes
    scales: bytes
    def __init__(self, layer: _Optional[int] = ..., values: _Optional[bytes] = ..., scales: _Optional[bytes] = ...) -> None: ...

class GetVerifierInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVerifierInfoResponse(_message.Message):
    __slots__ = ("model", "replica_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REPLICA_ID_FIELD_NUMBER: _ClassVar[int]
    model: _common_pb2.ModelInfo
    replica_id: str
    def __init__(self, model: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., replica_id: _Optional[str] = ...) -> None: ...

class GetVerifierLoadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetVerifierLoadResponse(_message.Message):
    __slots__ = ("load", "experts")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    load: _common_pb2.Load
    experts: _experts_pb2.ExpertStatus
    def __init__(self, load: _Optional[_Union[_common_pb2.Load, _Mapping]] = ..., experts: _Optional[_Union[_experts_pb2.ExpertStatus, _Mapping]] = ...) -> None: ...

class GetTokenizerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTokenizerResponse(_message.Message):
    __slots__ = ("part",)
    PART_FIELD_NUMBER: _ClassVar[int]
    part: bytes
    def __init__(self, part: _Optional[bytes] = ...) -> None: ...
