from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ShardState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARD_STATE_UNSPECIFIED: _ClassVar[ShardState]
    SHARD_STATE_SERVING: _ClassVar[ShardState]
    SHARD_STATE_JOINING: _ClassVar[ShardState]
    SHARD_STATE_LOST: _ClassVar[ShardState]
SHARD_STATE_UNSPECIFIED: ShardState
SHARD_STATE_SERVING: ShardState
SHARD_STATE_JOINING: ShardState
SHARD_STATE_LOST: ShardState

class ExpertStatus(_message.Message):
    __slots__ = ("epoch", "shards", "layers", "recoveries", "last_recovery_ms", "longest_recovery_ms", "rebalances", "dispatch_ms", "step_ms", "unavailable")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SHARDS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    LAST_RECOVERY_MS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_RECOVERY_MS_FIELD_NUMBER: _ClassVar[int]
    REBALANCES_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_MS_FIELD_NUMBER: _ClassVar[int]
    STEP_MS_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    shards: _containers.RepeatedCompositeFieldContainer[ExpertShard]
    layers: _containers.RepeatedCompositeFieldContainer[ExpertLayer]
    recoveries: int
    last_recovery_ms: float
    longest_recovery_ms: float
    rebalances: int
    dispatch_ms: float
    step_ms: float
    unavailable: str
    def __init__(self, epoch: _Optional[int] = ..., shards: _Optional[_Iterable[_Union[ExpertShard, _Mapping]]] = ..., layers: _Optional[_Iterable[_Union[ExpertLayer, _Mapping]]] = ..., recoveries: _Optional[int] = ..., last_recovery_ms: _Optional[float] = ..., longest_recovery_ms: _Optional[float] = ..., rebalances: _Optional[int] = ..., dispatch_ms: _Optional[float] = ..., step_ms: _Optional[float] = ..., unavailable: _Optional[str] = ...) -> None: ...

class ExpertShard(_message.Message):
    __slots__ = ("shard", "state", "transport", "report")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    shard: int
    state: ShardState
    transport: str
    report: ShardReport
    def __init__(self, shard: _Optional[int] = ..., state: _Optional[_Union[ShardState, str]] = ..., transport: _Optional[str] = ..., report: _Optional[_Union[ShardReport, _Mapping]] = ...) -> None: ...

class ShardReport(_message.Message):
    __slots__ = ("host", "pid", "num_experts", "weight_bytes", "rss_bytes", "capacity", "calls", "pairs", "busy_ms")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    BUSY_MS_FIELD_NUMBER: _ClassVar[int]
    host: str
    pid: int
    num_experts: int
    weight_bytes: int
    rss_bytes: int
    capacity: int
    calls: int
    pairs: int
    busy_ms: float
    def __init__(self, host: _Optional[str] = ..., pid: _Optional[int] = ..., num_experts: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., capacity: _Optional[int] = ..., calls: _Optional[int] = ..., pairs: _Optional[int] = ..., busy_ms: _Optional[float] = ...) -> None: ...

class ExpertLayer(_message.Message):
    __slots__ = ("layer", "holders", "load")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    layer: int
    holders: _containers.RepeatedScalarFieldContainer[int]
    load: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, layer: _Optional[int] = ..., holders: _Optional[_Iterable[int]] = ..., load: _Optional[_Iterable[float]] = ...) -> None: ...
