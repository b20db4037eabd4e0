"""What each weight format keeps of a matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.errors import ConfigError, ModelFileError
from zenray.ops import (
    FORMATS,
    PackedWeight,
    mixed_format,
    pack,
    pack_int4_from_groups,
    quantisation_error,
    unpack,
)
from zenray.ops.packing import take_rows, unpack_rows

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 300))


def normal(shape: tuple[int, ...], seed: int = 0, deviation: float = 0.02) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * deviation


@given(shape=SHAPES, format=st.sampled_from(FORMATS), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_format_survives_files_slices_and_lookups(shape: tuple[int, int], format: str, seed: int) -> None:
    matrix = normal(shape, seed)
    weight = pack(matrix, format, matrix[:, 0])
    restored = PackedWeight.from_tensors({name: tensor.clone() for name, tensor in weight.to_tensors().items()})
    whole = unpack(weight)
    assert whole.shape == matrix.shape
    assert (restored.format, restored.shape, restored.group_size) == (weight.format, weight.shape, weight.group_size)
    assert torch.equal(unpack(restored), whole)
    assert restored.bias is not None
    assert torch.equal(restored.bias, weight.bias)
    middle = shape[0] // 32 * 16
    if middle:
        assert torch.equal(unpack(weight.rows(0, middle)), whole[:middle])
    assert torch.equal(unpack(weight.rows(middle, shape[0])), whole[middle:])
    rows = torch.tensor([shape[0] - 1, 0, shape[0] // 2])
    assert torch.equal(unpack_rows(weight, rows), whole[rows])
    taken = take_rows(weight, rows)
    assert torch.equal(unpack(taken), whole[rows])
    assert taken.bias is not None
    assert torch.equal(taken.bias, weight.bias[rows])


@given(shape=SHAPES, deviation=st.sampled_from([1e-4, 0.02, 1.0, 50.0]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_int8_is_within_half_a_step_of_each_row(shape: tuple[int, int], deviation: float, seed: int) -> None:
    matrix = normal(shape, seed, deviation)
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((unpack(pack(matrix, "int8")) - matrix).abs() <= step * 0.5001).all())


@given(shape=SHAPES, deviation=st.sampled_from([1e-4, 0.02, 1.0, 50.0]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_int4_is_no_worse_than_plain_rounding_of_each_group(
    shape: tuple[int, int], deviation: float, seed: int
) -> None:
    matrix = normal(shape, seed, deviation)
    padded = torch.nn.functional.pad(matrix, (0, -shape[1] % 32)).reshape(shape[0], -1, 32)
    low = padded.amin(dim=2, keepdim=True)
    step = (padded.amax(dim=2, keepdim=True) - low) / 15
    plain = ((padded - low) / step.clamp(min=1e-12)).round() * step + low
    # A group's scale and min are codes of 8 bits relative to the largest of 8 groups.
    coding = float(matrix.abs().max()) / 252 * padded.numel() ** 0.5
    limit = float((plain - padded).square().sum().sqrt()) + coding
    assert float((unpack(pack(matrix, "int4")) - matrix).square().sum().sqrt()) <= limit


def test_errors_of_normal_weights_are_the_known_ones() -> None:
    matrix = normal((512, 896))
    errors = {format: quantisation_error(matrix, pack(matrix, format)).relative_rms for format in FORMATS}
    assert errors["float64"] == errors["float32"] == 0
    assert 0.001 < errors["bf16"] < 0.002
    assert 0.006 < errors["int8"] < 0.009
    assert 0.06 < errors["int4"] < 0.075


def test_int4_holds_the_blocks_of_a_q4_k_file_exactly() -> None:
    generator = torch.Generator().manual_seed(1)
    num_rows, num_supers = 48, 3
    quants = torch.randint(0, 16, (num_rows, num_supers * 256), dtype=torch.uint8, generator=generator)
    # A block: float16 d and dmin, eight 6-bit codes each, the largest being 63.
    units = (torch.rand(2, num_rows, num_supers, 1, generator=generator) * 1e-4 + 1e-6).half().float()
    codes = torch.randint(0, 64, (2, num_rows, num_supers, 8), generator=generator).float()
    codes[..., 3] = 63
    scales, mins = (units * codes).reshape(2, num_rows, num_supers * 8)
    matrix = quants.float().reshape(num_rows, -1, 32) * scales[..., None] - mins[..., None]
    weight = pack_int4_from_groups(quants, scales, -mins)
    assert quantisation_error(matrix.reshape(num_rows, -1), weight).max_abs < 1e-8
    assert weight.num_bytes * 8 / quants.numel() == 4.625


def test_int4_takes_negative_scales() -> None:
    generator = torch.Generator().manual_seed(2)
    quants = torch.randint(0, 16, (16, 256), dtype=torch.uint8, generator=generator)
    scales = torch.randn(16, 8, generator=generator) * 1e-3
    matrix = ((quants.float().reshape(16, 8, 32) - 8) * scales[..., None]).reshape(16, 256)
    error = quantisation_error(matrix, pack_int4_from_groups(quants, scales, -8 * scales))
    assert error.relative_rms < 0.02


@pytest.mark.parametrize("format", FORMATS)
def test_constant_and_zero_matrices_pack(format: str) -> None:
    for value in (0.0, 0.25, -3.0):
        matrix = torch.full((20, 40), value)
        assert torch.allclose(unpack(pack(matrix, format)).float(), matrix, rtol=0.005, atol=0)


@pytest.mark.parametrize(
    ("format", "value"),
    [("int8", torch.nan), ("int8", torch.inf), ("int4", torch.nan), ("int4", torch.inf), ("int4", 1e30), ("int4", 1e5)],
)
def test_weights_that_are_not_finite_or_too_large_are_refused(format: str, value: float) -> None:
    matrix = torch.zeros(4, 64)
    matrix[2, 40] = value
    with pytest.raises(ModelFileError, match="not finite"):
        pack(matrix, format)


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'int3'.*int8, int4"):
        pack(torch.zeros(1, 1), "int3")


def test_mixed_keeps_four_bit_blocks_and_widens_the_rest() -> None:
    assert {mixed_format(kind) for kind in ("Q4_K", "Q4_0", "Q4_1")} == {"int4"}
    assert {mixed_format(kind) for kind in ("Q5_0", "Q5_K", "Q6_K", "Q8_0", "F16", "BF16", "F32")} == {"int8"}
