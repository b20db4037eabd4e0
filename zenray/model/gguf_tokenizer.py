"""The tokenizer embedded in a GGUF file (`tokenizer.ggml.*`), for byte-level BPE vocabularies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zenray.errors import ModelFileError
from zenray.model import pre_tokenizers
from zenray.model.bpe import BpeTokenizer, bpe_definition
from zenray.model.tokenizer import discover_fim, end_tokens

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_END_KEYS = ("eos", "eot", "eom")
_FIM_KEYS = {
    "prefix": "fim_pre",
    "suffix": "fim_suf",
    "middle": "fim_mid",
    "pad": "fim_pad",
    "repo_name": "fim_rep",
    "file_sep": "fim_sep",
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], vocab_size: int, path: Path) -> BpeTokenizer:
    """Builds the tokenizer of a file whose `tokenizer.ggml.model` is "gpt2".

    Raises:
        ModelFileError: another kind of vocabulary, an unknown pre-tokenizer, missing or inconsistent lists.
    """

    def key(name: str) -> Any:
        value = metadata.get(f"tokenizer.ggml.{name}")
        if value is None:
            raise ModelFileError(f"{path}: the metadata key tokenizer.ggml.{name} is missing")
        return value

    kind = key("model")
    if kind != "gpt2":
        raise ModelFileError(f"{path}: tokenizer.ggml.model is {kind!r}; supported: 'gpt2' (byte-level BPE)")
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in pre_tokenizers.KNOWN:
        known = ", ".join(pre_tokenizers.KNOWN)
        raise ModelFileError(f"{path}: tokenizer.ggml.pre is {pre!r}; supported: {known}")
    tokens, types = key("tokens"), metadata.get("tokenizer.ggml.token_type")
    types = types if types is not None else [_NORMAL] * len(tokens)
    if len(types) != len(tokens) or len(tokens) > vocab_size:
        raise ModelFileError(
            f"{path}: {len(tokens)} tokens, {len(types)} token types and an embedding of {vocab_size} rows do not agree"
        )
    # User-defined tokens are added ones that some tool spells out, such as <tool_call>: runs of
    # whitespace among them are text, all others steer the model.
    spaces = {
        text: i for i, (text, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ == _USER_DEFINED and text.isspace()
    }  # fmt: skip
    control = {
        i: text for i, (text, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ in (_CONTROL, _USER_DEFINED) and text not in spaces
    }  # fmt: skip
    vocab = {text: i for i, (text, type_) in enumerate(zip(tokens, types, strict=True)) if type_ == _NORMAL}
    merges = [_split_merge(merge) for merge in key("merges")]
    definition = bpe_definition(
        vocab,
        [merge for merge in merges if merge[0] in vocab and merge[1] in vocab and "".join(merge) in vocab],
        pre_tokenizers.pre_tokenizer(pre),
        ignore_merges=pre in pre_tokenizers.WHOLE_WORDS,
        whitespace_tokens=spaces,
    )
    names = {text: i for i, text in control.items()}
    fim = discover_fim(names, _token_ids(metadata, _FIM_KEYS))
    stated_ends = _token_ids(metadata, {name: name for name in _END_KEYS}).values()
    return BpeTokenizer(
        json.dumps(definition, ensure_ascii=False),
        vocab_size,
        control,
        eos_token_ids=end_tokens(names, stated_ends, fim),
        bos_token_id=metadata.get("tokenizer.ggml.bos_token_id"),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", pre in pre_tokenizers.WHOLE_WORDS)),
        fim=fim,
    )


def _split_merge(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _token_ids(metadata: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, int]:
    """Ids stated as `tokenizer.ggml.NAME_token_id`, by the name we give them."""
    found = {ours: metadata.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in keys.items()}
    return {ours: token_id for ours, token_id in found.items() if token_id is not None}
