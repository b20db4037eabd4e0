"""The text ends with its first line, wherever that ends."""

from __future__ import annotations

from zenray.context.suggestion.line_rules import Decision, Line
from zenray.engine.request import FinishReason
from zenray.engine.stopping import TextEnd


class SingleLine:
    """The `LineRule`."""

    def judge(self, text: str, line: Line) -> Decision | None:
        if line.next_start is None:
            return None
        return Decision(line.next_start, TextEnd(line.stop, FinishReason.LENGTH))

    def hold_from(self, text: str, start: int) -> int:
        return len(text)
