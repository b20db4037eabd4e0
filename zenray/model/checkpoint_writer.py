"""A checkpoint as `save_pretrained` lays it out, tensor by tensor: safetensors shards of bounded size, an index.

What will be written is known beforehand, so each header goes first and the SHA-256 of a file is known when its
last byte is written.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from zenray.model.hf_source import INDEX_NAME
from zenray.model.tensor_file import DTYPE_NAMES

MAX_SHARD_BYTES = 2 * 10**9
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor to be written. A shape may hold a 0."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


Piece = tuple[str, torch.Tensor]
"""Some rows of the tensor of that name; the rows of a tensor come in order."""


def write_checkpoint(
    folder: Path, specs: Sequence[TensorSpec], pieces: Iterable[Piece], max_shard_bytes: int = MAX_SHARD_BYTES
) -> dict[str, str]:
    """Writes `specs` in order, each as the `pieces` of it come; the SHA-256 of every shard by file name.

    Only one piece is in memory at a time. Empty tensors have no pieces.
    """
    shards = _split(specs, max_shard_bytes)
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    coming = iter(pieces)
    digests = {name: _write_shard(folder / name, shard, coming) for name, shard in zip(names, shards, strict=True)}
    assert next(coming, None) is None, "a piece that no tensor waits for"
    index = {
        "metadata": {"total_size": sum(spec.num_bytes for spec in specs)},
        "weight_map": {spec.name: name for name, shard in zip(names, shards, strict=True) for spec in shard},
    }
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return digests


def _split(specs: Sequence[TensorSpec], max_shard_bytes: int) -> list[list[TensorSpec]]:
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if shards[-1] and size + spec.num_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(spec)
        size += spec.num_bytes
    return shards


def _write_shard(path: Path, specs: Sequence[TensorSpec], coming: Iterator[Piece]) -> str:
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        _write(file, _header(specs), hasher)
        for spec in specs:
            missing = spec.num_bytes
            while missing:
                name, rows = next(coming)
                assert (name, rows.dtype) == (spec.name, spec.dtype), (name, rows.dtype, spec)
                data = rows.contiguous().reshape(-1).view(torch.uint8).numpy().data
                _write(file, data, hasher)
                missing -= len(data)
                assert missing >= 0, spec
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def _write(file: IO[bytes], data: bytes | memoryview, hasher: hashlib._Hash) -> None:
    file.write(data)
    hasher.update(data)


def _header(specs: Sequence[TensorSpec]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in specs:
        end = offset + spec.num_bytes
        entries[spec.name] = {"dtype": DTYPE_NAMES[spec.dtype], "shape": spec.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text = text.ljust(-(-(len(text) + 8) // _ALIGNMENT) * _ALIGNMENT - 8)
    return len(text).to_bytes(8, "little") + text
