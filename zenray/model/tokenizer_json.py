"""A tokenizer as JSON: beside converted weights, and on its way to a batch job that has no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer
from zenray.model.sentencepiece import SentencePieceTokenizer
from zenray.model.tokenizer import ByteTokenizer, FimTokens, Tokenizer

_KINDS: dict[str, type[BpeTokenizer]] = {kind.kind: kind for kind in (BpeTokenizer, SentencePieceTokenizer)}
_BYTES = "bytes"


def tokenizer_from_json(definition: str, data: Mapping[str, Any]) -> BpeTokenizer:
    """The tokenizer whose `definition` and `to_json()` these are."""
    return _KINDS[data["kind"]](
        definition,
        vocab_size=data["vocab_size"],
        control_tokens={int(token_id): text for token_id, text in data["control_tokens"].items()},
        eos_token_ids=data["eos_token_ids"],
        bos_token_id=data["bos_token_id"],
        add_bos=data["add_bos"],
        fim=None if data["fim"] is None else FimTokens(**data["fim"]),
    )


def tokenizer_to_bytes(tokenizer: Tokenizer) -> bytes:
    """One UTF-8 JSON document with everything `tokenizer_from_bytes` needs."""
    if isinstance(tokenizer, BpeTokenizer):
        document = {**tokenizer.to_json(), "definition": tokenizer.definition}
    elif isinstance(tokenizer, ByteTokenizer):
        document = {"kind": _BYTES, "vocab_size": tokenizer.vocab_size}
    else:
        raise TypeError(f"no JSON is known for {type(tokenizer).__name__}")
    return json.dumps(document, ensure_ascii=False).encode()


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of what its ids mean: equal where two models' tokens are the same."""
    return sha256(tokenizer_to_bytes(tokenizer)).hexdigest()


def tokenizer_from_bytes(data: bytes) -> Tokenizer:
    """The tokenizer that `tokenizer_to_bytes` wrote. Raises ModelFileError for anything else."""
    try:
        document = json.loads(data)
        if document["kind"] == _BYTES:
            return ByteTokenizer(document["vocab_size"])
        return tokenizer_from_json(document["definition"], document)
    except Exception as error:  # The tokenizers library raises bare Exceptions.
        raise ModelFileError(f"no tokenizer can be read from these {len(data)} bytes: {error}") from error
