"""What the stop rules of the engine are told about the text around a cursor."""

from __future__ import annotations

import re
from collections.abc import Callable

from zenray.context.request import SuggestionOptions
from zenray.engine.request import TextStops

_CHARS_BEFORE, _CHARS_AFTER = 8_000, 2_000
_LINE_REST = re.compile(r"[^\r\n]*")
_CLOSES_ONLY = re.compile(r"""[\s)\]}>"'`:;,]*""")
"""What may follow the cursor on its line where a completion of several lines can stand."""


def text_stops(
    options: SuggestionOptions, language: str, text: str, cursor: int, shown: Callable[[int, int], str]
) -> TextStops | None:
    """The rules that `options` ask for at a cursor in `text`; None where they ask for none.

    `shown` gives the text from one offset to another with secrets covered: the rules run where the model runs.
    """
    single_line = in_mid_line(text, cursor) if options.single_line is None else options.single_line
    if not (options.scope_end or options.suffix_match or single_line or options.repetition):
        return None
    begin = max(0, cursor - _CHARS_BEFORE)
    if begin > 0 and text[begin - 1] != "\n":
        begin = text.find("\n", begin, cursor) + 1 or begin
    return TextStops(
        language=language,
        before=shown(begin, cursor),
        after=shown(cursor, cursor + _CHARS_AFTER),
        scope_end=options.scope_end,
        suffix_match=options.suffix_match,
        single_line=single_line,
        repetition=options.repetition,
    )


def in_mid_line(text: str, cursor: int) -> bool:
    """Whether more than white space, closing brackets and quotes, and `:`, `;` or `,` follow on the cursor's line."""
    rest = _LINE_REST.match(text, cursor)
    return rest is not None and _CLOSES_ONLY.fullmatch(rest.group()) is None
