"""Linear layers, norms, gates and rotations of every backend against the float64 oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.ops import Backend, LayerCache, pack, unpack
from zenray.ops.cpu import CpuBackend
from zenray.ops.reference import ReferenceBackend

several = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BF16_FORMATS = ("bf16", "int8", "int4")
ROUNDING = 2.0**-8
"""Half a step of bfloat16, relative to the number rounded."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, slack: float = 1e-5) -> bool:
    """Equal up to one rounding to bfloat16 and `slack` of accumulated error."""
    assert actual.shape == expected.shape
    return bool(((actual.double() - expected).abs() <= ROUNDING * expected.abs() + slack).all())


@given(
    num_tokens=st.integers(1, 40),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 600)),
    format=st.sampled_from(BF16_FORMATS),
    with_bias=st.booleans(),
    wide=st.booleans(),
)
@several
def test_linear(
    backend: Backend,
    exact: ReferenceBackend,
    num_tokens: int,
    shape: tuple[int, int],
    format: str,
    with_bias: bool,
    wide: bool,
) -> None:
    x = normal(num_tokens, shape[1]).bfloat16()
    weight = pack(normal(*shape, seed=1) * 0.05, format, normal(shape[0], seed=2) if with_bias else None)
    actual = backend.linear(x, weight, torch.float32 if wide else None)
    assert actual.dtype == (torch.float32 if wide else torch.bfloat16)
    expected = exact.linear(x.double(), weight)
    # Packed formats round each group of 32 activations to 127 steps of its largest.
    groups = torch.nn.functional.pad(x.double(), (0, -shape[1] % 32)).reshape(num_tokens, -1, 32)
    half_steps = (groups.abs().amax(dim=2) / 254).repeat_interleave(32, dim=1)[:, : shape[1]]
    magnitudes = unpack(weight).double().abs().T
    allowed = x.double().abs() @ magnitudes * 1e-5 + ROUNDING * expected.abs() + 1e-6
    if format != "bf16":
        allowed += 1.001 * half_steps @ magnitudes
    if backend.name == "cpu-torch":
        allowed += x.double().abs() @ magnitudes * ROUNDING  # it rounds the matrix and the bias to bfloat16
        allowed += 0 if weight.bias is None else weight.bias.double().abs() * ROUNDING
    assert bool(((actual.double() - expected).abs() <= allowed).all())


@pytest.mark.parametrize("format", BF16_FORMATS)
@pytest.mark.parametrize("wide", [True, False])
def test_a_given_output_is_written_and_returned(backend: Backend, format: str, wide: bool) -> None:
    x, weight = normal(5, 96).bfloat16(), pack(normal(70, 96, seed=1), format)
    dtype = torch.float32 if wide else torch.bfloat16
    out = torch.full((8, 70), 7.0, dtype=dtype)
    given = backend.linear(x, weight, dtype if wide else None, out[:5])
    assert given.data_ptr() == out.data_ptr()
    assert torch.equal(out[:5], backend.linear(x, weight, dtype if wide else None))
    assert bool((out[5:] == 7).all())


@pytest.mark.parametrize("format", BF16_FORMATS)
def test_a_rows_result_does_not_depend_on_the_rows_beside_it(compiled: CpuBackend, format: str) -> None:
    x = normal(67, 420).bfloat16()
    weight = pack(normal(150, 420, seed=1), format, normal(150, seed=2))
    together = compiled.linear(x, weight, torch.float32)
    for start, stop in [(0, 1), (5, 7), (10, 18), (20, 33), (34, 67)]:
        assert torch.equal(compiled.linear(x[start:stop], weight, torch.float32), together[start:stop])


@pytest.mark.parametrize("format", BF16_FORMATS)
def test_results_do_not_depend_on_the_number_of_threads(compiled: CpuBackend, format: str) -> None:
    x, weight = normal(19, 640).bfloat16(), pack(normal(333, 640, seed=1), format)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(compiled.linear(x, weight))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_strided_input_is_taken(compiled: CpuBackend, exact: ReferenceBackend) -> None:
    x = normal(3, 2, 128).bfloat16()[:, 1]
    weight = pack(normal(40, 128, seed=1), "bf16")
    assert close(compiled.linear(x, weight), exact.linear(x.double(), weight), slack=1e-3)


@given(num_rows=st.integers(1, 80), num_columns=st.integers(1, 300), format=st.sampled_from(BF16_FORMATS))
@several
def test_embed(backend: Backend, num_rows: int, num_columns: int, format: str) -> None:
    table = pack(normal(num_rows, num_columns), format)
    token_ids = torch.randint(0, num_rows, (7,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(backend.embed(token_ids, table), unpack(table)[token_ids].bfloat16())


@pytest.mark.parametrize("format", BF16_FORMATS)
@pytest.mark.parametrize("token_id", [-1_000_000, 50])
def test_ids_outside_the_table_are_an_error(backend: Backend, format: str, token_id: int) -> None:
    with pytest.raises(IndexError):
        backend.embed(torch.tensor([3, token_id]), pack(normal(50, 64), format))


@given(num_tokens=st.integers(1, 70), width=st.integers(1, 900), wide=st.booleans())
@several
def test_rms_norm(backend: Backend, exact: ReferenceBackend, num_tokens: int, width: int, wide: bool) -> None:
    x, residual = normal(num_tokens, width).bfloat16(), 3 * normal(num_tokens, width, seed=1).bfloat16()
    weight = normal(width, seed=2).to(torch.float32 if wide else torch.bfloat16)
    assert close(backend.rms_norm(x, weight, 1e-6), exact.rms_norm(x.double(), weight, 1e-6))
    total = (x.double() + residual.double()).bfloat16()
    normed = backend.add_rms_norm_(x, residual, weight, 1e-6)
    assert torch.equal(residual, total)
    assert close(normed, exact.rms_norm(total.double(), weight, 1e-6))


@given(num_tokens=st.integers(1, 40), width=st.integers(1, 700), spread=st.sampled_from([0.1, 3.0, 100.0]))
@several
def test_silu_mul(backend: Backend, exact: ReferenceBackend, num_tokens: int, width: int, spread: float) -> None:
    gate_up = (normal(num_tokens, 2 * width) * spread).bfloat16()
    expected = exact.silu_mul(gate_up.double())
    assert close(backend.silu_mul(gate_up), expected, slack=1e-5 * spread)


@given(
    num_tokens=st.integers(1, 30),
    heads=st.sampled_from([(14, 2), (8, 1), (3, 3)]),
    head_dim=st.sampled_from([2, 16, 64, 128, 256]),
    block_size=st.integers(1, 40),
)
@several
def test_rope_and_write_kv_on_slices_of_one_projection(
    backend: Backend,
    exact: ReferenceBackend,
    num_tokens: int,
    heads: tuple[int, int],
    head_dim: int,
    block_size: int,
) -> None:
    num_heads, num_kv_heads = heads
    fused = normal(num_tokens, num_heads + 2 * num_kv_heads, head_dim).bfloat16()
    q, k, v = fused.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    wide_q, wide_k, untouched = q.double(), k.double(), v.clone()
    positions = torch.randint(0, 500, (num_tokens,), generator=torch.Generator().manual_seed(3))
    angles = torch.rand(500, head_dim // 2, generator=torch.Generator().manual_seed(4)) * 6.3
    cos_sin = torch.cat((angles.cos(), angles.sin()), dim=1)
    backend.rope_(q, k, positions, cos_sin)
    exact.rope_(wide_q, wide_k, positions, cos_sin)
    assert close(q, wide_q)
    assert close(k, wide_k)
    assert torch.equal(v, untouched)

    num_blocks = num_tokens // block_size + 2
    slots = torch.randperm(num_blocks * block_size, generator=torch.Generator().manual_seed(5))[:num_tokens]
    cache, expected = (
        LayerCache(*(torch.zeros(num_blocks, num_kv_heads, block_size, head_dim).bfloat16() for _ in range(2)))
        for _ in range(2)
    )
    backend.write_kv(k, v, cache, slots)
    for token, slot in enumerate(slots.tolist()):
        expected.keys[slot // block_size, :, slot % block_size] = k[token]
        expected.values[slot // block_size, :, slot % block_size] = v[token]
    assert torch.equal(cache.keys, expected.keys)
    assert torch.equal(cache.values, expected.values)


def test_nothing_fails_on_an_empty_step(compiled: CpuBackend) -> None:
    for format in BF16_FORMATS:
        weight = pack(normal(64, 96), format)
        assert compiled.linear(torch.empty(0, 96, dtype=torch.bfloat16), weight).shape == (0, 64)
        assert compiled.embed(torch.empty(0, dtype=torch.int64), weight).shape == (0, 96)
    empty = torch.empty(0, 64, dtype=torch.bfloat16)
    assert compiled.silu_mul(empty).shape == (0, 32)
    assert compiled.rms_norm(empty, torch.ones(64), 1e-6).shape == (0, 64)


@pytest.mark.parametrize("format", BF16_FORMATS)
def test_one_bad_row_stays_alone(compiled: CpuBackend, format: str) -> None:
    x = normal(5, 256).bfloat16()
    weight = pack(normal(48, 256, seed=1), format)
    clean = compiled.linear(x, weight)
    x[2, 7] = torch.nan
    result = compiled.linear(x, weight)
    keep = torch.tensor([0, 1, 3, 4])
    assert torch.equal(result[keep], clean[keep])
    assert not bool(torch.isfinite(result[2]).any())
