"""The tokenizer embedded in a GGUF file (`tokenizer.ggml.*`): byte-level BPE, or SentencePiece-style."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from zenray.errors import ModelFileError
from zenray.model import pre_tokenizers
from zenray.model.bpe import BpeTokenizer, bpe_definition
from zenray.model.sentencepiece import (
    SentencePieceTokenizer,
    has_all_bytes,
    merges_from_scores,
    sentencepiece_definition,
)
from zenray.model.tokenizer import discover_fim, end_tokens, unreachable_names

_Value = TypeVar("_Value")

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
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
    """Builds the tokenizer of a file: `tokenizer.ggml.model` "gpt2" (byte-level BPE) or "llama" (SentencePiece).

    Raises:
        ModelFileError: another kind of vocabulary, an unknown pre-tokenizer, missing or inconsistent lists.
    """
    kind = _key(metadata, "model", str, path)
    if kind not in ("gpt2", "llama"):
        raise ModelFileError(f"{path}: tokenizer.ggml.model is {kind!r}; supported: 'gpt2' (byte-level BPE), 'llama'")
    tokens = _key(metadata, "tokens", list, path)
    types = metadata.get("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not isinstance(types, list) or len(types) != len(tokens) or len(tokens) > vocab_size:
        raise ModelFileError(
            f"{path}: {len(tokens)} tokens, their types and an embedding of {vocab_size} rows do not agree"
        )
    merges = metadata.get("tokenizer.ggml.merges", [])
    steering = unreachable_names(merges if isinstance(merges, list) else [])
    # User-defined tokens are added ones that some tool spells out, such as <tool_call>: runs of
    # whitespace among them are text, all others steer the model.
    typed = list(enumerate(zip(tokens, types, strict=True)))
    spaces = {text: i for i, (text, type_) in typed if type_ == _USER_DEFINED and text.isspace()}
    control = {
        i: text
        for i, (text, type_) in typed
        if (type_ in (_CONTROL, _UNKNOWN, _USER_DEFINED) or text in steering) and text not in spaces
    }
    text_tokens = {text: i for i, (text, type_) in typed if type_ in (_NORMAL, _BYTE) and i not in control}
    tokenizer: type[BpeTokenizer]
    if kind == "llama":
        definition: dict[str, Any] = _sentencepiece(metadata, text_tokens, typed, path)
        tokenizer, adds_bos = SentencePieceTokenizer, True
    else:
        pre = metadata.get("tokenizer.ggml.pre", "default")
        definition = _byte_level(metadata, text_tokens, spaces, pre, path)
        tokenizer, adds_bos = BpeTokenizer, pre in pre_tokenizers.WHOLE_WORDS
    names = {text: i for i, text in control.items()}
    fim = discover_fim(names, _token_ids(metadata, _FIM_KEYS, vocab_size, path))
    ends = _token_ids(metadata, {name: name for name in _END_KEYS}, vocab_size, path)
    return tokenizer(
        json.dumps(definition, ensure_ascii=False),
        vocab_size,
        control,
        eos_token_ids=end_tokens(names, ends.values(), fim),
        bos_token_id=_token_ids(metadata, {"bos": "bos"}, vocab_size, path).get("bos"),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos)),
        fim=fim,
    )


def _byte_level(
    metadata: Mapping[str, Any], vocab: Mapping[str, int], spaces: Mapping[str, int], pre: Any, path: Path
) -> dict[str, Any]:
    if pre not in pre_tokenizers.KNOWN:
        known = ", ".join(pre_tokenizers.KNOWN)
        raise ModelFileError(f"{path}: tokenizer.ggml.pre is {pre!r}; supported: {known}")
    return bpe_definition(
        vocab,
        [tuple(str(merge).split(" ", 1)) for merge in _key(metadata, "merges", list, path) if " " in str(merge)],
        pre_tokenizers.pre_tokenizer(pre),
        ignore_merges=pre in pre_tokenizers.WHOLE_WORDS,
        whitespace_tokens=spaces,
    )


def _sentencepiece(
    metadata: Mapping[str, Any], vocab: Mapping[str, int], typed: list[tuple[int, tuple[str, int]]], path: Path
) -> dict[str, Any]:
    if not has_all_bytes(vocab):
        raise ModelFileError(f"{path}: the vocabulary lacks some of the byte tokens <0x00> to <0xFF>")
    scores = _key(metadata, "scores", list, path)
    if len(scores) != len(typed):
        raise ModelFileError(f"{path}: tokenizer.ggml.scores has {len(scores)} entries, expected {len(typed)}")
    normal = {text: scores[i] for i, (text, type_) in typed if type_ == _NORMAL and text in vocab}
    return sentencepiece_definition(vocab, merges_from_scores(normal))


def _key(metadata: Mapping[str, Any], name: str, kind: type[_Value], path: Path) -> _Value:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if value is None:
        raise ModelFileError(f"{path}: the metadata key tokenizer.ggml.{name} is missing")
    if not isinstance(value, kind):
        raise ModelFileError(f"{path}: tokenizer.ggml.{name} is a {type(value).__name__}, expected a {kind.__name__}")
    return value


def _token_ids(metadata: Mapping[str, Any], keys: Mapping[str, str], vocab_size: int, path: Path) -> dict[str, int]:
    """Ids stated as `tokenizer.ggml.NAME_token_id`, by the name we give them."""
    found: dict[str, int] = {}
    for ours, theirs in keys.items():
        token_id = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if token_id is None:
            continue
        if not isinstance(token_id, int) or not 0 <= token_id < vocab_size:
            raise ModelFileError(
                f"{path}: tokenizer.ggml.{theirs}_token_id is {token_id!r}; expected an id below {vocab_size}"
            )
        found[ours] = token_id
    return found
