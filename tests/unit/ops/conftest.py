"""Backends under test, and paged batches to try them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from zenray.ops import Backend, LayerCache, StepBatch, build
from zenray.ops.build import KernelsUnavailable
from zenray.ops.cpu import CpuBackend, TorchCpuBackend
from zenray.ops.native import Kernels
from zenray.ops.reference import ReferenceBackend


@pytest.fixture(scope="session")
def compiled() -> CpuBackend:
    """The compiled kernels; skips where the machine cannot have them."""
    try:
        return CpuBackend()
    except KernelsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def compiled_without_bf16(compiled: CpuBackend) -> CpuBackend:
    """The kernels as they are built for a processor without AVX-512 BF16."""
    return CpuBackend(Kernels(build.library(extra_flags=("-mno-avx512bf16",))))


@pytest.fixture(params=["compiled", "compiled_without_bf16", "torch", "reference"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend for bfloat16 activations."""
    if request.param.startswith("compiled"):
        return request.getfixturevalue(request.param)
    return TorchCpuBackend(torch.bfloat16) if request.param == "torch" else ReferenceBackend(torch.bfloat16)


@pytest.fixture(scope="session")
def exact() -> ReferenceBackend:
    """The oracle in float64."""
    return ReferenceBackend(torch.float64)


@dataclass
class Paged:
    """Queries of one step over sequences of (context, new tokens) whose blocks lie scattered in the pool."""

    q_THC: torch.Tensor
    cache: LayerCache
    batch: StepBatch
    scale: float

    def widened(self) -> tuple[torch.Tensor, LayerCache, StepBatch, float]:
        """Arguments for the float64 oracle."""
        cache = LayerCache(self.cache.keys.double(), self.cache.values.double())
        return self.q_THC.double(), cache, self.batch, self.scale


def step_over(sequences: list[tuple[int, int]], block_size: int, num_blocks: int, seed: int = 0) -> StepBatch:
    """A step whose block tables are drawn at random."""
    free = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(seed)).tolist()
    width = max(-(-context // block_size) for context, _ in sequences)
    tables = torch.zeros(len(sequences), width, dtype=torch.int32)
    positions: list[int] = []
    slots: list[int] = []
    starts = [0]
    for row, (context, new) in enumerate(sequences):
        blocks = [free.pop() for _ in range(-(-context // block_size))]
        tables[row, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
        positions += range(context - new, context)
        slots += [blocks[p // block_size] * block_size + p % block_size for p in range(context - new, context)]
        starts.append(len(positions))
    contexts = [context for context, _ in sequences]
    return StepBatch(
        token_ids_T=torch.zeros(len(positions), dtype=torch.int64),
        positions_T=torch.tensor(positions),
        query_starts=torch.tensor(starts, dtype=torch.int32),
        context_lens_S=torch.tensor(contexts, dtype=torch.int32),
        block_tables_SB=tables,
        slots_T=torch.tensor(slots),
        logit_rows_R=torch.tensor([0]),
        query_starts_list=starts,
        context_lens_list=contexts,
    )


@pytest.fixture(scope="session")
def paged() -> Callable[..., Paged]:
    """`paged(sequences, num_heads, num_kv_heads, head_dim, block_size, seed)`.

    Slots no token has been written to hold NaN: reading one shows.
    """

    def make(
        sequences: list[tuple[int, int]],
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        block_size: int,
        seed: int = 0,
    ) -> Paged:
        generator = torch.Generator().manual_seed(seed)
        num_blocks = sum(-(-context // block_size) for context, _ in sequences) + 2
        batch = step_over(sequences, block_size, num_blocks, seed)
        pools = []
        for _ in range(2):
            pool = torch.full((num_blocks, num_kv_heads, block_size, head_dim), torch.nan, dtype=torch.bfloat16)
            for row, (context, _) in enumerate(sequences):
                positions = torch.arange(context)
                blocks = batch.block_tables_SB[row, positions // block_size].long()
                values = torch.randn(context, num_kv_heads, head_dim, generator=generator)
                pool[blocks, :, positions % block_size] = values.bfloat16()
            pools.append(pool)
        num_tokens = batch.positions_T.shape[0]
        q_THC = (2 * torch.randn(num_tokens, num_heads, head_dim, generator=generator)).bfloat16()
        return Paged(q_THC, LayerCache(*pools), batch, head_dim**-0.5)

    return make
