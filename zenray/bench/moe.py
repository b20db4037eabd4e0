"""Times one Mixture-of-Experts layer part by part, beside the dense layer that reads as many weights for a token.

`python -m zenray.bench.moe` prints a table. Every call takes the next of several layers and other tokens: their weights
are several times the last-level cache, as a model's are.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from zenray.model.moe import LocalExperts, group_by_expert
from zenray.model.weights import FeedForwardWeights
from zenray.ops import Backend, PackedWeight, pack
from zenray.ops.bench import WORKING_SET, begin, kernel_parser, seconds_per_call


@dataclass(frozen=True)
class LayerSizes:
    """An MoE layer. Its dense equivalent has the width of the experts one token uses."""

    hidden: int
    expert_ffn: int
    num_experts: int
    num_chosen: int


@dataclass(frozen=True)
class LayerTimes:
    """Microseconds of a layer's parts and of the whole, and of the dense equivalent; experts used by a call."""

    route_us: float
    group_us: float
    swiglu_us: float
    combine_us: float
    moe_us: float
    dense_us: float
    num_used: int


def time_layer(ops: Backend, sizes: LayerSizes, weight_format: str, num_tokens: int, budget_s: float) -> LayerTimes:
    """`num_tokens` random tokens through random weights in `weight_format`."""
    expert = _feed_forward(sizes.hidden, sizes.expert_ffn, weight_format)
    dense = _feed_forward(sizes.hidden, sizes.expert_ffn * sizes.num_chosen, weight_format)
    num_layers = _num_copies(expert.num_bytes * sizes.num_experts)
    layers = [[_clone(expert) for _ in range(sizes.num_experts)] for _ in range(num_layers)]
    routers = torch.randn(num_layers, sizes.num_experts, sizes.hidden) * 2 / sizes.hidden**0.5
    inputs = torch.randn(97, num_tokens, sizes.hidden).bfloat16()
    dense_layers = [_clone(dense) for _ in range(_num_copies(dense.num_bytes))]
    calls, dense_calls = _turns(num_layers, len(inputs)), _turns(len(dense_layers), len(inputs))
    experts = LocalExperts(layers, ops)

    def route(layer: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return ops.route(inputs[number], routers[layer], sizes.num_chosen, normalise=True)

    def moe() -> None:
        layer, number = next(calls)
        experts(layer, inputs[number], *route(layer, number))

    def swiglu() -> None:
        layer, number = next(calls)
        grouped = groups[number]
        used = [layers[layer][expert_id] for expert_id in grouped.expert_ids]
        ops.swiglu_rows(inputs[number], [(e.gate_up, e.down) for e in used], grouped.counts, grouped.rows_P)

    def feed_forward() -> None:
        layer, number = next(dense_calls)
        weights = dense_layers[layer]
        ops.linear(ops.silu_mul(ops.linear(inputs[number], weights.gate_up)), weights.down)

    chosen = [route(0, number) for number in range(len(inputs))]
    groups = [group_by_expert(ids_TK) for ids_TK, _ in chosen]
    y_PD = torch.randn(num_tokens * sizes.num_chosen, sizes.hidden).bfloat16()

    def timed_us(call: Callable[[], object]) -> float:
        return seconds_per_call(call, budget_s) * 1e6

    return LayerTimes(
        route_us=timed_us(lambda: route(*next(calls))),
        group_us=timed_us(lambda: group_by_expert(chosen[next(calls)[1]][0])),
        swiglu_us=timed_us(swiglu),
        combine_us=timed_us(lambda: ops.combine(y_PD, groups[0].pairs_TK, chosen[0][1])),
        moe_us=timed_us(moe),
        dense_us=timed_us(feed_forward),
        num_used=len(groups[0].expert_ids),
    )


def _num_copies(num_bytes: int) -> int:
    return max(2, min(64, WORKING_SET // num_bytes))


def _turns(num_layers: int, num_inputs: int) -> Iterator[tuple[int, int]]:
    """Endless (layer, input)."""
    return zip(itertools.cycle(range(num_layers)), itertools.cycle(range(num_inputs)), strict=True)


def _feed_forward(hidden: int, ffn: int, weight_format: str) -> FeedForwardWeights:
    gate_up, down = torch.randn(2 * ffn, hidden) * 0.02, torch.randn(hidden, ffn) * 0.02
    return FeedForwardWeights(pack(gate_up, weight_format), pack(down, weight_format))


def _clone(weights: FeedForwardWeights) -> FeedForwardWeights:
    def cloned(weight: PackedWeight) -> PackedWeight:
        return PackedWeight.from_tensors({name: t.clone() for name, t in weight.to_tensors().items()})

    return FeedForwardWeights(cloned(weights.gate_up), cloned(weights.down))


def main() -> None:
    """The command."""
    parser = kernel_parser("zenray.bench.moe", __doc__, [1, 2, 4, 8, 32, 512])
    parser.add_argument("--ffn", type=int, default=2432, help="width of an expert")
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--top-k", type=int, default=2)
    arguments = parser.parse_args()
    ops = begin(arguments)
    sizes = LayerSizes(arguments.hidden, arguments.ffn, arguments.experts, arguments.top_k)
    table = Table(
        title=f"{ops.name}, {torch.get_num_threads()} threads, {sizes.num_experts} experts of {sizes.expert_ffn}, "
        f"top {sizes.num_chosen}; µs a layer",
        title_justify="left",
        box=box.SIMPLE,
    )
    for name in ("format", "rows", "used", "route", "group", "swiglu", "combine", "MoE", "dense", "dense / MoE"):
        table.add_column(name, justify="right", no_wrap=True)
    with Console(stderr=True).status("timing layers"), torch.inference_mode():
        for weight_format, rows in itertools.product(arguments.formats, arguments.rows):
            times = time_layer(ops, sizes, weight_format, rows, arguments.seconds)
            parts = (times.route_us, times.group_us, times.swiglu_us, times.combine_us, times.moe_us, times.dense_us)
            shown = (f"{part:.1f}" for part in parts)
            table.add_row(weight_format, str(rows), str(times.num_used), *shown, f"{times.dense_us / times.moe_us:.2f}")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
