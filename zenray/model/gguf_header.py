"""The header of a GGUF file, read in milliseconds: metadata, tensor shapes and types, the size it implies.

Arrays (a vocabulary is 150,000 strings) are skipped, not built. Reading the tensors themselves is
`zenray.model`'s loader. Format: the GGUF specification of the ggml project, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from zenray.errors import ModelFileError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4

# ggml type id -> (name, weights per block, bytes per block)
BLOCK_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True)
class TensorInfo:
    """Shape in GGUF order: the contiguous dimension first."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    num_bytes: int

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """`metadata` holds scalars and strings; an array is present as its length."""

    version: int
    metadata: dict[str, object]
    tensors: tuple[TensorInfo, ...]
    file_bytes: int


class _Cursor:
    """Reads little-endian values at a moving offset; running off the end is a truncated file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.offset = data, 0

    def scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from(f"<{code}", self.data, self.offset)[0]
        self.offset += struct.calcsize(f"<{code}")
        return value

    def count(self, code: str = "Q") -> int:
        return int(self.scalar(code))

    def skip(self, num_bytes: int) -> None:
        self.offset += num_bytes
        if self.offset > len(self.data):
            raise struct.error("ran past the end")

    def text(self) -> str:
        length = self.count()
        start = self.offset
        self.skip(length)
        return self.data[start : self.offset].decode("utf-8", "replace")

    def value(self, kind: int) -> object:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"unknown value type {kind}")
        inner, length = self.count("I"), self.count()
        if inner in _SCALARS:
            self.skip(length * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            for _ in range(length):
                self.skip(self.count())
        else:
            raise ValueError(f"arrays of type {inner} are not part of the format")
        return length


def read_header(path: Path) -> GgufHeader:
    """Raises ModelFileError when the file is no GGUF, is truncated in its header, or uses an unknown type."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelFileError(f"{path}: not a GGUF file (its first bytes are not 'GGUF')")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(data)
    except (struct.error, ValueError, OverflowError) as error:
        raise ModelFileError(f"{path}: damaged or truncated GGUF header: {error}") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(data)
    cursor.skip(4)
    version = cursor.count("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}; known: 2, 3")
    num_tensors, num_values = cursor.count(), cursor.count()
    metadata: dict[str, object] = {}
    for _ in range(num_values):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.count("I"))
    tensors: list[TensorInfo] = []
    data_end = 0
    for _ in range(num_tensors):
        name, num_dimensions = cursor.text(), cursor.count("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {num_dimensions} dimensions")
        shape = tuple(cursor.count() for _ in range(num_dimensions))
        kind, offset = cursor.count("I"), cursor.count()
        if kind not in BLOCK_TYPES:
            raise ValueError(f"tensor {name!r} has the unsupported type {kind}")
        type_name, block_weights, block_bytes = BLOCK_TYPES[kind]
        num_bytes = math.prod(shape) // block_weights * block_bytes
        tensors.append(TensorInfo(name, shape, type_name, num_bytes))
        data_end = max(data_end, offset + num_bytes)
    alignment = int(str(metadata.get("general.alignment", 32)))
    data_start = -(-cursor.offset // alignment) * alignment
    return GgufHeader(version, metadata, tuple(tensors), data_start + data_end)
