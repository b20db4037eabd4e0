"""What a verifier says of its experts, to a message and back."""

from __future__ import annotations

from zenray.experts.link import ShardReport
from zenray.experts.placement import ExpertId, ExpertPlacement
from zenray.experts.status import ExpertStatus, ShardState, ShardStatus
from zenray.v1 import experts_pb2

_STATE_TO_PROTO: dict[ShardState, experts_pb2.ShardState] = {
    "serving": experts_pb2.SHARD_STATE_SERVING,
    "joining": experts_pb2.SHARD_STATE_JOINING,
    "lost": experts_pb2.SHARD_STATE_LOST,
}
_STATE_FROM_PROTO: dict[int, ShardState] = {proto: state for state, proto in _STATE_TO_PROTO.items()}

_COUNTERS = ("recoveries", "last_recovery_ms", "longest_recovery_ms", "rebalances", "dispatch_ms", "step_ms")
_REPORTED = ("host", "pid", "num_experts", "weight_bytes", "rss_bytes", "capacity", "calls", "pairs", "busy_ms")


def expert_status_to_proto(status: ExpertStatus) -> experts_pb2.ExpertStatus:
    return experts_pb2.ExpertStatus(
        epoch=status.placement.epoch,
        shards=[_shard_to_proto(shard) for shard in status.shards],
        layers=[
            experts_pb2.ExpertLayer(
                layer=layer,
                holders=[sum(1 << shard for shard in holders) for holders in row],
                load=[status.load.get(ExpertId(layer, expert), 0.0) for expert in range(len(row))],
            )
            for layer, row in status.placement.copies.items()
        ],
        unavailable=status.unavailable,
        **{name: getattr(status, name) for name in _COUNTERS},
    )


def expert_status_from_proto(message: experts_pb2.ExpertStatus) -> ExpertStatus:
    """Raises KeyError for a state this version does not know."""
    copies = {layer.layer: tuple(map(_holders, layer.holders)) for layer in message.layers}
    return ExpertStatus(
        placement=ExpertPlacement(message.epoch, copies),
        shards=tuple(map(_shard_from_proto, message.shards)),
        load={
            ExpertId(layer.layer, expert): share for layer in message.layers for expert, share in enumerate(layer.load)
        },
        unavailable=message.unavailable or None,
        **{name: getattr(message, name) for name in _COUNTERS},
    )


def _shard_to_proto(shard: ShardStatus) -> experts_pb2.ExpertShard:
    report = shard.report
    return experts_pb2.ExpertShard(
        shard=shard.shard,
        state=_STATE_TO_PROTO[shard.state],
        transport=shard.transport,
        report=experts_pb2.ShardReport(**{name: getattr(report, name) for name in _REPORTED}) if report else None,
    )


def _shard_from_proto(message: experts_pb2.ExpertShard) -> ShardStatus:
    report = message.report
    values = {name: getattr(report, name) for name in _REPORTED if name != "capacity" or report.HasField("capacity")}
    return ShardStatus(
        shard=message.shard,
        state=_STATE_FROM_PROTO[message.state],
        transport=message.transport,
        report=ShardReport(**{"capacity": None, **values}, shard=message.shard) if message.HasField("report") else None,
    )


def _holders(bits: int) -> tuple[int, ...]:
    return tuple(shard for shard in range(bits.bit_length()) if bits >> shard & 1)
