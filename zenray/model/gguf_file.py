"""The header of a GGUF file, read with every length checked, and raw access to its tensors.

Types and block sizes come from the `gguf` package; its own reader takes seconds for a 150K vocabulary
and reports a truncated file as a failed reshape. Format: the GGUF specification of ggml, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from zenray.errors import ModelFileError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4


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
        block, size = GGML_QUANT_SIZES[self.type]
        return int(self.shape[-1] // block * size)


class GgufFile:
    """An open GGUF file: `metadata` by key, `tensors` by name.

    Raises:
        ModelFileError: not a GGUF file, an unsupported version or tensor type, or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 24:
                raise ModelFileError(f"{path}: {size} bytes are too few for a GGUF header; is the download complete?")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                parser = _Parser(path, data)
                self.metadata, self.tensors = parser.parse()

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


class _Parser:
    """A cursor over the header."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0

    def parse(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        if self._data[:4] != b"GGUF":
            raise ModelFileError(f"{self._path}: not a GGUF file (it starts with {self._data[:4]!r}, expected b'GGUF')")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise ModelFileError(f"{self._path}: GGUF version {version}; supported: 2 and 3, little-endian")
        num_tensors, num_keys = self._scalar("Q"), self._scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string()
            metadata[key] = self._value(self._scalar("I"), key)
        infos = [self._tensor_info() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise ModelFileError(f"{self._path}: general.alignment is {alignment!r}; expected a power of two")
        start = -(-self._at // alignment) * alignment
        tensors: dict[str, GgufTensor] = {}
        for name, type_id, shape, offset in infos:
            if name in tensors:
                raise ModelFileError(f"{self._path}: tensor {name} occurs twice")
            tensors[name] = self._locate(name, type_id, shape, start + offset)
        return metadata, tensors

    def _locate(self, name: str, type_id: int, shape: tuple[int, ...], offset: int) -> GgufTensor:
        try:
            type_ = GGMLQuantizationType(type_id)
        except ValueError:
            raise ModelFileError(f"{self._path}: tensor {name} has the unknown type {type_id}") from None
        block, size = GGML_QUANT_SIZES[type_]
        if not shape or shape[-1] % block:
            raise ModelFileError(
                f"{self._path}: tensor {name} has shape {shape}; rows of {type_.name} hold a multiple of {block} values"
            )
        num_bytes = int(np.prod(shape, dtype=object)) // block * size
        if offset + num_bytes > len(self._data):
            raise ModelFileError(
                f"{self._path}: truncated: tensor {name} ({type_.name}, shape {shape}) ends at byte "
                f"{offset + num_bytes}, the file has {len(self._data)}; download it again"
            )
        return GgufTensor(name, type_, shape, offset, num_bytes)

    def _tensor_info(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._string()
        num_dimensions = self._scalar("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise ModelFileError(f"{self._path}: tensor {name} has {num_dimensions} dimensions; at most 4 are possible")
        dimensions = [self._scalar("Q") for _ in range(num_dimensions)]
        return name, self._scalar("I"), tuple(reversed(dimensions)), self._scalar("Q")

    def _value(self, type_id: int, key: str) -> Any:
        if type_id == _STRING:
            return self._string()
        if type_id == _ARRAY:
            item_type, length = self._scalar("I"), self._scalar("Q")
            if item_type == _STRING:
                return [self._string() for _ in range(length)]
            if item_type in _SCALARS:
                return list(self._unpack(_SCALARS[item_type], length))
            raise ModelFileError(f"{self._path}: key {key} is an array of the unknown type {item_type}")
        if type_id in _SCALARS:
            return self._scalar(_SCALARS[type_id])
        raise ModelFileError(f"{self._path}: key {key} has the unknown type {type_id}")

    def _scalar(self, code: str) -> Any:
        return self._unpack(code, 1)[0]

    def _unpack(self, code: str, count: int) -> tuple[Any, ...]:
        end = self._at + struct.calcsize("<" + code) * count
        if end > len(self._data):
            raise self._truncated()
        values = struct.unpack_from(f"<{count}{code}", self._data, self._at)
        self._at = end
        return values

    def _string(self) -> str:
        length = self._scalar("Q")
        end = self._at + length
        if end > len(self._data):
            raise self._truncated()
        text = self._data[self._at : end].decode("utf-8", errors="replace")
        self._at = end
        return text

    def _truncated(self) -> ModelFileError:
        return ModelFileError(f"{self._path}: truncated or corrupt: its header runs past the end; download it again")
