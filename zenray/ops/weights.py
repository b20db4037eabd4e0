"""A matrix as the kernels hold it: one of the weight formats, packed once at load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

PANEL_ROWS = 16
"""Rows of the matrix interleaved in one panel: the float32 lanes of a 512-bit register."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A [N, K] matrix in `format`, with an optional bias [N].

    format "dense": `data` is the matrix itself (float64, float32 or bfloat16).
    The packed formats are defined by the functions that make them, in `zenray.ops.packing`.
    """

    format: str
    shape: tuple[int, int]
    data: torch.Tensor
    scales: torch.Tensor | None = None
    zeros: torch.Tensor | None = None
    group_size: int = 0
    bias: torch.Tensor | None = None
    supers: torch.Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes a matrix-vector product reads."""
        parts = (self.data, self.scales, self.zeros, self.supers)
        return sum(t.numel() * t.element_size() for t in parts if t is not None)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """The weight as named plain tensors, for a safetensors file. `from_tensors` is the inverse."""
        tensors = {f"{self.format}.data": self.data}
        for name in ("scales", "zeros", "supers", "bias"):
            tensor = getattr(self, name)
            if tensor is not None:
                tensors[name] = tensor
        tensors["layout"] = torch.tensor([*self.shape, self.group_size], dtype=torch.int64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> PackedWeight:
        """The weight whose `to_tensors` gave these; the tensors may be memory-mapped, none is copied."""
        key = next(name for name in tensors if name.endswith(".data"))
        num_rows, num_columns, group_size = tensors["layout"].tolist()
        return cls(
            format=key.removesuffix(".data"),
            shape=(num_rows, num_columns),
            data=tensors[key],
            scales=tensors.get("scales"),
            zeros=tensors.get("zeros"),
            group_size=group_size,
            bias=tensors.get("bias"),
            supers=tensors.get("supers"),
        )

    def rows(self, start: int, stop: int) -> PackedWeight:
        """Rows [start, stop) as a view, such as one expert of many stacked ones.

        Packed formats interleave 16 rows: both ends are multiples of 16, or `stop` is the last row.
        """
        num_rows = self.shape[0]
        assert 0 <= start < stop <= num_rows, (start, stop, num_rows)
        bias = None if self.bias is None else self.bias[start:stop]
        shape = (stop - start, self.shape[1])
        if self.format == "dense":
            return PackedWeight("dense", shape, self.data[start:stop], bias=bias)
        assert start % PANEL_ROWS == 0, start
        assert stop % PANEL_ROWS == 0 or stop == num_rows, stop
        panels = slice(start // PANEL_ROWS, (stop + PANEL_ROWS - 1) // PANEL_ROWS)

        def cut(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor[panels]

        return PackedWeight(
            format=self.format,
            shape=shape,
            data=self.data[panels],
            scales=cut(self.scales),
            zeros=cut(self.zeros),
            group_size=self.group_size,
            bias=bias,
            supers=cut(self.supers),
        )
