"""The end of a Markdown code block, behind which a small model explains its code.

Only at the margin, where it stands in no comment of any language and in few strings, and only where none stands near
the cursor.
"""

from __future__ import annotations

from zenray.context.suggestion.line_rules import Decision, Line
from zenray.context.suggestion.seams import cut_before, end_of_content
from zenray.engine.request import FinishReason
from zenray.engine.stopping import TextEnd

_FENCE = "```"
_SEARCHED_CHARACTERS = 8192


class CodeFence:
    """The `LineRule`; `before` and `after` are the text around the cursor."""

    def __init__(self, before: str, after: str) -> None:
        self._after = after
        self._is_code = _FENCE not in before[-_SEARCHED_CHARACTERS:] and _FENCE not in after[:_SEARCHED_CHARACTERS]

    def judge(self, text: str, line: Line) -> Decision | None:
        if not self._is_code or line.start == 0 or not text.startswith(_FENCE, line.start):
            return None
        return Decision(
            line.start + len(_FENCE), TextEnd(cut_before(text, line.start, self._after), FinishReason.SCOPE_END)
        )

    def hold_from(self, text: str, start: int) -> int:
        if not self._is_code or start == 0 or not _FENCE.startswith(text[start : start + len(_FENCE)]):
            return len(text)
        return min(end_of_content(text), cut_before(text, start, self._after))
