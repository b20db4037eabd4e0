"""Writing a safetensors file tensor by tensor, and mapping one back without a copy.

Format: 8 bytes of header length, a JSON header padded with spaces, then the data without gaps. Space for
the header is reserved first and filled in last, so a model never has to be in memory whole.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError, safe_open

from zenray.errors import ModelFileError

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_ALIGNMENT = 64
_ENTRY_BYTES = 256
"""Upper bound of one tensor's line in the header, names of ours included."""


class TensorFileWriter:
    """Appends tensors to a new safetensors file; the file is valid once the context ends without error.

    Large tensors start on a cache line (small fillers named `.pad.N` see to it), so that kernels that
    read the mapping load whole vectors.
    """

    def __init__(self, path: Path, max_tensors: int) -> None:
        self._path = path
        # Every tensor may bring a filler with it.
        self._header_bytes = -(-(2 * max_tensors + 1) * _ENTRY_BYTES // _ALIGNMENT) * _ALIGNMENT - 8
        self._entries: dict[str, object] = {}
        self._offset = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        self._file.seek(8 + self._header_bytes)
        return self

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Appends one tensor; its name must be new."""
        assert name not in self._entries, name
        filler = -self._offset % _ALIGNMENT
        if filler and tensor.numel() * tensor.element_size() >= _ALIGNMENT:
            self._append(f".pad.{len(self._entries)}", torch.zeros(filler, dtype=torch.uint8))
        self._append(name, tensor)

    def _append(self, name: str, tensor: torch.Tensor) -> None:
        data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._file.write(data.data)
        end = self._offset + data.nbytes
        offsets = [self._offset, end]
        self._entries[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        self._offset = end

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file as file:
            if error is not None:
                return
            header = json.dumps(self._entries, separators=(",", ":")).encode()
            assert len(header) <= self._header_bytes, (len(header), self._header_bytes)
            file.seek(0)
            file.write(self._header_bytes.to_bytes(8, "little"))
            file.write(header.ljust(self._header_bytes))
            file.flush()
            os.fsync(file.fileno())


def map_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, backed by the page cache: shared between processes, read on use.

    Raises:
        ModelFileError: truncated or no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.startswith(".pad.")}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}); delete its folder to convert again"
        ) from None


_MADV_DONTNEED = 4


def release_mapped(tensor: torch.Tensor) -> None:
    """Takes the pages of a tensor of `map_tensors` out of this process; they stay in the page cache and come back when
    they are read. The mapping is private and never written to, so nothing can be lost."""
    page = mmap.PAGESIZE
    start = -(-tensor.data_ptr() // page) * page
    stop = (tensor.data_ptr() + tensor.nbytes) // page * page
    if start < stop:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_DONTNEED)
