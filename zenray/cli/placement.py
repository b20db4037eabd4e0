"""How the experts of a verifier are shown: its shards in a table, and who holds what in a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from zenray.cli.console import facts, megabytes
from zenray.experts.placement import ExpertId, ExpertPlacement
from zenray.experts.planning import imbalance

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from zenray.v1.completion_pb2 import ReplicaExperts

_GRID_WIDTH = 64
_NUMBER_WIDTH = 3
_SHADES = "░▒▓█"
_BARS = "▁▂▃▄▅▆▇█"
_STATE_STYLES = {"serving": "good", "joining": "warn", "lost": "failure"}
_LABELS = "shard 00 "
_COLUMNS = ("shard", "state", "host", "pid", "via", "experts", "weights", "memory", "work")
_LEFT = ("state", "host", "via")


def placement_fields(message: ReplicaExperts) -> dict[str, Any]:
    """What one replica says of its experts, as JSON has it."""
    status = message.status
    plain = ("epoch", "recoveries", "last_recovery_ms", "longest_recovery_ms", "rebalances", "dispatch_ms", "step_ms")
    layers = [
        {"layer": layer.layer, "holders": list(map(_holders, layer.holders)), "load": list(layer.load)}
        for layer in status.layers
    ]
    return {
        "replica_id": message.replica_id,
        "unavailable": status.unavailable or None,
        **{name: getattr(status, name) for name in plain},
        "imbalance": _imbalance(layers),
        "shards": [_shard_fields(shard) for shard in status.shards],
        "layers": layers,
    }


def placement_view(experts: Mapping[str, Any]) -> RenderableType:
    """`placement_fields` for people, within 80 columns, readable without colours too."""
    rows = facts()
    if experts["unavailable"]:
        rows.add_row("experts", Text(f"unavailable: {experts['unavailable']}", "failure"))
    rows.add_row("placement", _summary(experts))
    rows.add_row("recoveries", _recoveries(experts))
    if experts["step_ms"]:
        rows.add_row("dispatch", f"{experts['dispatch_ms'] / experts['step_ms']:.1%} of the time of all steps")
    return Group(rows, "", _shard_table(experts["shards"]), "", *_grids(experts))


def _summary(experts: Mapping[str, Any]) -> Text:
    rows = [layer["holders"] for layer in experts["layers"]]
    num_experts = max(map(len, rows), default=0)
    num_spare = sum(max(0, len(holders) - 1) for row in rows for holders in row)
    num_missing = sum(not holders for row in rows for holders in row)
    said = Text(f"epoch {experts['epoch']}: {len(rows)} layers of {num_experts} experts, {num_spare:,} spare copies, ")
    if num_missing:
        return said.append(f"{num_missing:,} missing", "failure")
    return said.append(f"imbalance {experts['imbalance']:.2f}")


def _recoveries(experts: Mapping[str, Any]) -> str:
    said = f"{experts['recoveries']:,}"
    if experts["recoveries"]:
        said += f", the last in {experts['last_recovery_ms']:.0f} ms, the longest {experts['longest_recovery_ms']:.0f}"
    return f"{said}; {experts['rebalances']:,} rebalances"


def _shard_table(shards: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="quiet")
    for name in _COLUMNS:
        made.add_column(name, justify="left" if name in _LEFT else "right", overflow="fold", no_wrap=name != "host")
    num_pairs = sum(shard["pairs"] or 0 for shard in shards)
    for shard in shards:
        cells: list[str | Text] = [str(shard["shard"]), Text(shard["state"], _STATE_STYLES.get(shard["state"], ""))]
        if shard["pid"] is not None:
            cells += [shard["host"], str(shard["pid"]), shard["transport"].replace("in-process", "-")]
            cells += [f"{shard['num_experts']:,}", megabytes(shard["weight_bytes"]), megabytes(shard["rss_bytes"])]
            cells.append(f"{shard['pairs'] / num_pairs:.0%}" if num_pairs else "-")
        made.add_row(*cells, style="quiet" if shard["state"] == "lost" else None)
    return made


def _grids(experts: Mapping[str, Any]) -> list[RenderableType]:
    """A row per shard, a column per expert: in how many layers the one holds the other; below, each one's load."""
    layers = experts["layers"]
    num_experts = max((len(layer["holders"]) for layer in layers), default=0)
    width = _NUMBER_WIDTH if num_experts * _NUMBER_WIDTH <= _GRID_WIDTH else 1
    loads = [sum(layer["load"][expert] for layer in layers) / len(layers) for expert in range(num_experts)]
    held = {
        shard["shard"]: [
            sum(shard["shard"] in layer["holders"][expert] for layer in layers) for expert in range(num_experts)
        ]
        for shard in experts["shards"]
    }
    most = max((count for counts in held.values() for count in counts), default=0)
    grids: list[RenderableType] = []
    per_row = _GRID_WIDTH // width
    for first in range(0, num_experts, per_row):
        columns = range(first, min(first + per_row, num_experts))
        grid = Text(_heading(columns, width), "quiet")
        for shard in experts["shards"]:
            grid.append(f"\n{'shard ' + str(shard['shard']):<{len(_LABELS)}}", _STATE_STYLES.get(shard["state"], ""))
            for expert in columns:
                num_held = held[shard["shard"]][expert]
                heat = loads[expert] * num_experts
                grid.append(_cell(num_held, most, width), _heat_style(heat) if num_held else "quiet")
        grid.append(f"\n{'load':<{len(_LABELS)}}")
        for expert in columns:
            bar = _BARS[min(len(_BARS) - 1, int(loads[expert] * num_experts * len(_BARS) / 3))]
            grid.append(bar.rjust(width), _heat_style(loads[expert] * num_experts))
        grids += [grid, ""]
    legend = "cells: layers a shard holds it in; bars: load, full at 3 times the mean"
    return [*grids, Text(legend, "quiet")]


def _heading(columns: range, width: int) -> str:
    if width > 1:
        return f"{'expert':<{len(_LABELS)}}" + "".join(f"{expert:>{width}}" for expert in columns)
    return f"{'expert':<{len(_LABELS)}}" + "".join(f"{expert:<8}" for expert in columns[::8])


def _cell(num_held: int, most: int, width: int) -> str:
    if not num_held:
        return "·".rjust(width)
    return str(num_held).rjust(width) if width > 1 else _SHADES[num_held * len(_SHADES) // (most + 1)]


def _heat_style(heat: float) -> str:
    """`heat` is the load over the mean load of an expert."""
    if heat < 0.5:
        return "quiet"
    return "" if heat < 1.5 else "warn" if heat < 2.5 else "failure"


def _shard_fields(shard: Any) -> dict[str, Any]:
    reported = [field.name for field in shard.report.DESCRIPTOR.fields]
    known = shard.HasField("report")
    values = {name: getattr(shard.report, name) if known else None for name in reported}
    if not shard.report.HasField("capacity"):
        values["capacity"] = None
    state = type(shard).DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[shard.state].name
    return {
        "shard": shard.shard,
        "state": state.removeprefix("SHARD_STATE_").lower(),
        "transport": shard.transport,
        **values,
    }


def _imbalance(layers: Sequence[Mapping[str, Any]]) -> float:
    copies = {layer["layer"]: tuple(map(tuple, layer["holders"])) for layer in layers}
    load = {ExpertId(layer["layer"], expert): share for layer in layers for expert, share in enumerate(layer["load"])}
    return imbalance(ExpertPlacement(0, copies), load)


def _holders(bits: int) -> list[int]:
    return [shard for shard in range(bits.bit_length()) if bits >> shard & 1]
