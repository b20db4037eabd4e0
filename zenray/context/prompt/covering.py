"""A document as a prompt may show it: its secrets covered."""

from __future__ import annotations

from zenray.context.privacy.secrets import redact
from zenray.context.prompt.bounded import BoundedCache

_BLOCK_CHARS = 1 << 14
_BORDER_CHARS = 1 << 13  # A secret that ends in a block begins no further before it; the longest are private keys.


class CoveredText:
    """`text` with its secrets covered, character for character, read block by block where it is asked for.

    Blocks that read as they did at the last keystroke are taken from `known`.
    """

    def __init__(self, text: str, known: BoundedCache[str, str]) -> None:
        self.text = text
        self._known = known
        self._blocks: dict[int, str] = {}

    def __call__(self, start: int, end: int) -> str:
        start, end = max(0, start), min(len(self.text), end)
        if start >= end:
            return ""
        first, last = start // _BLOCK_CHARS, (end - 1) // _BLOCK_CHARS
        covered = "".join(self._block(number) for number in range(first, last + 1))
        return covered[start - first * _BLOCK_CHARS : end - first * _BLOCK_CHARS]

    def _block(self, number: int) -> str:
        if number not in self._blocks:
            begin = number * _BLOCK_CHARS
            border = min(begin, _BORDER_CHARS)
            around = self.text[begin - border : begin + _BLOCK_CHARS + _BORDER_CHARS]
            covered = self._known.get_or_make(around, redact)
            self._blocks[number] = covered[border : border + _BLOCK_CHARS]
        return self._blocks[number]
