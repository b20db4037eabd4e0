"""Tokenising what was tokenised before costs nothing."""

from __future__ import annotations

from collections.abc import Sequence

from zenray.context.prompt.bounded import BoundedCache
from zenray.context.tokens import FimTokenIds, PromptTokenizer

_SHORTEST_KEPT = 4  # Characters; fewer are encoded as quickly as they are found.


class RememberingTokenizer:
    """A `PromptTokenizer` that keeps the ids of texts it encoded, up to `max_chars` of them.

    Between two keystrokes a prompt changes in one place. A caller that encodes it in pieces whose borders stay
    where they are pays for the piece that changed.
    """

    def __init__(self, tokenizer: PromptTokenizer, max_chars: int = 8 << 20) -> None:
        self._tokenizer = tokenizer
        self._known: BoundedCache[str, tuple[int, ...]] = BoundedCache(max_chars, len)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.vocab_size

    @property
    def fim(self) -> FimTokenIds | None:
        return self._tokenizer.fim

    @property
    def bos_token_id(self) -> int | None:
        return self._tokenizer.bos_token_id

    @property
    def add_bos(self) -> bool:
        return self._tokenizer.add_bos

    def encode(self, text: str, /) -> list[int]:
        if len(text) < _SHORTEST_KEPT:
            return self._tokenizer.encode(text)
        return list(self._known.get_or_make(text, lambda made: tuple(self._tokenizer.encode(made))))

    def count(self, text: str) -> int:
        """How many ids `encode` gives."""
        return len(self.encode(text))

    def decode(self, ids: Sequence[int], /) -> str:
        return self._tokenizer.decode(ids)

    def token_bytes(self, token_id: int, /) -> bytes:
        return self._tokenizer.token_bytes(token_id)

    def control_token_text(self, token_id: int, /) -> str | None:
        return self._tokenizer.control_token_text(token_id)
