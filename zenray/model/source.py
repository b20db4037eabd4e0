"""A model file as conversion sees it: an architecture, a tokenizer, and tensors by canonical part name.

Parts are the pieces of the canonical matrices of `zenray.model.weights` before fusing: `q`, `k`, `v` of
`qkv`, `gate` and `up` of `gate_up`; a bias is the part's name + `.bias`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer
from zenray.model.config import ModelConfig
from zenray.model.weights import part_shape

Int4Groups = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""quants uint8 [N, K], scales and mins float32 [N, K / 32]: weight = scale * quant + min."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor of a file, read by rows so that nothing need be in memory whole.

    kind: element or block type as the file names it, such as "BF16" or "Q4_K".
    num_bytes: what it takes in the file.
    read: rows [start, stop) as float32; a vector's elements count as rows.
    read_groups: the same rows as the 4-bit groups they are stored in, where they are.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    num_bytes: int
    read: Callable[[int, int], torch.Tensor]
    read_groups: Callable[[int, int], Int4Groups] | None = None


class ModelSource(Protocol):
    """A GGUF file or a safetensors folder, opened."""

    path: Path
    config: ModelConfig

    def tensor(self, part: str) -> SourceTensor:
        """The tensor of a canonical part. Raises ModelFileError where the file lacks it."""
        ...

    def tokenizer(self) -> BpeTokenizer:
        """The tokenizer that comes with the weights. Raises ModelFileError for a kind zenray cannot run."""
        ...


def checked(source: ModelSource, part: str) -> SourceTensor:
    """`source.tensor(part)`, with the shape the architecture demands."""
    tensor = source.tensor(part)
    expected = part_shape(source.config, part)
    if tensor.shape != expected:
        raise ModelFileError(
            f"{source.path}: tensor {tensor.name} has shape {list(tensor.shape)}, expected {list(expected)}"
        )
    return tensor
