"""The tables of docs/scale.md: what the presets need.

python -m zenray.bench.scale docs/scale.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from zenray.bench.document import replace_block
from zenray.experts.model_bytes import PlanFormat, model_bytes
from zenray.experts.scale_plan import MAX_SHARDS, ScalePlan, Wanted
from zenray.model.presets import PRESETS

NAMES = [name for name in PRESETS if not name.startswith("tiny") and not name.endswith("draft")]
FORMATS: tuple[PlanFormat, ...] = tuple(format_ for format_ in get_args(PlanFormat) if format_ != "mixed")
MEMORY_GB, CONTEXT_LENGTH, CONCURRENCY = 80, 8192, 8
_GAMMAS = (0, 1, 2, 4, 8, 16, 32)


def tables() -> dict[str, str]:
    """Block name and Markdown."""
    return {"shapes": _shapes(), "weights": _weights(), "fit": _fit(), "reads": _reads()}


def update(document: str) -> str:
    """`document` with every table written again. Raises ConfigError where a block is missing."""
    for name, body in tables().items():
        document = replace_block(document, name, body)
    return document


def _plan(name: str, weight_format: PlanFormat, num_shards: int = 1, gamma: int = 8) -> ScalePlan:
    wanted = Wanted(weight_format, num_shards, MEMORY_GB * 1e9, CONTEXT_LENGTH, CONCURRENCY, gamma)
    return ScalePlan(PRESETS[name], model_bytes(PRESETS[name], weight_format), wanted)


def _shapes() -> str:
    rows = []
    for name in NAMES:
        config = PRESETS[name]
        experts, width = "-", f"{config.intermediate_size:,}"
        if config.num_experts:
            experts, width = f"{config.num_experts_per_token} of {config.num_experts}", _width(name)
        rows.append(
            [
                name,
                f"{config.num_parameters / 1e9:.1f} B",
                f"{config.num_active_parameters / 1e9:.1f} B",
                f"{config.num_layers}",
                f"{config.hidden_size:,}",
                f"{config.num_heads} / {config.num_kv_heads}",
                experts,
                width,
                f"{config.vocab_size:,}",
                f"{config.kv_bytes_per_token(2) / 1024:.0f} KiB",
            ]
        )
    columns = ["preset", "parameters", "active", "layers", "hidden", "heads / KV", "experts", "their width"]
    return _table([*columns, "vocabulary", "KV per token"], rows)


def _width(name: str) -> str:
    config = PRESETS[name]
    dense = f" ({len(config.dense_layers)} dense of {config.intermediate_size:,})" if config.dense_layers else ""
    return f"{config.expert_intermediate_size:,}{dense}"


def _weights() -> str:
    rows = []
    for name in NAMES:
        found = [model_bytes(PRESETS[name], weight_format) for weight_format in FORMATS]
        rows.append([name, *(f"{_gb(each.total)} ({_gb(each.leader)})" for each in found)])
    return _table(["GB, in brackets the leader's own", *FORMATS], rows)


def _fit() -> str:
    rows = []
    for name in NAMES:
        for weight_format in ("bf16", "fp8", "int8", "int4"):
            fewest = _plan(name, weight_format).fewest_shards
            made = _plan(name, weight_format, fewest or (MAX_SHARDS if PRESETS[name].num_experts else 1))
            leader, *others = made.shards
            rows.append(
                [
                    name,
                    weight_format,
                    f"{fewest or 'none'}",
                    _gb(leader.total_bytes),
                    _gb(leader.expert_bytes),
                    _gb(leader.leader_weight_bytes),
                    _gb(leader.kv_bytes),
                    _gb(leader.workspace_bytes),
                    _gb(others[0].total_bytes) if others else "-",
                    f"{made.most_sequences:,}",
                    made.bottleneck,
                ]
            )
    columns = ["preset", "format", "fewest shards", "leader", "experts", "its weights", "KV", "workspace"]
    return _table([*columns, "another shard", "most sequences", "bottleneck there"], rows)


def _reads() -> str:
    rows = []
    for name in (name for name in NAMES if PRESETS[name].num_experts):
        steps = [_plan(name, "int4", gamma=gamma).reads(1) for gamma in _GAMMAS]
        one = steps[0].weight_bytes
        rows.append([name, "experts touched", *(f"{step.distinct_experts:.1f}" for step in steps)])
        rows.append(["", "a step's bytes, relative", *(f"{step.weight_bytes / one:.2f}" for step in steps)])
        rows.append(["", "GB per verified token", *(f"{step.weight_bytes_per_verified / 1e9:.2f}" for step in steps)])
        rows.append(["", "GB per committed token", *(f"{step.weight_bytes_per_committed / 1e9:.2f}" for step in steps)])
    return _table(["preset", "int4", *(f"γ = {gamma}" for gamma in _GAMMAS)], rows)


def _gb(num_bytes: float) -> str:
    if not num_bytes:
        return "-"
    gigabytes = num_bytes / 1e9
    return f"{gigabytes:,.0f}" if gigabytes >= 100 else f"{gigabytes:.1f}"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    path = parser.parse_args().document
    path.write_text(update(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
