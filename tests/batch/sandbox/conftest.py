"""One pool of real sandboxes for each file of tests, and a look at what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zenray.batch.sandbox import Limits, SandboxPool, SandboxUnavailable

SMALL = Limits(
    wall_s=30, cpu_s=1, memory_mib=256, file_mib=4, scratch_mib=16, num_processes=16, num_open_files=64, output_kib=64
)


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    try:
        with SandboxPool(2, SMALL) as pool:
            yield pool
    except SandboxUnavailable as reason:
        pytest.skip(f"no sandbox here: {reason}")
