"""The shards and the placement of every verifier whose experts live in several processes, in Prometheus form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from zenray.experts.link import ShardReport
from zenray.experts.planning import imbalance
from zenray.experts.status import ExpertStatus, ShardState

Family = type[GaugeMetricFamily] | type[CounterMetricFamily]

_OF_REPLICA: dict[str, tuple[Family, str, Callable[[ExpertStatus], float]]] = {
    "epoch": (GaugeMetricFamily, "Changes of the placement so far.", lambda status: status.placement.epoch),
    "missing": (GaugeMetricFamily, "Experts nobody holds.", lambda status: len(status.placement.missing)),
    "unavailable": (GaugeMetricFamily, "1 while some expert has no place.", lambda status: bool(status.unavailable)),
    "imbalance_ratio": (
        GaugeMetricFamily,
        "Load of the busiest shard over the mean.",
        lambda status: imbalance(status.placement, status.load),
    ),
    "longest_recovery_seconds": (
        GaugeMetricFamily,
        "Longest pause after a loss.",
        lambda status: status.longest_recovery_ms / 1000,
    ),
    "recoveries": (CounterMetricFamily, "Steps run again without a lost shard.", lambda status: status.recoveries),
    "rebalances": (
        CounterMetricFamily,
        "Times the placement followed the observed load.",
        lambda status: status.rebalances,
    ),
    "dispatch_seconds": (
        CounterMetricFamily,
        "Waiting for shards beyond the verifier's own computing.",
        lambda status: status.dispatch_ms / 1000,
    ),
    "step_seconds": (CounterMetricFamily, "Forward passes.", lambda status: status.step_ms / 1000),
}
_OF_SHARD: dict[str, tuple[Family, str, Callable[[ShardReport], float]]] = {
    "experts": (GaugeMetricFamily, "Experts held, over all layers.", lambda report: report.num_experts),
    "weight_bytes": (GaugeMetricFamily, "Weights of the experts held.", lambda report: report.weight_bytes),
    "resident_bytes": (GaugeMetricFamily, "Memory of the process.", lambda report: report.rss_bytes),
    "pairs": (CounterMetricFamily, "Tokens times their experts computed.", lambda report: report.pairs),
    "busy_seconds": (CounterMetricFamily, "Time spent computing.", lambda report: report.busy_ms / 1000),
}


def expert_families(statuses: Mapping[str, ExpertStatus]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    """`statuses` by replica; a shard is labelled by its number."""
    for name, (family, text, of_status) in _OF_REPLICA.items():
        made = family(f"zenray_experts_{name}", text, labels=["replica"])
        for replica_id, status in statuses.items():
            made.add_metric([replica_id], of_status(status))
        yield made
    shards = GaugeMetricFamily("zenray_expert_shards", "Shards by what they are doing.", labels=["replica", "state"])
    for replica_id, status in statuses.items():
        states = [shard.state for shard in status.shards]
        for state in get_args(ShardState):
            shards.add_metric([replica_id, state], states.count(state))
    yield shards
    for name, (family, text, of_report) in _OF_SHARD.items():
        made = family(f"zenray_expert_shard_{name}", text, labels=["replica", "shard"])
        for replica_id, status in statuses.items():
            for shard in status.shards:
                if shard.report is not None and shard.state != "lost":
                    made.add_metric([replica_id, str(shard.shard)], of_report(shard.report))
        yield made
