"""Times every kernel beside torch's own operation and the machine's limits: `python -m zenray.ops.bench`.

Weights and caches are taken in turn from copies larger than the last-level cache, as a model's layers
are, so that a product with few rows shows what reading from memory costs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from zenray.ops import Backend, LayerCache, PackedWeight, StepBatch, backend_for, pack
from zenray.ops.bandwidth import read_bandwidth
from zenray.ops.batch import Span, lay_out
from zenray.ops.reference import ReferenceBackend

WORKING_SET = 200 * 2**20
"""Bytes cycled through: several times the last-level cache."""
BLOCK_SIZE = 16


@dataclass(frozen=True)
class Timing:
    """One line: seconds a call, what it must read, what it computes, and torch's seconds for the same."""

    kernel: str
    case: str
    seconds: float
    num_bytes: float
    num_flops: float
    torch_seconds: float


def seconds_per_call(call: Callable[[], object], budget_s: float) -> float:
    """The median of as many calls as fit the budget, three at least."""
    call()
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def copies_of(weight: PackedWeight) -> Iterator[PackedWeight]:
    """The weight and clones of it, endlessly in turn, WORKING_SET bytes in all."""
    tensors = weight.to_tensors()
    count = max(1, min(64, WORKING_SET // weight.num_bytes))
    clones = [PackedWeight.from_tensors({name: t.clone() for name, t in tensors.items()}) for _ in range(count)]
    return itertools.cycle(clones)


def time_linear(ops: Backend, shape: tuple[int, int], format: str, num_rows: int, budget_s: float) -> Timing:
    """A product with `num_rows` rows of activations; torch's is its bf16 linear."""
    num_outputs, num_columns = shape
    matrix = torch.randn(shape) * 0.02
    x = torch.randn(num_rows, num_columns).bfloat16()
    weight, dense = pack(matrix, format), pack(matrix, "bf16")
    packed, plain = copies_of(weight), copies_of(dense)
    return Timing(
        f"linear {format}",
        f"{num_outputs}x{num_columns}, {num_rows} rows",
        seconds_per_call(lambda: ops.linear(x, next(packed)), budget_s),
        weight.num_bytes,
        2.0 * num_rows * num_outputs * num_columns,
        seconds_per_call(lambda: torch.nn.functional.linear(x, next(plain).data), budget_s),
    )


def time_attention(
    ops: Backend, heads: tuple[int, int, int], sequences: list[tuple[int, int]], budget_s: float
) -> Timing:
    """Paged attention over (context, new tokens) sequences; torch's is a gather, then SDPA, per sequence."""
    num_heads, num_kv_heads, head_dim = heads
    batch = scattered_batch(sequences)
    num_blocks = int(batch.block_tables_SB.max()) + 1
    shape = (num_blocks, num_kv_heads, BLOCK_SIZE, head_dim)
    block_bytes = num_kv_heads * BLOCK_SIZE * head_dim * 4
    count = max(1, min(32, WORKING_SET // (num_blocks * block_bytes)))
    caches = [LayerCache(torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16()) for _ in range(count)]
    mine, theirs = itertools.cycle(caches), itertools.cycle(caches)
    q_THC = torch.randn(len(batch.positions_T), num_heads, head_dim).bfloat16()
    scale = head_dim**-0.5
    pairs = sum(new * context - new * (new - 1) // 2 for context, new in sequences)
    name = ", ".join(f"{n} x {case}" for case, n in _counted([f"{new} of {context}" for context, new in sequences]))
    plain = ReferenceBackend(torch.bfloat16)
    return Timing(
        f"attention {num_heads}/{num_kv_heads}x{head_dim}",
        name,
        seconds_per_call(lambda: ops.attention(q_THC, next(mine), batch, scale), budget_s),
        sum(context for context, _ in sequences) * num_kv_heads * head_dim * 4.0,
        4.0 * pairs * num_heads * head_dim,
        seconds_per_call(lambda: plain.attention(q_THC, next(theirs), batch, scale), budget_s),
    )


def time_elementwise(ops: Backend, hidden: int, ffn: int, num_rows: int, budget_s: float) -> Iterator[Timing]:
    """Norm with residual and the gate; torch's are the reference's operations."""
    plain = ReferenceBackend(torch.bfloat16)
    x, residual = torch.randn(num_rows, hidden).bfloat16(), torch.zeros(num_rows, hidden).bfloat16()
    weight, gate_up = torch.ones(hidden), torch.randn(num_rows, 2 * ffn).bfloat16()
    calls: list[tuple[str, int, Callable[[Backend], object]]] = [
        ("add_rms_norm_", 4 * x.nbytes, lambda b: b.add_rms_norm_(x, residual, weight, 1e-6)),
        ("silu_mul", gate_up.nbytes * 3 // 2, lambda b: b.silu_mul(gate_up)),
    ]
    for name, num_bytes, call in calls:
        ours = seconds_per_call(lambda call=call: call(ops), budget_s / 4)  # type: ignore[misc]
        torch_s = seconds_per_call(lambda call=call: call(plain), budget_s / 4)  # type: ignore[misc]
        yield Timing(name, f"{num_rows} rows", ours, num_bytes, 0.0, torch_s)


def scattered_batch(sequences: list[tuple[int, int]]) -> StepBatch:
    """A step over (context, new tokens) sequences whose blocks lie at random places of the pool."""
    blocks_each = [-(-context // BLOCK_SIZE) for context, _ in sequences]
    free = torch.randperm(sum(blocks_each), generator=torch.Generator().manual_seed(0)).tolist()
    spans = [
        Span([0] * new, context - new, [free.pop() for _ in range(num_blocks)])
        for (context, new), num_blocks in zip(sequences, blocks_each, strict=True)
    ]
    return lay_out(spans, [0], BLOCK_SIZE)


def _counted(names: list[str]) -> list[tuple[str, int]]:
    return [(name, names.count(name)) for name in dict.fromkeys(names)]


def _table(bandwidth: float, threads: int, backend: str) -> Table:
    table = Table(
        title=f"{backend}, {threads} threads; memory read at {bandwidth:.1f} GB/s", title_justify="left", box=box.SIMPLE
    )
    for name in ("kernel", "case"):
        table.add_column(name, no_wrap=True)
    for name in ("µs", "GB/s", "of memory", "GFLOP/s", "torch µs", "times torch"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def kernel_parser(program: str, description: str, rows: list[int]) -> argparse.ArgumentParser:
    """The options that every timing of kernels has; `begin` obeys them."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=rows, help="rows of activations: tokens of a step")
    parser.add_argument("--formats", nargs="+", default=["bf16", "int8", "int4"], choices=["bf16", "int8", "int4"])
    parser.add_argument("--hidden", type=int, default=896, help="model width (default: Qwen2.5-Coder-0.5B's sizes)")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's number")
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each measurement")
    return parser


def begin(arguments: argparse.Namespace) -> Backend:
    """The kernels to time, in the threads asked for and on the same random numbers every time."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    return backend_for("cpu", torch.bfloat16)


def main() -> None:
    """The command."""
    parser = kernel_parser("zenray.ops.bench", __doc__, [1, 4, 8, 16, 64, 512])
    parser.add_argument("--ffn", type=int, default=4864, help="width of the feed-forward layer")
    parser.add_argument("--heads", type=int, nargs=3, default=[14, 2, 64], metavar=("H", "K", "C"))
    arguments = parser.parse_args()
    ops = begin(arguments)
    bandwidth = read_bandwidth()
    table = _table(bandwidth, torch.get_num_threads(), ops.name)

    def add(timing: Timing) -> None:
        rate = timing.num_bytes / timing.seconds / 1e9
        table.add_row(
            timing.kernel,
            timing.case,
            f"{timing.seconds * 1e6:.1f}",
            f"{rate:.1f}",
            f"{rate / bandwidth:.0%}",
            f"{timing.num_flops / timing.seconds / 1e9:.0f}" if timing.num_flops else "",
            f"{timing.torch_seconds * 1e6:.1f}",
            f"{timing.torch_seconds / timing.seconds:.1f}",
        )

    with Console(stderr=True).status("timing kernels"), torch.inference_mode():
        shapes = [(2 * arguments.ffn, arguments.hidden), (arguments.hidden, arguments.ffn)]
        for format, shape, rows in itertools.product(arguments.formats, shapes, arguments.rows):
            add(time_linear(ops, shape, format, rows, arguments.seconds))
        for sequences in ([(256, 1)], [(2048, 1)], [(512, 1)] * 8, [(2048, 8)], [(512, 512)], [(4096, 512)]):
            add(time_attention(ops, tuple(arguments.heads), sequences, arguments.seconds))
        for rows in (1, 8, 512):
            for timing in time_elementwise(ops, arguments.hidden, arguments.ffn, rows, arguments.seconds):
                add(timing)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
