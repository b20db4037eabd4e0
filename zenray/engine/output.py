"""The text of one choice as it grows: bytes to whole characters, stop strings, line limit."""

from __future__ import annotations

import codecs

from zenray.engine.request import FinishReason, Limits
from zenray.engine.stopping import find_line_limit, find_stop, held_back


class OutputText:
    """Collects token bytes and hands out text that can no longer be taken back.

    Characters appear once complete; text that may be the start of a stop string waits. `finish_reason`
    is set when a text rule ends the choice; the text is then already cut.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._num_taken = 0
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return self._text

    def append(self, token_bytes: bytes) -> None:
        """Adds the bytes of one token and applies the text rules."""
        self._grow(self._decoder.decode(token_bytes))

    def close(self) -> None:
        """No more tokens: an incomplete character becomes U+FFFD and waiting text is let go."""
        if self.finish_reason is None:
            self._grow(self._decoder.decode(b"", final=True))

    def take(self, final: bool = False) -> str:
        """Text not handed out before. With `final`, nothing is held back."""
        end = len(self._text)
        if not final and self.finish_reason is None:
            end -= held_back(self._text, self._limits.stop)
        taken = self._text[self._num_taken : end]
        self._num_taken = max(self._num_taken, end)
        return taken

    def _grow(self, addition: str) -> None:
        searched = len(self._text)
        self._text += addition
        ends = []
        if (at := find_stop(self._text, self._limits.stop, searched)) is not None:
            ends.append((at, FinishReason.STOP))
        if (at := find_line_limit(self._text, self._limits.max_lines)) is not None:
            ends.append((at, FinishReason.LENGTH))
        if ends:
            at, self.finish_reason = min(ends, key=lambda end: end[0])
            self._text = self._text[:at]
