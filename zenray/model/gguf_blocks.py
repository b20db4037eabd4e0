"""4-bit GGUF blocks taken apart into groups of 32, so that int4 weights keep the file's own quants.

Layouts: ggml's block_q4_0, block_q4_1 and block_q4_K. Raw rows are uint8 [N, row_bytes].
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from zenray.model.source import Int4Groups


def _half(raw: torch.Tensor) -> torch.Tensor:
    """Little-endian float16 pairs of bytes as float32."""
    return raw.contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """ggml stores a block's first half in the low nibbles and its second half in the high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _q4_0(raw: torch.Tensor) -> Int4Groups:
    """18 bytes for 32 weights: d, 16 bytes of nibbles; w = d (q - 8)."""
    blocks = raw.reshape(raw.shape[0], -1, 18)
    scales = _half(blocks[..., :2]).squeeze(-1)
    return _nibbles(blocks[..., 2:]).reshape(raw.shape[0], -1), scales, -8 * scales


def _q4_1(raw: torch.Tensor) -> Int4Groups:
    """20 bytes for 32 weights: d, m, 16 bytes of nibbles; w = d q + m."""
    blocks = raw.reshape(raw.shape[0], -1, 20)
    scales, mins = _half(blocks[..., :4]).unbind(-1)
    return _nibbles(blocks[..., 4:]).reshape(raw.shape[0], -1), scales, mins


def _q4_k(raw: torch.Tensor) -> Int4Groups:
    """144 bytes for 256 weights: d, dmin, 12 bytes of eight 6-bit scales and mins, 128 bytes of nibbles.

    w = d sc q - dmin m. Each 32 bytes of nibbles hold two groups, low nibbles first.
    """
    blocks = raw.reshape(raw.shape[0], -1, 144)
    d, dmin = _half(blocks[..., :4]).unbind(-1)
    low, mid, high = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    codes = torch.cat((low & 63, (high & 15) | ((low >> 6) << 4)), dim=-1).float()
    min_codes = torch.cat((mid & 63, (high >> 4) | ((mid >> 6) << 4)), dim=-1).float()
    quants = _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    scales, mins = d[..., None] * codes, -dmin[..., None] * min_codes
    num_rows = raw.shape[0]
    return quants.reshape(num_rows, -1), scales.reshape(num_rows, -1), mins.reshape(num_rows, -1)


GROUP_READERS: dict[str, Callable[[torch.Tensor], Int4Groups]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k}
