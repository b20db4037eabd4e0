"""A GGUF file as a `ModelSource`: llama.cpp's metadata keys, tensor names and row order.

llama.cpp's names and its q/k permutation are those of its `convert_hf_to_gguf.py` and `gguf-py` tables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gguf import quants
from gguf.constants import GGMLQuantizationType

from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer
from zenray.model.gguf_blocks import GROUP_READERS
from zenray.model.gguf_config import config_from_gguf
from zenray.model.gguf_file import GgufFile, GgufTensor
from zenray.model.gguf_tokenizer import tokenizer_from_gguf
from zenray.model.source import Int4Groups, SourceTensor

_TYPES = frozenset(
    getattr(GGMLQuantizationType, name)
    for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
)
_NAMES = {
    "embed": "token_embd",
    "head": "output",
    "final_norm": "output_norm",
    "input_norm": "attn_norm",
    "post_norm": "ffn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "out": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "router": "ffn_gate_inp",
}


class GgufSource:
    """Reads a GGUF file of the architectures llama (Mixtral too), qwen2, qwen3, qwen3moe and olmoe.

    Raises:
        ModelFileError: what `GgufFile` raises, an unknown architecture or tensor type, missing metadata.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = GgufFile(path)
        self.config = config_from_gguf(self._file)

    def tokenizer(self) -> BpeTokenizer:
        return tokenizer_from_gguf(self._file.metadata, self.config.vocab_size, self.path)

    def tensor(self, part: str) -> SourceTensor:
        stem, suffix = (part.removesuffix(".bias"), ".bias") if part.endswith(".bias") else (part, ".weight")
        name, expert = _file_name(stem)
        stacked = expert is not None and f"{name}_exps{suffix}" in self._file.tensors
        if stacked:
            name += "_exps"
        elif expert is not None:
            name += f".{expert}"
        tensor = self._file.tensors.get(name + suffix)
        if tensor is None:
            raise ModelFileError(f"{self.path}: tensor {name}{suffix} is missing; is the download complete?")
        if tensor.type not in _TYPES:
            known = ", ".join(sorted(type_.name for type_ in _TYPES))
            raise ModelFileError(f"{self.path}: tensor {tensor.name} has type {tensor.type.name}; supported: {known}")
        if stacked and (len(tensor.shape) != 3 or expert is None or expert >= tensor.shape[0]):
            raise ModelFileError(
                f"{self.path}: tensor {tensor.name} has shape {list(tensor.shape)}, "
                f"expected [{self.config.num_experts}, rows, columns]"
            )
        shape = tensor.shape[1:] if stacked else tensor.shape
        first_row = (expert or 0) * shape[0] if stacked else 0
        return self._source_tensor(tensor, shape, first_row, self._row_order(stem, shape[0]))

    def _row_order(self, stem: str, num_rows: int) -> npt.NDArray[np.int64] | None:
        """llama.cpp stores the q and k rows of the llama architecture for interleaved rotary pairs: row
        (head, pair, half) where Hugging Face and `rope_` have (head, half, pair)."""
        leaf = stem.rpartition(".")[2]
        if self._file.metadata["general.architecture"] != "llama" or leaf not in ("q", "k"):
            return None
        order = np.arange(num_rows).reshape(-1, self.config.head_dim // 2, 2)
        return order.transpose(0, 2, 1).reshape(-1)

    def _source_tensor(
        self, tensor: GgufTensor, shape: tuple[int, ...], first_row: int, order: npt.NDArray[np.int64] | None
    ) -> SourceTensor:
        is_vector = len(shape) == 1
        num_bytes = tensor.row_bytes * (1 if is_vector else shape[0])

        def raw(start: int, stop: int) -> npt.NDArray[np.uint8]:
            if order is not None:
                return self._file.raw_rows(tensor, first_row, first_row + shape[0])[order[start:stop]]
            return self._file.raw_rows(tensor, first_row + start, first_row + stop)

        def read(start: int, stop: int) -> torch.Tensor:
            if is_vector:
                whole = self._file.raw_rows(tensor, 0, 1)
                values = torch.from_numpy(quants.dequantize(whole, tensor.type).astype(np.float32)).reshape(-1)
                return values[start:stop] if order is None else values[torch.from_numpy(order[start:stop])]
            return torch.from_numpy(quants.dequantize(raw(start, stop), tensor.type).astype(np.float32, copy=False))

        reader = GROUP_READERS.get(tensor.type.name)
        if reader is None or is_vector:
            return SourceTensor(tensor.name, shape, tensor.type.name, num_bytes, read)

        def read_groups(start: int, stop: int) -> Int4Groups:
            return reader(torch.from_numpy(raw(start, stop)))

        return SourceTensor(tensor.name, shape, tensor.type.name, num_bytes, read, read_groups)


def _file_name(stem: str) -> tuple[str, int | None]:
    """llama.cpp's tensor name without its suffix, and the expert it is of."""
    pieces = stem.split(".")
    leaf = _NAMES[pieces[-1]]
    if pieces[0] != "layers":
        return leaf, None
    return f"blk.{pieces[1]}.{leaf}", int(pieces[3]) if pieces[2] == "experts" else None
