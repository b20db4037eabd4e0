"""Byte-level BPE over the `tokenizers` library, built so that control tokens are out of its reach."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers

from zenray.model.tokenizer import FimTokens, Tokenizer


@functools.cache
def byte_to_char() -> dict[int, str]:
    """GPT-2's printable character for each byte: itself where printable, else from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        table.setdefault(byte, chr(0x100 + len(table) - len(printable)))
    return table


def bpe_definition(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    pre_tokenizer: Mapping[str, Any],
    *,
    ignore_merges: bool = False,
    whitespace_tokens: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE and nothing else: no normaliser, no control token.

    vocab must hold no control token: with `ignore_merges` a whole word found in it is one token, and no
    added token is matched in text except `whitespace_tokens`.
    """
    spaces = dict(whitespace_tokens or {})
    added = [
        {
            "id": token_id,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": False,
        }
        for text, token_id in sorted(spaces.items(), key=lambda item: item[1])
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        # Added tokens keep their ids only if the vocabulary knows them too.
        "model": bpe_model({**vocab, **spaces}, merges, ignore_merges=ignore_merges),
    }


def bpe_model(
    vocab: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    *,
    ignore_merges: bool = False,
    byte_fallback: bool = False,
) -> dict[str, Any]:
    """The `model` of a tokenizer.json. Merges of tokens the vocabulary lacks are left out."""
    known = [list(merge) for merge in merges if merge[0] in vocab and merge[1] in vocab and "".join(merge) in vocab]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": dict(vocab),
        "merges": known,
    }


class BpeTokenizer(Tokenizer):
    """A byte-level BPE whose `definition` is the JSON text of a `bpe_definition`."""

    kind = "byte-level"

    def __init__(
        self,
        definition: str,
        vocab_size: int,
        control_tokens: Mapping[int, str],
        eos_token_ids: Iterable[int],
        bos_token_id: int | None = None,
        add_bos: bool = False,
        fim: FimTokens | None = None,
    ) -> None:
        super().__init__(vocab_size, control_tokens, eos_token_ids, bos_token_id, add_bos, fim)
        self.definition = definition
        self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        self._bytes = self._bytes_by_id(self._tokenizer)

    def _encode(self, text: str, data: bytes) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes[token_id]

    def to_json(self) -> dict[str, Any]:
        """What `tokenizer_from_json` needs besides the definition."""
        return {
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "control_tokens": {str(token_id): text for token_id, text in self._control_tokens.items()},
            "eos_token_ids": sorted(self.eos_token_ids),
            "bos_token_id": self.bos_token_id,
            "add_bos": self.add_bos,
            "fim": None if self.fim is None else {name: getattr(self.fim, name) for name in FimTokens.__slots__},
        }

    def _bytes_by_id(self, tokenizer: tokenizers.Tokenizer) -> list[bytes]:
        """Bytes of each id; b"" for control and unused ids."""
        plain = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        table, result = _latin1_table(), [b""] * self.vocab_size
        for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
            try:
                result[token_id] = token.encode() if token in plain else token.translate(table).encode("latin-1")
            except UnicodeEncodeError:  # characters that stand for no byte: the token is what it says
                result[token_id] = token.encode()
        return result


@functools.cache
def _latin1_table() -> dict[int, str]:
    """For `str.translate`: byte characters to the Latin-1 character of their byte, others out of Latin-1."""
    return dict.fromkeys(range(256), "\uffff") | {ord(char): chr(byte) for byte, char in byte_to_char().items()}
