"""The text of one choice as it grows: bytes to whole characters, stop strings, line limit, text rules."""

from __future__ import annotations

import codecs

from zenray.engine.request import FinishReason, Limits
from zenray.engine.stopping import TextEnd, TextRule, find_line_limit, find_stop, held_back


class OutputText:
    """Collects token bytes and hands out text that can no longer be taken back.

    Characters appear once complete; text that may yet be cut off waits. `finish_reason` is set when the text
    says that the choice ends; it is then already cut. The first bytes must be `forced`, and are no part of it.
    """

    def __init__(self, limits: Limits, rule: TextRule | None = None, forced: bytes = b"") -> None:
        self._limits, self._rule = limits, rule
        self.forced = forced
        """What the next bytes must begin with."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._num_taken = 0
        self.finish_reason: FinishReason | None = None

    @property
    def text(self) -> str:
        return self._text

    def append(self, token_bytes: bytes) -> None:
        """Adds the bytes of one token and applies the text rules."""
        if self.forced:
            length = min(len(self.forced), len(token_bytes))
            assert self.forced[:length] == token_bytes[:length], "only tokens that spell the forced bytes are chosen"
            self.forced, token_bytes = self.forced[length:], token_bytes[length:]
        self._grow(self._decoder.decode(token_bytes))

    def close(self) -> None:
        """No more tokens: an incomplete character becomes U+FFFD and waiting text is let go."""
        if self.finish_reason is None:
            self._grow(self._decoder.decode(b"", final=True))

    def take(self, final: bool = False) -> str:
        """Text not handed out before. With `final`, nothing is held back."""
        end = len(self._text)
        if not final and self.finish_reason is None:
            waiting = held_back(self._text, self._limits.stop)
            if self._rule is not None:
                waiting = max(waiting, self._rule.held_back(self._text))
            end -= waiting
        taken = self._text[self._num_taken : end]
        self._num_taken = max(self._num_taken, end)
        return taken

    def _grow(self, addition: str) -> None:
        searched = len(self._text)
        self._text += addition
        ends = []
        if (at := find_stop(self._text, self._limits.stop, searched)) is not None:
            ends.append(TextEnd(at, FinishReason.STOP))
        if (at := find_line_limit(self._text, self._limits.max_lines)) is not None:
            ends.append(TextEnd(at, FinishReason.LENGTH))
        if self._rule is not None and (end := self._rule.find_end(self._text, searched)) is not None:
            ends.append(end)
        if ends:
            first = min(ends, key=lambda end: end.at)
            self._text, self.finish_reason = self._text[: first.at], first.reason
