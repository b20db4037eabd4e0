"""What the machine can read: the bound every decode step is judged against."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zenray.bench.statistics import median

if TYPE_CHECKING:
    import torch

DEFAULT_BUFFER_MIB = 1024
"""Far beyond any last-level cache, so that every pass comes from memory."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Read bandwidth of main memory with `num_threads` threads, GB/s (10^9 bytes)."""

    gb_per_s: float
    num_threads: int
    buffer_mib: int


def measure_bandwidth(num_threads: int = 0, buffer_mib: int = DEFAULT_BUFFER_MIB, passes: int = 7) -> Bandwidth:
    """Times reductions and matrix-vector products over one large buffer; the fastest kernel's median pass.

    Several kernels, because none is the fastest on every machine; the median, because on a shared host a
    single pass can be far faster than what lasts. `num_threads` 0 keeps torch's own number.
    """
    import torch

    before = torch.get_num_threads()
    threads = num_threads or before
    torch.set_num_threads(threads)
    try:
        buffer = torch.ones(buffer_mib * 2**20 // 4, dtype=torch.float32)
        pass_s = min(_median_pass_s(kernel, passes) for kernel in _kernels(buffer))
    finally:
        torch.set_num_threads(before)
    return Bandwidth(round(buffer.nbytes / pass_s / 1e9, 2), threads, buffer_mib)


def _kernels(buffer: torch.Tensor) -> list[tuple[object, tuple[torch.Tensor, ...]]]:
    import torch

    rows = buffer.view(-1, 4096)
    half = buffer.view(torch.bfloat16).view(-1, 4096)
    return [
        (torch.sum, (buffer,)),
        (torch.amax, (buffer,)),
        (torch.mv, (rows, torch.ones(4096))),
        (torch.nn.functional.linear, (torch.ones(1, 4096, dtype=torch.bfloat16), half)),
    ]


def _median_pass_s(kernel: tuple[object, tuple[torch.Tensor, ...]], passes: int) -> float:
    call, arguments = kernel
    assert callable(call)
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        call(*arguments)
        times.append(time.perf_counter() - start)
    return median(times)
