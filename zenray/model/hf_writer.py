"""The files beside the weights of a published layout: config.json, tokenizer.json and what belongs to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer
from zenray.model.config import ModelConfig
from zenray.model.hf_config import config_to_hf
from zenray.model.hf_tokenizer import tokenizer_from_hf


def write_description(folder: Path, config: ModelConfig, dtype: str, tokenizer: BpeTokenizer) -> None:
    """Writes config.json, generation_config.json, tokenizer.json and tokenizer_config.json.

    Raises:
        ModelFileError: an architecture without a published layout, or a tokenizer that would read back differently.
    """
    ends = sorted(tokenizer.eos_token_ids)
    _write(folder / "config.json", {**config_to_hf(config), "dtype": dtype, "eos_token_id": ends})
    _write(folder / "generation_config.json", {"eos_token_id": ends, "bos_token_id": tokenizer.bos_token_id})
    _write(folder / "tokenizer.json", _with_control_tokens(tokenizer))
    _write(folder / "tokenizer_config.json", _tokenizer_settings(tokenizer))
    written = tokenizer_from_hf(folder, config)
    if written.to_json() != tokenizer.to_json() or json.loads(written.definition) != json.loads(tokenizer.definition):
        raise ModelFileError(f"{folder / 'tokenizer.json'}: this tokenizer cannot be written without changing it")


def _with_control_tokens(tokenizer: BpeTokenizer) -> dict[str, Any]:
    """The definition with its control tokens as special ones. The vocabulary holds them too: added tokens that
    it lacks would be numbered anew."""
    definition: dict[str, Any] = json.loads(tokenizer.definition)
    control = tokenizer.to_json()["control_tokens"]
    for token_id, text in sorted(control.items(), key=lambda item: int(item[0])):
        definition["model"]["vocab"][text] = int(token_id)
        definition["added_tokens"].append(
            {
                "id": int(token_id),
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
        )
    return definition


def _tokenizer_settings(tokenizer: BpeTokenizer) -> dict[str, Any]:
    ends = sorted(tokenizer.eos_token_ids)
    bos = tokenizer.bos_token_id
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": tokenizer.add_bos,
        "bos_token": None if bos is None else tokenizer.control_token_text(bos),
        "eos_token": tokenizer.control_token_text(ends[0]) if ends else None,
        "clean_up_tokenization_spaces": False,
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
