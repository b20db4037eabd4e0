"""Long documents in parts that fit: windows of plain text, which overlap, and pieces for infilling, which do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zenray.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `begin` to `end` of a document, of which those from `first_scored` on are scored. All counted from the
    document's first."""

    begin: int
    end: int
    first_scored: int


def windows(num_tokens: int, window_tokens: int, overlap_tokens: int) -> Iterator[Window]:
    """Windows in which every token is scored exactly once; in all but the first it has `overlap_tokens` or more before
    it. All but the last are full."""
    begin, scored = 0, 0
    while scored < num_tokens:
        end = min(begin + window_tokens, num_tokens)
        yield Window(begin, end, scored)
        begin, scored = end - overlap_tokens, end


class TokenMeasure:
    """How far tokens reach in the text they encode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._num_bytes_V = np.array([len(tokenizer.token_bytes(each)) for each in range(tokenizer.vocab_size)])

    def ends(self, token_ids: Sequence[int]) -> np.ndarray:
        """The byte behind each token [T]."""
        ends_T: np.ndarray = self._num_bytes_V[np.asarray(token_ids, dtype=np.int64)].cumsum()
        return ends_T


def reach(ends_T: np.ndarray, begin: int, num_tokens: int) -> int:
    """The byte behind `num_tokens` tokens that end after byte `begin`; the text's end where there are fewer."""
    first = int(np.searchsorted(ends_T, begin, side="right"))
    return int(ends_T[min(first + num_tokens, len(ends_T)) - 1])


def cut(data: bytes, begin: int, most: int) -> int:
    """Where a piece of `data` (UTF-8) from byte `begin` on ends, by byte `most` if it can.

    Behind the last line end in the second half of what is allowed; else between two characters. A piece holds one
    character at least, even if that ends after `most`.
    """
    if most >= len(data):
        return len(data)
    line_end = data.rfind(b"\n", begin + (most - begin) // 2, most) + 1
    if line_end > begin:
        return line_end
    end = most
    while end > begin and _is_inside_character(data, end):
        end -= 1
    if end <= begin:
        end = begin + 1
        while end < len(data) and _is_inside_character(data, end):
            end += 1
    return end


def _is_inside_character(data: bytes, place: int) -> bool:
    return data[place] & 0xC0 == 0x80
