"""Which format each matrix gets, and packing it piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch

from zenray.config import WeightFormat
from zenray.errors import ModelFileError
from zenray.model.digest import digest
from zenray.model.source import ModelSource, SourceTensor, checked
from zenray.model.weights import has_bias, matrix_parts
from zenray.ops import PackedWeight, mixed_format, pack, pack_int4_from_groups

_CHUNK_BYTES = 64 * 2**20
"""Float32 scratch while packing: a matrix is read in pieces of at most this."""
_PANEL_ROWS = 16


def activation_dtype(weight_format: WeightFormat) -> torch.dtype:
    """Activations and KV cache: as wide as dense float32 weights, bfloat16 otherwise."""
    return torch.float32 if weight_format == "float32" else torch.bfloat16


def matrix_format(name: str, kinds: list[str], weight_format: WeightFormat) -> str:
    """The `zenray.ops.pack` format of a canonical matrix whose parts the file holds as `kinds`.

    mixed: int4 where every part is 4-bit in the file, else int8, which holds wider blocks nearly without
    loss. A fused matrix takes the wider format of its parts: one product more costs more than the bytes.
    """
    if weight_format != "mixed":
        return weight_format
    return "int4" if all(mixed_format(kind) == "int4" for kind in kinds) else "int8"


def pack_matrix(source: ModelSource, name: str, weight_format: WeightFormat) -> PackedWeight:
    """One canonical matrix of `source`, packed; scratch memory stays near 64 MiB plus the result.

    Raises:
        ModelFileError: a missing tensor, a wrong shape, values that are not finite.
    """
    parts = [checked(source, part) for part in matrix_parts(source.config, name)]
    format_ = matrix_format(name, [part.kind for part in parts], weight_format)
    bias = _bias(source, name)
    num_rows = sum(part.shape[0] for part in parts)
    num_columns = parts[0].shape[1]
    rows_at_once = max(_CHUNK_BYTES // (4 * num_columns) // _PANEL_ROWS, 1) * _PANEL_ROWS
    try:
        pieces = [
            _pack_rows(parts, start, min(start + rows_at_once, num_rows), format_)
            for start in range(0, num_rows, rows_at_once)
        ]
    except ModelFileError as error:
        names = ", ".join(part.name for part in parts)
        raise ModelFileError(f"{source.path}: tensor {names}: {error}") from None
    return _stacked(pieces, bias)


class SourceProvider:
    """A `WeightProvider` that packs straight from the file, all in memory: for comparisons, nothing cached.

    overrides: another format for matrices by the last part of their name, such as {"head": "int8"}.
    """

    def __init__(
        self, source: ModelSource, weight_format: WeightFormat, overrides: Mapping[str, WeightFormat] | None = None
    ) -> None:
        self.dtype = activation_dtype(weight_format)
        self._source, self._weight_format, self._overrides = source, weight_format, overrides or {}
        self._embed: PackedWeight | None = None

    def matrix(self, name: str) -> PackedWeight:
        shared = not self._overrides and shares_embedding(self._source, self._weight_format)
        if name == "head" and self._embed is not None and shared:
            return self._embed
        weight_format = self._overrides.get(name.rpartition(".")[2], self._weight_format)
        packed = pack_matrix(self._source, name, weight_format)
        if name == "embed":
            self._embed = packed
        return packed

    def vector(self, name: str) -> torch.Tensor:
        return read_vector(self._source, name, self.dtype)

    @property
    def digest(self) -> str:
        chosen = f"{digest(self._source.path).sha256} {self._weight_format} {sorted(self._overrides.items())}"
        return hashlib.sha256(chosen.encode()).hexdigest()

    def check(self, name: str) -> None:
        """Nothing: these bytes were packed a moment ago."""

    def release(self, name: str) -> None:
        """Nothing: these bytes are in no file."""


def read_vector(source: ModelSource, name: str, dtype: torch.dtype) -> torch.Tensor:
    """A norm in the activation dtype, or a router in float32: bf16 scores would flip near-ties of experts."""
    stored = checked(source, name)
    values = stored.read(0, stored.shape[0])
    return values if name.endswith(".router") else values.to(dtype)


def shares_embedding(source: ModelSource, weight_format: WeightFormat) -> bool:
    """Whether one packed table serves as embedding and head."""
    if not source.config.tie_word_embeddings:
        return False
    kinds = [source.tensor("embed").kind]
    return matrix_format("embed", kinds, weight_format) == matrix_format("head", kinds, weight_format)


def _pack_rows(parts: list[SourceTensor], start: int, stop: int, format_: str) -> PackedWeight:
    if format_ == "int4" and all(part.read_groups is not None for part in parts):
        groups = [part.read_groups(a, b) for part, a, b in _spans(parts, start, stop) if part.read_groups is not None]
        quants, scales, mins = (torch.cat(pieces) for pieces in zip(*groups, strict=True))
        return pack_int4_from_groups(quants, scales, mins)
    return pack(torch.cat([part.read(a, b) for part, a, b in _spans(parts, start, stop)]), format_)


def _spans(parts: list[SourceTensor], start: int, stop: int) -> Iterator[tuple[SourceTensor, int, int]]:
    """The pieces of the parts that make rows [start, stop) of the stacked matrix."""
    offset = 0
    for part in parts:
        first, last = max(start - offset, 0), min(stop - offset, part.shape[0])
        if first < last:
            yield part, first, last
        offset += part.shape[0]


def _bias(source: ModelSource, name: str) -> torch.Tensor | None:
    if not has_bias(source.config, name):
        return None
    parts = [checked(source, f"{part}.bias") for part in matrix_parts(source.config, name)]
    return torch.cat([part.read(0, part.shape[0]) for part in parts])


def _stacked(pieces: list[PackedWeight], bias: torch.Tensor | None) -> PackedWeight:
    """Row blocks of one matrix put together: every format keeps rows in its first dimension."""
    first = pieces[0]

    def joined(tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
        present = [tensor for tensor in tensors if tensor is not None]
        return None if not present else present[0] if len(present) == 1 else torch.cat(present)

    data = joined([piece.data for piece in pieces])
    assert data is not None
    return PackedWeight(
        format=first.format,
        shape=(sum(piece.shape[0] for piece in pieces), first.shape[1]),
        data=data,
        scales=joined([piece.scales for piece in pieces]),
        zeros=joined([piece.zeros for piece in pieces]),
        group_size=first.group_size,
        bias=None if bias is None else bias.to(data.dtype if first.format == "dense" else torch.float32),
        supers=joined([piece.supers for piece in pieces]),
    )
