"""Access to the tensors of a GGUF file, rows first and unread until asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType

from zenray.errors import ModelFileError
from zenray.model.gguf_header import read_header


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies. `shape` has rows first, as torch does (GGUF stores it reversed)."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    num_bytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the last dimension."""
        num_rows = int(np.prod(self.shape[:-1]))
        return self.num_bytes // num_rows if num_rows else 0


class GgufFile:
    """An open GGUF file: `metadata` by key, `tensors` by name.

    Raises:
        ModelFileError: not a GGUF file, an unsupported version or tensor type, or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header = read_header(path, with_arrays=True)
        self.metadata: dict[str, Any] = header.metadata
        self.tensors = {
            info.name: GgufTensor(
                info.name, GGMLQuantizationType[info.type_name], info.shape[::-1], info.offset, info.num_bytes
            )
            for info in header.tensors
        }
        size = path.stat().st_size
        for tensor in self.tensors.values():
            if tensor.offset + tensor.num_bytes > size:
                raise ModelFileError(
                    f"{path}: truncated: tensor {tensor.name} ({tensor.type.name}, shape {list(tensor.shape)}) "
                    f"ends at byte {tensor.offset + tensor.num_bytes}, the file has {size}; download it again"
                )

    def raw_rows(self, tensor: GgufTensor, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes of rows [start, stop) of the tensor seen as a matrix: uint8 [rows, row_bytes].

        Read, not mapped: converting a file leaves none of its pages in this process.
        """
        rows = np.empty((stop - start, tensor.row_bytes), dtype=np.uint8)
        with self.path.open("rb") as file:
            file.seek(tensor.offset + start * tensor.row_bytes)
            found = file.readinto(rows.reshape(-1).data)
        if found != rows.nbytes:
            raise ModelFileError(f"{self.path}: tensor {tensor.name}: {rows.nbytes} bytes expected, {found} there")
        return rows
