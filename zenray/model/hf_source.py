"""A folder of Hugging Face safetensors as a `ModelSource`: config.json, tokenizer.json, one or many shards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer
from zenray.model.hf_config import config_from_hf
from zenray.model.hf_tokenizer import tokenizer_from_hf
from zenray.model.source import SourceTensor

INDEX_NAME = "model.safetensors.index.json"
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
NAMES = {
    "embed": "model.embed_tokens",
    "head": "lm_head",
    "final_norm": "model.norm",
    "input_norm": "input_layernorm",
    "post_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "router": "mlp.gate",
}
MIXTRAL_NAMES = {"gate": "w1", "up": "w3", "down": "w2"}


class HfSource:
    """Reads a folder as `save_pretrained` leaves it. Never reads a pickle.

    Raises:
        ModelFileError: missing or unreadable files, an unsupported layout, tensors missing from the shards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = config_from_hf(read_json(path / "config.json"), str(path / "config.json"))
        self._files = [_open(file) for file in weight_files(path)]
        self._owner = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118

    def tokenizer(self) -> BpeTokenizer:
        return tokenizer_from_hf(self.path, self.config)

    def tensor(self, part: str) -> SourceTensor:
        stem, suffix = (part.removesuffix(".bias"), ".bias") if part.endswith(".bias") else (part, ".weight")
        names = self._candidates(stem, suffix)
        for name, expert, half in names:
            if name in self._owner:
                return self._source_tensor(name, expert, half)
        raise ModelFileError(f"{self.path}: tensor {names[0][0]} is missing from the safetensors files")

    def _candidates(self, stem: str, suffix: str) -> list[tuple[str, int | None, int | None]]:
        """Names to look for: (tensor, expert index in a stacked one, half of a fused gate and up)."""
        pieces = stem.split(".")
        leaf = pieces[-1]
        if pieces[0] != "layers":
            return [(NAMES[leaf] + suffix, None, None)]
        at = f"model.layers.{pieces[1]}."
        if leaf == "router":
            return [(f"{at}{owner}.gate{suffix}", None, None) for owner in ("mlp", "block_sparse_moe")]
        if pieces[2] != "experts":
            return [(at + NAMES[leaf] + suffix, None, None)]
        expert = int(pieces[3])
        fused, half = ("down_proj", None) if leaf == "down" else ("gate_up_proj", 0 if leaf == "gate" else 1)
        return [
            (f"{at}mlp.experts.{expert}.{leaf}_proj{suffix}", None, None),
            (f"{at}block_sparse_moe.experts.{expert}.{MIXTRAL_NAMES[leaf]}{suffix}", None, None),
            (f"{at}mlp.experts.{fused}", expert, half),
            (f"{at}block_sparse_moe.experts.{fused}", expert, half),
        ]

    def _source_tensor(self, name: str, expert: int | None, half: int | None) -> SourceTensor:
        view = self._owner[name].get_slice(name)
        kind, shape = view.get_dtype(), tuple(view.get_shape())
        if kind not in _ITEM_BYTES:
            supported = ", ".join(_ITEM_BYTES)
            raise ModelFileError(f"{self.path}: tensor {name} has type {kind}; supported: {supported}")
        num_bytes = math.prod(shape) * _ITEM_BYTES[kind]
        if expert is None:

            def read(start: int, stop: int) -> torch.Tensor:
                rows: torch.Tensor = view[start:stop]
                return rows.float()

            return SourceTensor(name, shape, kind, num_bytes, read)
        if len(shape) != 3 or expert >= shape[0]:
            raise ModelFileError(
                f"{self.path}: tensor {name} has shape {list(shape)}, expected [experts, rows, columns]"
            )
        num_rows = shape[1] if half is None else shape[1] // 2
        first_row = num_rows * (half or 0)

        def read_expert(start: int, stop: int) -> torch.Tensor:
            rows: torch.Tensor = view[expert : expert + 1, first_row + start : first_row + stop]
            return rows[0].float()

        expert_bytes = num_rows * shape[2] * _ITEM_BYTES[kind]
        return SourceTensor(name, (num_rows, shape[2]), kind, expert_bytes, read_expert)


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a folder: those its index names, else every one there.

    Raises:
        ModelFileError: none, or one of the index missing; a folder of pickles is told apart.
    """
    index = path / INDEX_NAME
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing or not names:
            raise ModelFileError(f"{index}: it names {', '.join(missing) or 'no file'}, which is not there")
        return [path / name for name in names]
    files = sorted(path.glob("*.safetensors"))
    if files:
        return files
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
    if pickles:
        raise ModelFileError(
            f"{path}: {pickles[0]} is a pickle, which can run code when loaded and is never read; "
            "save the model as safetensors"
        )
    raise ModelFileError(f"{path}: no .safetensors file is there")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, with errors that name it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(f"{path} is missing") from None
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(data, dict):
        raise ModelFileError(f"{path} holds no JSON object")
    return data


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: not a readable safetensors file, truncated or corrupt ({error})") from None
