"""Paged attention of every backend against the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.ops import Backend, StepBatch
from zenray.ops.cpu import CpuBackend
from zenray.ops.reference import ReferenceBackend

sequences = st.lists(
    st.integers(1, 700).flatmap(lambda context: st.tuples(st.just(context), st.integers(1, min(context, 60)))),
    min_size=1,
    max_size=5,
)


@given(
    sequences=sequences,
    heads=st.sampled_from([(14, 2), (12, 2), (8, 1), (4, 4), (9, 3)]),
    head_dim=st.sampled_from([32, 64, 128, 256]),
    block_size=st.sampled_from([1, 5, 16, 32, 100]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attention(
    backend: Backend,
    exact: ReferenceBackend,
    paged: Callable[..., Any],
    sequences: list[tuple[int, int]],
    heads: tuple[int, int],
    head_dim: int,
    block_size: int,
    seed: int,
) -> None:
    step = paged(sequences, *heads, head_dim, block_size, seed)
    actual = backend.attention(step.q_THC, step.cache, step.batch, step.scale)
    expected = exact.attention(*step.widened())
    # Weights and result are rounded to bfloat16; values are of deviation 1.
    assert float((actual.double() - expected).abs().max()) < 0.03
    assert float((actual.double() - expected).norm() / expected.norm()) < 0.004


@pytest.mark.parametrize("head_dim", [8, 48])
def test_head_widths_the_kernel_does_not_know_are_served(
    compiled: CpuBackend, exact: ReferenceBackend, paged: Callable[..., Any], head_dim: int
) -> None:
    step = paged([(40, 3), (7, 7)], 4, 2, head_dim, 16)
    actual = compiled.attention(step.q_THC, step.cache, step.batch, step.scale)
    assert float((actual.double() - exact.attention(*step.widened())).abs().max()) < 0.03


@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(14, 2, 64), (8, 1, 256), (4, 4, 128)])
def test_a_tokens_result_depends_on_its_own_context_alone(
    compiled: CpuBackend, paged: Callable[..., Any], num_heads: int, num_kv_heads: int, head_dim: int
) -> None:
    """Bitwise: in a batch or alone, in a whole prompt, in chunks or one token at a time."""
    context = 600
    whole = paged([(context, context), (33, 2)], num_heads, num_kv_heads, head_dim, 16)
    together = compiled.attention(whole.q_THC, whole.cache, whole.batch, whole.scale)
    table = whole.batch.block_tables_SB[:1]
    for start, stop in [(0, 600), (0, 1), (254, 258), (300, 301), (511, 600), (599, 600)]:
        alone = StepBatch(
            token_ids_T=whole.batch.token_ids_T[start:stop],
            positions_T=whole.batch.positions_T[start:stop],
            query_starts=torch.tensor([0, stop - start], dtype=torch.int32),
            context_lens_S=torch.tensor([stop], dtype=torch.int32),
            block_tables_SB=table,
            slots_T=whole.batch.slots_T[start:stop],
            logit_rows_R=torch.tensor([0]),
            query_starts_list=[0, stop - start],
            context_lens_list=[stop],
        )
        part = compiled.attention(whole.q_THC[start:stop].contiguous(), whole.cache, alone, whole.scale)
        assert torch.equal(part, together[start:stop]), (start, stop)


def test_a_long_context_is_split_among_threads_without_changing_a_bit(
    compiled: CpuBackend, paged: Callable[..., Any]
) -> None:
    step = paged([(3000, 1)], 8, 1, 64, 16)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(compiled.attention(step.q_THC, step.cache, step.batch, step.scale))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
