"""Which tokens may come next while the output must begin with given bytes.

A prompt that ends in the middle of a word ends in tokens the model seldom saw there. Token healing takes the last
of them back and lets the model write that place anew, bound to the bytes that stood there (the idea is that of
Microsoft's guidance library). The constraint is a function of the output so far, so it changes neither with
batching nor with drafts: a draft token is accepted when it is the token chosen under it.
"""

from __future__ import annotations

from bisect import bisect_left

import torch

from zenray.model.tokenizer import Tokenizer


class TokenPrefixes:
    """The vocabulary by the bytes its tokens begin with. Control tokens stand for no bytes and are never allowed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spelled = [(tokenizer.token_bytes(token_id), token_id) for token_id in range(tokenizer.vocab_size)]
        spelled = sorted(entry for entry in spelled if entry[0])
        self._spellings = [spelling for spelling, _ in spelled]
        self._ids = [token_id for _, token_id in spelled]

    def allowed(self, remaining: bytes) -> list[int]:
        """Ids of the tokens that begin with `remaining` and of those `remaining` begins with. `remaining` is not
        empty; the result is empty only where the vocabulary cannot spell it."""
        behind = _successor(remaining)
        end = len(self._ids) if behind is None else bisect_left(self._spellings, behind)
        ids = self._ids[bisect_left(self._spellings, remaining) : end]
        for length in range(1, len(remaining)):
            at = bisect_left(self._spellings, remaining[:length])
            while at < len(self._ids) and self._spellings[at] == remaining[:length]:
                ids.append(self._ids[at])
                at += 1
        return ids


def _successor(prefix: bytes) -> bytes | None:
    """The least byte string above every string that begins with `prefix`; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def restrict(logits_V: torch.Tensor, allowed_ids: list[int]) -> torch.Tensor:
    """A copy of one row, on the CPU, in which only `allowed_ids` can be chosen."""
    logits_V = logits_V.cpu()
    restricted_V = torch.full_like(logits_V, float("-inf"))
    restricted_V[allowed_ids] = logits_V[allowed_ids]
    return restricted_V
