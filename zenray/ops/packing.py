"""The weight formats: what each holds, how a matrix is packed into it and read back.

Packed formats lay rows out in panels of 16 and columns in steps of 4, so that one 64-byte vector
holds four consecutive columns of 16 rows: a kernel multiplies it with one broadcast of four
activations and never sums across lanes. Columns are padded to a multiple of 32, rows to 16.
P panels, G groups of 32 columns, U superblocks of 8 groups.

int8, per row symmetric, 8 bits a weight: w = scale * (u - 128).
    data uint8 [P, 8*G, 16, 4], scales float32 [P, 16].
int4, groups of 32, 4.625 bits a weight: w = scale * q + min with q in 0..15.
    data uint8 [P, G, 4, 16, 4]: low nibbles are the group's column steps 0..3, high nibbles 4..7.
    scales uint8 [P, G, 2, 16]: row 0 the unsigned scale code, row 1 the signed min code.
    supers float16 [P, U, 2, 16]: one super-scale each, times 1024.
    scale = super / 1024 * code / 4, min = super / 1024 * code / 2. With the largest code being
    4 * 63 (2 * 63), the 6-bit codes of a Q4_K block are held exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from zenray.errors import ConfigError, ModelFileError
from zenray.ops.weights import PANEL_ROWS, PackedWeight

GROUP_SIZE = 32
GROUPS_PER_SUPERBLOCK = 8
SUPER_FACTOR = 1024.0
"""Keeps the float16 super-scales of ordinary weights (1e-5 .. 1e-3) out of the subnormal range."""
DENSE_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bf16": torch.bfloat16}
FORMATS = (*DENSE_DTYPES, "int8", "int4")
_ROWS_AT_ONCE = 1024
"""Rows quantised together: bounds the float32 scratch copies."""


def pack(matrix_NK: torch.Tensor, format: str, bias_N: torch.Tensor | None = None) -> PackedWeight:
    """Packs a float matrix [N, K] into one of FORMATS.

    Errors: ConfigError for an unknown format, ModelFileError for weights that are not finite.
    """
    if format in DENSE_DTYPES:
        dtype = DENSE_DTYPES[format]
        data = matrix_NK.to(dtype).contiguous()
        return PackedWeight("dense", _shape(matrix_NK), data, bias=None if bias_N is None else bias_N.to(dtype))
    if format == "int8":
        return _pack_int8(matrix_NK, bias_N)
    if format == "int4":
        quants, scales, mins = _quantise_int4(matrix_NK)
        return _assemble_int4(quants, scales, mins, _shape(matrix_NK), bias_N, source=matrix_NK)
    raise ConfigError(f"weight format is {format!r}; allowed: {', '.join(FORMATS)}")


def mixed_format(block_type: str) -> str:
    """The format policy "mixed" gives a GGUF matrix of this block type, such as "Q4_K"."""
    return "int4" if block_type.upper() in {"Q4_0", "Q4_1", "Q4_K"} else "int8"


def pack_int4_from_groups(
    quants_NK: torch.Tensor, scales_NG: torch.Tensor, mins_NG: torch.Tensor, bias_N: torch.Tensor | None = None
) -> PackedWeight:
    """Takes over quants a file already holds: w = scale * q + min, q uint8 in 0..15, groups of 32.

    (Q4_K's min is -dmin*m; Q4_0's is -8*d.) Only scales and mins that are not 63rds of the largest in
    their 256 columns are rounded. K is a multiple of 32. Errors: ModelFileError, not finite.
    """
    assert quants_NK.shape[1] % GROUP_SIZE == 0, tuple(quants_NK.shape)
    flip = scales_NG < 0
    if bool(flip.any()):  # w = -|s| q + m = |s| (15 - q) + (m - 15 |s|)
        flip_NK = flip.repeat_interleave(GROUP_SIZE, dim=1)
        quants_NK = torch.where(flip_NK, 15 - quants_NK, quants_NK)
        mins_NG = torch.where(flip, mins_NG + 15 * scales_NG, mins_NG)
        scales_NG = scales_NG.abs()
    return _assemble_int4(quants_NK, scales_NG.float(), mins_NG.float(), _shape(quants_NK), bias_N)


def unpack(weight: PackedWeight) -> torch.Tensor:
    """The matrix as float32 [N, K] (float64 for a float64 dense one)."""
    num_rows, num_columns = weight.shape
    if weight.format == "dense":
        return weight.data if weight.data.dtype == torch.float64 else weight.data.float()
    assert weight.scales is not None
    if weight.format == "int8":
        matrix = (_from_panels(weight.data).float() - 128.0) * weight.scales.reshape(-1, 1)
    elif weight.format == "int4":
        assert weight.supers is not None
        scales, mins = _decode_scales(weight.scales, weight.supers)
        steps = torch.cat((weight.data & 15, weight.data >> 4), dim=2)
        panels = steps.reshape(steps.shape[0], -1, PANEL_ROWS, 4)
        quants = _from_panels(panels).float().reshape(*scales.shape, GROUP_SIZE)
        matrix = (quants * scales[..., None] + mins[..., None]).reshape(scales.shape[0], -1)
    else:
        raise AssertionError(weight.format)
    return matrix[:num_rows, :num_columns]


def unpack_rows(weight: PackedWeight, rows_T: torch.Tensor) -> torch.Tensor:
    """Rows of the matrix as `unpack` gives them, [T, K]; unpacks only the panels they lie in.

    Errors: IndexError.
    """
    if weight.format == "dense":
        return unpack(replace(weight, data=weight.data[rows_T], shape=(len(rows_T), weight.shape[1])))
    if bool(((rows_T < 0) | (rows_T >= weight.shape[0])).any()):
        raise IndexError(f"rows {rows_T.tolist()} are not all of a matrix of {weight.shape[0]}")
    panels = rows_T // PANEL_ROWS

    def taken(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[panels]

    gathered = replace(
        weight,
        shape=(len(rows_T) * PANEL_ROWS, weight.shape[1]),
        data=weight.data[panels],
        scales=taken(weight.scales),
        supers=taken(weight.supers),
    )
    lanes = torch.arange(len(rows_T), device=rows_T.device) * PANEL_ROWS + rows_T % PANEL_ROWS
    return unpack(gathered)[lanes]


def take_rows(weight: PackedWeight, rows_R: torch.Tensor) -> PackedWeight:
    """A packed matrix of the given rows in that order, their bits unchanged; shares no memory with `weight`."""
    bias = None if weight.bias is None else weight.bias[rows_R]
    shape = (len(rows_R), weight.shape[1])
    if weight.format == "dense":
        return replace(weight, shape=shape, data=weight.data[rows_R], bias=bias)
    padding = rows_R[-1:].expand(-len(rows_R) % PANEL_ROWS)  # repeats a row; nobody reads it
    panels, lanes = (padded := torch.cat((rows_R, padding))) // PANEL_ROWS, padded % PANEL_ROWS

    def taken(tensor: torch.Tensor | None, lane_axis: int) -> torch.Tensor | None:
        if tensor is None:
            return None
        rows = tensor.movedim(lane_axis, 1)[panels, lanes]
        return rows.reshape(-1, PANEL_ROWS, *rows.shape[1:]).movedim(1, lane_axis).contiguous()

    data = taken(weight.data, 2 if weight.format == "int8" else 3)
    assert data is not None
    scales = taken(weight.scales, 1 if weight.format == "int8" else 3)
    return replace(weight, shape=shape, data=data, scales=scales, supers=taken(weight.supers, 3), bias=bias)


@dataclass(frozen=True)
class QuantisationError:
    """How far a packed matrix is from its source."""

    relative_rms: float
    """Root-mean-square error over the root-mean-square of the source."""
    max_abs: float


def quantisation_error(matrix_NK: torch.Tensor, weight: PackedWeight) -> QuantisationError:
    """Compares `unpack(weight)` with the source matrix, in slices of rows."""
    squared_error, squared, largest = 0.0, 0.0, 0.0
    for start in range(0, weight.shape[0], _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, weight.shape[0])
        source = matrix_NK[start:stop].double()
        error = unpack(weight.rows(start, stop)).double() - source
        squared_error += float(error.square().sum())
        squared += float(source.square().sum())
        largest = max(largest, float(error.abs().max()))
    return QuantisationError((squared_error / squared) ** 0.5 if squared else 0.0, largest)


def _shape(matrix_NK: torch.Tensor) -> tuple[int, int]:
    num_rows, num_columns = matrix_NK.shape
    return num_rows, num_columns


def _padded(matrix: torch.Tensor, num_rows: int, num_columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(matrix, (0, num_columns - matrix.shape[1], 0, num_rows - matrix.shape[0]))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _to_panels(bytes_NK: torch.Tensor) -> torch.Tensor:
    """[16*P, 4*J] -> [P, J, 16, 4]."""
    num_rows, num_columns = bytes_NK.shape
    panels = bytes_NK.reshape(num_rows // PANEL_ROWS, PANEL_ROWS, num_columns // 4, 4)
    return panels.transpose(1, 2).contiguous()


def _from_panels(panels: torch.Tensor) -> torch.Tensor:
    """[P, J, 16, 4] -> [16*P, 4*J]."""
    num_panels, num_steps = panels.shape[:2]
    return panels.transpose(1, 2).reshape(num_panels * PANEL_ROWS, num_steps * 4)


def _pack_int8(matrix_NK: torch.Tensor, bias_N: torch.Tensor | None) -> PackedWeight:
    num_rows, num_columns = _shape(matrix_NK)
    padded_columns = _round_up(num_columns, GROUP_SIZE)
    data, scales = [], []
    for start in range(0, num_rows, _ROWS_AT_ONCE):
        rows = matrix_NK[start : start + _ROWS_AT_ONCE].float()
        scale = rows.abs().amax(dim=1, keepdim=True) / 127.0
        _require_finite(scale)
        quants = torch.round(rows / torch.where(scale > 0, scale, 1.0)) + 128.0
        padded_rows = _round_up(rows.shape[0], PANEL_ROWS)
        data.append(_to_panels(_padded(quants.to(torch.uint8), padded_rows, padded_columns)))
        scales.append(_padded(scale, padded_rows, 1).reshape(-1, PANEL_ROWS))
    return PackedWeight(
        format="int8",
        shape=(num_rows, num_columns),
        data=torch.cat(data),
        scales=torch.cat(scales),
        bias=None if bias_N is None else bias_N.float(),
    )


def _require_finite(scales: torch.Tensor) -> None:
    if not bool(torch.isfinite(scales).all()):
        raise ModelFileError("a weight matrix holds values that are not finite, or too large for its format")


def _quantise_int4(matrix_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale and min of each group of 32 with the least squared error among a few shrunken ranges.

    Returns quants [N, K'], scales and mins [N, G]; the quants are refitted once the codes of scale and
    min are known. For each range the quants are rounded, then scale and min refitted to them by least
    squares (the idea of llama.cpp's make_qkx2_quants).
    """
    num_rows, num_columns = _shape(matrix_NK)
    num_groups = _round_up(num_columns, GROUP_SIZE) // GROUP_SIZE
    all_quants, all_scales, all_mins = [], [], []
    for start in range(0, num_rows, _ROWS_AT_ONCE // 4):
        rows = matrix_NK[start : start + _ROWS_AT_ONCE // 4].float()
        groups = _padded(rows, rows.shape[0], num_groups * GROUP_SIZE).reshape(-1, num_groups, GROUP_SIZE)
        low, high = groups.amin(dim=2), groups.amax(dim=2)
        _require_finite(high - low)
        mean = groups.mean(dim=2)
        best_error = torch.full_like(low, torch.inf)
        best_scale, best_min = torch.zeros_like(low), torch.zeros_like(low)
        best_quants = torch.zeros_like(groups)
        for shrink in (1.0, 0.95, 0.9, 0.85, 0.8):
            scale = (high - low) * (shrink / 15.0)
            offset = low + (high - low) * ((1.0 - shrink) / 2)
            inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
            quants = ((groups - offset[..., None]) * inverse[..., None]).round_().clamp_(0.0, 15.0)
            quants_mean = quants.mean(dim=2)
            centred = quants - quants_mean[..., None]
            variance = centred.square().sum(dim=2)
            scale = torch.where(variance > 0, (centred * groups).sum(dim=2) / variance, 0.0)
            offset = mean - scale * quants_mean
            error = (quants * scale[..., None] + offset[..., None] - groups).square_().sum(dim=2)
            better = (error < best_error) & (scale >= 0)
            best_error = torch.where(better, error, best_error)
            best_scale = torch.where(better, scale, best_scale)
            best_min = torch.where(better, offset, best_min)
            best_quants = torch.where(better[..., None], quants, best_quants)
        _require_finite(best_error)
        all_quants.append(best_quants.to(torch.uint8).reshape(rows.shape[0], -1))
        all_scales.append(best_scale)
        all_mins.append(best_min)
    return torch.cat(all_quants), torch.cat(all_scales), torch.cat(all_mins)


def _assemble_int4(
    quants_NK: torch.Tensor,
    scales_NG: torch.Tensor,
    mins_NG: torch.Tensor,
    shape: tuple[int, int],
    bias_N: torch.Tensor | None,
    source: torch.Tensor | None = None,
) -> PackedWeight:
    """Panels from quants and their groups; with `source`, quants are rounded again to the coded groups."""
    _require_finite(scales_NG)
    _require_finite(mins_NG)
    num_rows, num_groups = shape[0], scales_NG.shape[1]
    padded_rows = _round_up(num_rows, PANEL_ROWS)
    codes, supers = _encode_scales(
        _padded(scales_NG, padded_rows, num_groups), _padded(mins_NG, padded_rows, num_groups)
    )
    scales, mins = _decode_scales(codes, supers)
    data = []
    for start in range(0, num_rows, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, num_rows)
        quants = quants_NK[start:stop]
        if source is not None:
            groups = _padded(source[start:stop].float(), stop - start, num_groups * GROUP_SIZE)
            groups = groups.reshape(stop - start, num_groups, GROUP_SIZE)
            scale = scales[start:stop]
            inverse = torch.where(scale > 0, 1.0 / scale, 0.0)
            fitted = ((groups - mins[start:stop, :, None]) * inverse[..., None]).round_().clamp_(0.0, 15.0)
            quants = fitted.to(torch.uint8).reshape(stop - start, -1)
        panels = _to_panels(_padded(quants, _round_up(stop - start, PANEL_ROWS), num_groups * GROUP_SIZE))
        steps = panels.reshape(-1, num_groups, 2, 4, PANEL_ROWS, 4)
        data.append(steps[:, :, 0] | (steps[:, :, 1] << 4))
    return PackedWeight(
        format="int4",
        shape=shape,
        data=torch.cat(data),
        scales=codes,
        group_size=GROUP_SIZE,
        bias=None if bias_N is None else bias_N.float(),
        supers=supers,
    )


def _encode_scales(scales_NG: torch.Tensor, mins_NG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes uint8 [P, G, 2, 16] and super-scales float16 [P, U, 2, 16] of padded rows."""
    num_rows, num_groups = scales_NG.shape
    num_supers = -(-num_groups // GROUPS_PER_SUPERBLOCK)
    both = torch.stack((scales_NG, mins_NG))
    blocks = _padded(both.reshape(2 * num_rows, num_groups), 2 * num_rows, num_supers * GROUPS_PER_SUPERBLOCK)
    blocks = blocks.reshape(2, num_rows, num_supers, GROUPS_PER_SUPERBLOCK)
    supers = (blocks.abs().amax(dim=3) / 63.0 * SUPER_FACTOR).to(torch.float16)
    _require_finite(supers)
    units = supers.float() / SUPER_FACTOR / torch.tensor([4.0, 2.0]).reshape(2, 1, 1)
    codes = torch.round(blocks / torch.where(units > 0, units, 1.0)[..., None]) * (units > 0)[..., None]
    scale_codes = codes[0].clamp(0, 255).to(torch.uint8)
    min_codes = codes[1].clamp(-127, 127).to(torch.int8).view(torch.uint8)

    def panels(rows: torch.Tensor, width: int) -> torch.Tensor:  # [2, N, X] -> [P, width, 2, 16]
        laid = rows.reshape(2, num_rows // PANEL_ROWS, PANEL_ROWS, -1).permute(1, 3, 0, 2)
        return laid[:, :width].contiguous()

    coded = torch.stack((scale_codes, min_codes)).reshape(2, num_rows, -1)
    return panels(coded, num_groups), panels(supers, num_supers)


def _decode_scales(codes: torch.Tensor, supers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and mins, float32 [16*P, G] each."""
    num_panels, num_groups = codes.shape[:2]
    units = (supers.float() / SUPER_FACTOR).repeat_interleave(GROUPS_PER_SUPERBLOCK, dim=1)[:, :num_groups]
    scales = units[:, :, 0] * codes[:, :, 0].float() / 4.0
    mins = units[:, :, 1] * codes[:, :, 1].contiguous().view(torch.int8).float() / 2.0

    def rows(values: torch.Tensor) -> torch.Tensor:
        return values.transpose(1, 2).reshape(num_panels * PANEL_ROWS, num_groups)

    return rows(scales), rows(mins)
