"""What the memory of this machine gives when it is only read: the bound of every decode step."""

from __future__ import annotations

import time

import torch

from zenray.ops.build import KernelsUnavailable
from zenray.ops.native import kernels


def read_bandwidth(num_threads: int | None = None, num_bytes: int = 512 * 2**20, passes: int = 9) -> float:
    """GB/s (10^9 bytes) of the median pass over a buffer far larger than any cache.

    num_threads: torch's own number by default. Without compiled kernels torch sums the buffer, which
    reads slower on many machines.
    """
    threads = num_threads or torch.get_num_threads()
    buffer = torch.ones(num_bytes // 8, dtype=torch.int64)
    total = torch.zeros(1, dtype=torch.int64)
    try:
        read = kernels().read
    except KernelsUnavailable:
        read = None
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        if read is None:
            torch.sum(buffer)
        else:
            read(total.data_ptr(), buffer.data_ptr(), buffer.nbytes, threads)
        times.append(time.perf_counter() - start)
    return buffer.nbytes / sorted(times)[len(times) // 2] / 1e9
