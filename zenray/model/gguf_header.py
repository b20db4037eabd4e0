"""The header of a GGUF file, every length checked: metadata, tensor shapes and types, the size it implies.

The `gguf` package's own reader takes seconds for a vocabulary of 150,000 strings and reports a truncated
file as a failed reshape. Format: the GGUF specification of the ggml project, versions 2 and 3.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    """Shape in GGUF order: the contiguous dimension first. `offset` counts from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    num_bytes: int
    offset: int

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """`metadata` holds scalars and strings; an array is a list, or its length where arrays were skipped."""

    version: int
    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    file_bytes: int


class _Cursor:
    """Reads little-endian values at a moving offset; running off the end is a truncated file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.offset = data, 0

    def scalar(self, code: str) -> Any:
        return self.scalars(code, 1)[0]

    def scalars(self, code: str, count: int) -> tuple[Any, ...]:
        start = self.offset
        self.skip(count * struct.calcsize(f"<{code}"))
        return struct.unpack_from(f"<{count}{code}", self.data, start)

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

    def value(self, kind: int, with_arrays: bool) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"unknown value type {kind}")
        inner, length = self.count("I"), self.count()
        if inner in _SCALARS:
            if with_arrays:
                return list(self.scalars(_SCALARS[inner], length))
            self.skip(length * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            if with_arrays:
                return [self.text() for _ in range(length)]
            for _ in range(length):
                self.skip(self.count())
        else:
            raise ValueError(f"arrays of type {inner} are not part of the format")
        return length


def read_header(path: Path, *, with_arrays: bool = False) -> GgufHeader:
    """Reads in milliseconds unless `with_arrays`, which builds the vocabulary too.

    Raises ModelFileError when the file is no GGUF, is truncated in its header, or uses an unknown type.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelFileError(f"{path}: not a GGUF file (its first bytes are not 'GGUF')")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(data, with_arrays)
    except (struct.error, ValueError, OverflowError) as error:
        raise ModelFileError(f"{path}: damaged or truncated GGUF header: {error}") from error
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _parse(data: mmap.mmap, with_arrays: bool) -> GgufHeader:
    cursor = _Cursor(data)
    cursor.skip(4)
    version = cursor.count("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}; known: 2, 3")
    num_tensors, num_values = cursor.count(), cursor.count()
    metadata: dict[str, Any] = {}
    for _ in range(num_values):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.count("I"), with_arrays)
    infos = [_tensor_info(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}; expected a power of two")
    data_start = -(-cursor.offset // alignment) * alignment
    tensors = tuple(replace(info, offset=data_start + info.offset) for info in infos)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise ValueError("two tensors have the same name")
    return GgufHeader(version, metadata, tensors, max((t.offset + t.num_bytes for t in tensors), default=data_start))


def _tensor_info(cursor: _Cursor) -> TensorInfo:
    """One tensor's entry, its offset still relative to the data."""
    name, num_dimensions = cursor.text(), cursor.count("I")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name} has {num_dimensions} dimensions; expected 1 to {_MAX_DIMENSIONS}")
    shape = tuple(cursor.count() for _ in range(num_dimensions))
    kind, offset = cursor.count("I"), cursor.count()
    if kind not in BLOCK_TYPES:
        raise ValueError(f"tensor {name} has the unknown type {kind}")
    type_name, block_weights, block_bytes = BLOCK_TYPES[kind]
    if shape[0] % block_weights:
        raise ValueError(
            f"tensor {name} has rows of {shape[0]} weights; {type_name} holds multiples of {block_weights}"
        )
    return TensorInfo(name, shape, type_name, math.prod(shape) // block_weights * block_bytes, offset)
