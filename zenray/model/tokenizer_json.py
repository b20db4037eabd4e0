"""A tokenizer written beside converted weights, read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zenray.model.bpe import BpeTokenizer
from zenray.model.sentencepiece import SentencePieceTokenizer
from zenray.model.tokenizer import FimTokens

_KINDS: dict[str, type[BpeTokenizer]] = {kind.kind: kind for kind in (BpeTokenizer, SentencePieceTokenizer)}


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
