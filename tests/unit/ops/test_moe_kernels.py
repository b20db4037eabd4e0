"""Routing, many experts' feed-forwards and their weighted sums: right, and the same bits whatever stands beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.ops import Backend, PackedWeight, pack
from zenray.ops.cpu import CpuBackend
from zenray.ops.reference import ReferenceBackend

several = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BF16_FORMATS = ("bf16", "int8", "int4")
Result = TypeVar("Result")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_threads(num_threads: int, call: Callable[[], Result]) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def make_expert(hidden: int, ffn: int, formats: tuple[str, str], seed: int) -> tuple[PackedWeight, PackedWeight]:
    gate_up, down = normal(2 * ffn, hidden, seed=seed) * 0.1, normal(hidden, ffn, seed=seed + 1) * 0.1
    return pack(gate_up, formats[0]), pack(down, formats[1])


def one_after_another(
    ops: Backend,
    x_ND: torch.Tensor,
    experts: list[tuple[PackedWeight, PackedWeight]],
    counts: list[int],
    rows_P: torch.Tensor,
) -> torch.Tensor:
    """What `swiglu_rows` stands for, in the backend's other operations."""
    groups = zip(rows_P.split(counts), experts, strict=True)
    return torch.cat(
        [ops.linear(ops.silu_mul(ops.linear(x_ND[rows], first)), second) for rows, (first, second) in groups]
    )


@st.composite
def routings(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Tokens, width, experts and experts per token."""
    num_experts = draw(st.one_of(st.integers(1, 20), st.just(256)))
    num_chosen = draw(st.integers(1, min(8, num_experts)))
    return draw(st.integers(1, 70)), draw(st.integers(1, 300)), num_experts, num_chosen


@given(sizes=routings(), normalise=st.booleans())
@several
def test_a_token_goes_to_its_most_probable_experts(
    backend: Backend, exact: ReferenceBackend, sizes: tuple[int, int, int, int], normalise: bool
) -> None:
    num_tokens, width, num_experts, num_chosen = sizes
    x_TD, router_ED = normal(num_tokens, width).bfloat16(), normal(num_experts, width, seed=1) / width**0.5
    ids_TK, weights_TK = backend.route(x_TD, router_ED, num_chosen, normalise)
    assert weights_TK.dtype == torch.float32
    assert bool((ids_TK.diff(dim=1) > 0).all())
    all_ids, all_TE = exact.route(x_TD.double(), router_ED.double(), num_experts, normalise=False)
    assert torch.equal(all_ids[0], torch.arange(num_experts))
    # The probabilities chosen are the greatest; which ids have them may differ where they are a rounding apart.
    expected_TK = all_TE.gather(1, ids_TK)
    torch.testing.assert_close(expected_TK.sort(descending=True).values, all_TE.topk(num_chosen).values)
    if normalise:
        expected_TK = expected_TK / expected_TK.sum(dim=1, keepdim=True)
    torch.testing.assert_close(weights_TK.double(), expected_TK, rtol=1e-5, atol=1e-7)


@given(sizes=routings(), num_distinct=st.integers(1, 5), seed=st.integers(0, 1000))
@several
def test_experts_with_equal_router_rows_are_equally_probable_and_the_first_of_them_is_taken(
    compiled: CpuBackend, sizes: tuple[int, int, int, int], num_distinct: int, seed: int
) -> None:
    num_tokens, width, num_experts, num_chosen = sizes
    kinds_E = torch.randint(num_distinct, (num_experts,), generator=torch.Generator().manual_seed(seed))
    x_TD, router_ED = normal(num_tokens, width, seed=seed).bfloat16(), normal(num_distinct, width, seed=1)[kinds_E]
    ids_TK, weights_TK = compiled.route(x_TD, router_ED, num_chosen, normalise=False)
    for ids, weights in zip(ids_TK.tolist(), weights_TK.tolist(), strict=True):
        weight_of_kind: dict[int, float] = {}
        for expert_id, weight in zip(ids, weights, strict=True):
            assert weight_of_kind.setdefault(int(kinds_E[expert_id]), weight) == weight
        for kind in weight_of_kind:
            members = (kinds_E == kind).nonzero()[:, 0].tolist()
            taken = [expert_id for expert_id in ids if expert_id in members]
            assert taken == members[: len(taken)]


@given(sizes=routings(), threads=st.integers(1, 3), data=st.data())
@several
def test_a_tokens_route_does_not_depend_on_other_tokens_or_threads(
    compiled: CpuBackend, sizes: tuple[int, int, int, int], threads: int, data: st.DataObject
) -> None:
    num_tokens, width, num_experts, num_chosen = sizes
    x_TD, router_ED = normal(num_tokens, width).bfloat16(), normal(num_experts, width, seed=1)
    ids_TK, weights_TK = compiled.route(x_TD, router_ED, num_chosen, normalise=True)
    start = data.draw(st.integers(0, num_tokens - 1))
    part = slice(start, data.draw(st.integers(start + 1, num_tokens)))
    ids, weights = with_threads(threads, lambda: compiled.route(x_TD[part], router_ED, num_chosen, normalise=True))
    assert torch.equal(ids, ids_TK[part])
    assert torch.equal(weights, weights_TK[part])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_token_that_is_no_number_still_has_experts_and_spoils_no_other(compiled: CpuBackend, bad: float) -> None:
    x_TD, router_ED = normal(5, 96).bfloat16(), normal(16, 96, seed=1)
    clean_ids, clean_weights = compiled.route(x_TD, router_ED, 4, normalise=True)
    x_TD[2, 7] = bad
    ids_TK, weights_TK = compiled.route(x_TD, router_ED, 4, normalise=True)
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(ids_TK[others], clean_ids[others])
    assert torch.equal(weights_TK[others], clean_weights[others])
    assert ids_TK[2].tolist() == [0, 1, 2, 3]
    assert bool(weights_TK[2].isnan().all())


@given(
    num_tokens=st.integers(1, 40),
    hidden=st.integers(1, 150),
    ffn=st.integers(1, 120),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    formats=st.tuples(st.sampled_from(BF16_FORMATS), st.sampled_from(BF16_FORMATS)),
)
@several
def test_experts_together_give_the_bits_of_one_after_another(
    backend: Backend,
    num_tokens: int,
    hidden: int,
    ffn: int,
    counts: list[int],
    formats: tuple[str, str],
) -> None:
    experts = [make_expert(hidden, ffn, formats, seed=2 * index) for index in range(len(counts))]
    x_ND = normal(num_tokens, hidden).bfloat16()
    rows_P = torch.randint(num_tokens, (sum(counts),), generator=torch.Generator().manual_seed(0))
    together = backend.swiglu_rows(x_ND, experts, counts, rows_P)
    assert torch.equal(together, one_after_another(backend, x_ND, experts, counts, rows_P))


@pytest.mark.parametrize("format", BF16_FORMATS)
def test_more_rows_than_are_computed_at_once(compiled: CpuBackend, format: str) -> None:
    counts = [3000, 0, 1500, 5000, 1]
    experts = [make_expert(40, 24, (format, format), seed=2 * index) for index in range(len(counts))]
    x_ND = normal(5000, 40).bfloat16()
    rows_P = torch.randint(5000, (sum(counts),), generator=torch.Generator().manual_seed(0))
    together = compiled.swiglu_rows(x_ND, experts, counts, rows_P)
    assert torch.equal(together, one_after_another(compiled, x_ND, experts, counts, rows_P))


@pytest.mark.parametrize("format", BF16_FORMATS)
def test_a_rows_feed_forward_does_not_depend_on_the_rows_and_experts_beside_it(
    compiled: CpuBackend, format: str
) -> None:
    experts = [make_expert(420, 150, (format, format), seed=2 * index) for index in range(3)]
    x_ND = normal(67, 420).bfloat16()
    rows_P = torch.arange(67).repeat(3)
    together = compiled.swiglu_rows(x_ND, experts, [67, 67, 67], rows_P).view(3, 67, 420)
    for index, expert in enumerate(experts):
        for start, stop in [(0, 1), (5, 7), (10, 18), (34, 67)]:
            alone = compiled.swiglu_rows(x_ND[start:stop], [expert], [stop - start], torch.arange(stop - start))
            assert torch.equal(alone, together[index, start:stop])


@pytest.mark.parametrize("format", BF16_FORMATS)
@pytest.mark.parametrize("counts", [[1, 1], [9, 0, 40]])
def test_experts_do_not_depend_on_the_number_of_threads(compiled: CpuBackend, format: str, counts: list[int]) -> None:
    experts = [make_expert(420, 150, (format, format), seed=2 * index) for index in range(len(counts))]
    x_ND, rows_P = normal(49, 420).bfloat16(), torch.arange(sum(counts))
    one, two, three = (
        with_threads(threads, lambda: compiled.swiglu_rows(x_ND, experts, counts, rows_P)) for threads in (1, 2, 3)
    )
    assert torch.equal(one, two)
    assert torch.equal(one, three)


@pytest.mark.parametrize("format", BF16_FORMATS)
def test_one_bad_row_of_an_expert_stays_alone(compiled: CpuBackend, format: str) -> None:
    experts = [make_expert(96, 64, (format, format), seed=seed) for seed in (0, 2)]
    x_ND, rows_P = normal(4, 96).bfloat16(), torch.tensor([0, 1, 2, 1, 3])
    clean = compiled.swiglu_rows(x_ND, experts, [3, 2], rows_P)
    x_ND[1, 5] = torch.nan
    result = compiled.swiglu_rows(x_ND, experts, [3, 2], rows_P)
    assert torch.equal(result[[0, 2, 4]], clean[[0, 2, 4]])
    assert not bool(torch.isfinite(result[[1, 3]]).any())


@given(num_tokens=st.integers(1, 40), width=st.integers(1, 600), num_chosen=st.integers(1, 8))
@several
def test_combine_adds_in_order_and_rounds_once(backend: Backend, num_tokens: int, width: int, num_chosen: int) -> None:
    num_pairs = num_tokens * num_chosen
    y_PD, weights_TK = normal(num_pairs, width).bfloat16(), normal(num_tokens, num_chosen, seed=1).softmax(dim=1)
    order = torch.randperm(num_pairs, generator=torch.Generator().manual_seed(2))
    pairs_TK = order.view(num_tokens, num_chosen)
    sum_TD = torch.zeros(num_tokens, width)
    for k in range(num_chosen):
        sum_TD = sum_TD + weights_TK[:, k : k + 1] * y_PD[pairs_TK[:, k]].float()
    assert torch.equal(backend.combine(y_PD, pairs_TK, weights_TK), sum_TD.bfloat16())


def test_no_tokens_and_no_experts(compiled: CpuBackend) -> None:
    empty = torch.empty(0, 64, dtype=torch.bfloat16)
    ids_TK, weights_TK = compiled.route(empty, normal(8, 64), 2, normalise=True)
    assert ids_TK.shape == weights_TK.shape == (0, 2)
    none = torch.empty(0, dtype=torch.int64)
    assert compiled.swiglu_rows(empty, [], [], none).shape == (0, 64)
    assert compiled.swiglu_rows(empty, [make_expert(64, 32, ("int8", "int8"), seed=0)], [0], none).shape == (0, 64)
    assert compiled.combine(empty, ids_TK, weights_TK).shape == (0, 64)
