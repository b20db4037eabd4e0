"""SentencePiece-style BPE (Llama 2, Mistral, Mixtral, CodeLlama): a space is `▁`, unknown characters are bytes.

Two habits of SentencePiece are left out, because they lose text: no space is put before the first word,
and a `▁` of the text itself is spelled in bytes instead of becoming a space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from zenray.model.bpe import BpeTokenizer, bpe_model

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def sentencepiece_definition(vocab: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A tokenizer.json of nothing but the merges, with byte fallback. vocab holds `<0x00>` to `<0xFF>`."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": bpe_model(vocab, merges, byte_fallback=True),
    }


def has_all_bytes(vocab: Mapping[str, int]) -> bool:
    """Whether every byte has its token, without which some texts have no spelling."""
    return all(f"<0x{byte:02X}>" in vocab for byte in range(256))


def merges_from_scores(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The merges SentencePiece applies: any two pieces whose whole is a piece, best whole first."""
    found = [
        (piece[:cut], piece[cut:], score)
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    found.sort(key=lambda merge: -merge[2])
    return [(left, right) for left, right, _ in found]


class SentencePieceTokenizer(BpeTokenizer):
    """A BPE over characters, whose `definition` is the JSON text of a `sentencepiece_definition`."""

    kind = "sentencepiece"

    def _encode(self, text: str, data: bytes) -> list[int]:
        pieces = text.split(SPACE)
        ids = self._ids(pieces[0])
        for piece in pieces[1:]:
            ids += self._space_bytes
            ids += self._ids(piece)
        return ids

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text.replace(" ", SPACE), add_special_tokens=False).ids
        return ids

    def _bytes_by_id(self, tokenizer: tokenizers.Tokenizer) -> list[bytes]:
        vocab = tokenizer.get_vocab()
        self._space_bytes = [vocab[f"<0x{byte:02X}>"] for byte in SPACE.encode()]
        result = [b""] * self.vocab_size
        for token, token_id in vocab.items():
            byte = _BYTE.fullmatch(token)
            result[token_id] = bytes((int(byte[1], 16),)) if byte else token.replace(SPACE, " ").encode()
        return result
