"""A matrix as the kernels hold it: one of the weight formats, packed once at load."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A [N, K] matrix in `format`, with an optional bias [N].

    format "dense": `data` is the matrix itself (float64, float32 or bfloat16).
    The packed formats are defined by the functions that make them, beside this class.
    """

    format: str
    shape: tuple[int, int]
    data: torch.Tensor
    scales: torch.Tensor | None = None
    zeros: torch.Tensor | None = None
    group_size: int = 0
    bias: torch.Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes a matrix-vector product reads."""
        parts = (self.data, self.scales, self.zeros)
        return sum(t.numel() * t.element_size() for t in parts if t is not None)
