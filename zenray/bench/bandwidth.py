"""What the machine can read: the bound every decode step is judged against."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_BUFFER_MIB = 1024
"""Far beyond any last-level cache, so that every pass comes from memory."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Read bandwidth of main memory with `num_threads` threads, GB/s (10^9 bytes)."""

    gb_per_s: float
    num_threads: int
    buffer_mib: int


def measure_bandwidth(num_threads: int = 0, buffer_mib: int = DEFAULT_BUFFER_MIB) -> Bandwidth:
    """The median pass of the kernels' own read over one large buffer; `num_threads` 0 keeps torch's number.

    The median, because on a shared host a single pass can be far faster than what lasts.
    """
    import torch

    from zenray.ops.bandwidth import read_bandwidth

    threads = num_threads or torch.get_num_threads()
    return Bandwidth(round(read_bandwidth(threads, buffer_mib * 2**20), 2), threads, buffer_mib)
