"""Where the end of a text occurred before, and what followed: the search behind prompt lookup and SuffixDecoding.

A suffix tree (SuffixDecoding, Oliaro et al. 2024, arXiv 2411.04975) finds the longest match in time proportional to
its length, but has to be built: one token of Python costs more than comparing thousands of them in one vector
instruction stream. So there is no index. Every search scans the whole text: 2 µs for 1,000 tokens, 12 µs for 65,536.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from zenray.speculative.history import SEPARATOR, TokenArray

LONGEST_MATCH = 32
"""Longer agreement is not told apart: by then the next token is all but certain."""

_MAX_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Match:
    """`length` tokens before `position` of a text equal the end of the text that is to be continued.

    `is_unanimous`: whatever else follows as long a match begins with the same token.
    """

    length: int
    position: int
    is_unanimous: bool


def end_of(text_N: TokenArray) -> TokenArray:
    """The last tokens of a text, newest first, as far as its last separator and at most `LONGEST_MATCH`."""
    end_M = text_N[: -LONGEST_MATCH - 1 : -1]
    (separators,) = np.nonzero(end_M == SEPARATOR)
    return end_M[: separators[0]] if len(separators) else end_M


def longest_match(text_N: TokenArray, end_M: TokenArray) -> Match | None:
    """The earlier place in `text_N` that agrees longest with `end_M` (newest first) and that something follows.

    Among equally long matches, of which the 64 latest count, the most frequent next token wins, and of its places
    the latest. `text_N` begins with a separator. None when not even one token occurs.
    """
    if not len(end_M):
        return None
    (ends,) = np.nonzero(text_N[:-1] == end_M[0])
    ends = ends[text_N[ends + 1] != SEPARATOR]
    if not len(ends):
        return None
    length = 1
    # Thin out by single tokens first: the comparison of all of them below takes candidates times length.
    while len(ends) > _MAX_CANDIDATES and length < len(end_M):
        longer = ends[text_N[ends - length] == end_M[length]]
        if not len(longer):
            break
        ends, length = longer, length + 1
    if len(ends) <= _MAX_CANDIDATES:
        before_CM = text_N[np.maximum(ends[:, None] - np.arange(len(end_M)), 0)]  # place 0 is a separator
        agrees_CM = before_CM == end_M
        lengths_C = np.where(agrees_CM.all(axis=1), len(end_M), agrees_CM.argmin(axis=1))
        length = int(lengths_C.max())
        ends = ends[lengths_C == length]
    ends = ends[-_MAX_CANDIDATES:]
    nexts = text_N[ends + 1].tolist()
    next_id, count = Counter(reversed(nexts)).most_common(1)[0]  # of equal counts the first seen: the latest
    latest = len(nexts) - 1 - nexts[::-1].index(next_id)
    return Match(length, int(ends[latest]) + 1, count == len(nexts))


def continuation(text_N: TokenArray, position: int, num_tokens: int) -> list[int]:
    """Up to `num_tokens` tokens from `position` on, as far as the next separator.

    Where the text ends, its end is what was copied so far: a text of period k goes on with period k.
    """
    copied: list[int] = text_N[position : position + num_tokens].tolist()
    if SEPARATOR in copied:
        return copied[: copied.index(SEPARATOR)]
    period = len(copied)
    while 0 < len(copied) < num_tokens:
        copied.append(copied[-period])
    return copied
