"""The window of the current file: what of the text before the cursor fits, in pieces that stay put while one types.

The text is cut at settled places, the first line start behind each multiple of a grid. Typing at its end moves none
of them, so each piece is encoded once and only the last one, which holds the cursor, is encoded at every keystroke.
Of a file of any length only what may fit is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from zenray.context.budget import MOST_CHARS_PER_TOKEN, keep_end
from zenray.context.tokens import PromptTokenizer

Shown = Callable[[int, int], str]
"""The text from one offset to another as the model may see it: with secrets covered."""

_LARGEST_GRID, _SMALLEST_GRID = 1024, 128
# A tokenizer of any family ends a token where a line begins without indentation, and most where a line begins.
_TOP_LEVEL_LINE = re.compile(r"(?<=\n)(?=\S)")
_LINE = re.compile(r"(?<=\n)(?=[^\S\n]*\S)")


@dataclass(frozen=True, slots=True)
class Window:
    """The text from `start` to the cursor, and its ids. `text` is what the ids spell."""

    start: int
    text: str
    token_ids: list[int]


def fit_before(
    document: str,
    cursor: int,
    budget: int,
    tokenizer: PromptTokenizer,
    shown: Shown,
    *,
    scale: int = 0,
    last_start: int | None = None,
) -> Window:
    """A long end of `document[:cursor]` within `budget` tokens, which starts at a line and at a stable place.

    What fits, in characters, gives a power of two between an eighth and a quarter of it; the start is a settled place
    behind a multiple of that. While someone types at the end it stays where it is until so much was typed. Where
    lines are longer than the grid, the start may fall inside a line.

    A budget that wavers would move the start, so `scale` is what the grid is made for, the budget if 0. In a session
    (`last_start` is not None) the last start is kept while it fits and uses half of the budget; a new one leaves an
    eighth of the budget for what will be typed next.
    """
    if budget <= 0:
        return Window(cursor, "", [])
    grid = min(_LARGEST_GRID, max(_SMALLEST_GRID, 1 << (4 * (scale or budget)).bit_length() >> 5))
    number = max(0, cursor // grid - 1)  # of the last settled place
    places = [cursor, _settled(document, number, grid)]
    pieces = [tokenizer.encode(shown(places[1], cursor))]
    num_tokens = len(pieces[0])
    if num_tokens > budget:
        kept = keep_end(shown(places[1], cursor), budget, tokenizer)
        return Window(cursor - min(len(kept.text), cursor), kept.text, kept.token_ids)
    while number > 0 and cursor - places[-1] < MOST_CHARS_PER_TOKEN * budget:
        place = _settled(document, number - 1, grid)
        ids = tokenizer.encode(shown(place, places[-1]))
        if num_tokens + len(ids) > budget:
            break
        number -= 1
        num_tokens += len(ids)
        places.append(place)
        pieces.append(ids)
    if last_start in places and (last_start == 0 or _num_tokens_from(last_start, places, pieces) >= budget // 2):
        count = places.index(last_start)
        del places[count + 1 :], pieces[count:]
    elif number > 0:
        while last_start is not None and len(pieces) > 1 and sum(map(len, pieces)) > budget - budget // 8:
            del places[-1], pieces[-1]
            number += 1
        stride = max(grid, 1 << (cursor - places[-1]).bit_length() >> 3)
        skipped = -(number * grid // -stride) * stride // grid - number
        skipped = min(max(0, skipped), len(pieces) - 1)
        while skipped < len(pieces) - 1 and not _starts_line(document, places[-1 - skipped]):
            skipped += 1
        if not _starts_line(document, places[-1 - skipped]):  # one endless line
            skipped = 0
        del places[len(places) - skipped :], pieces[len(pieces) - skipped :]
    return Window(places[-1], shown(places[-1], cursor), [token_id for ids in reversed(pieces) for token_id in ids])


def _num_tokens_from(start: int, places: list[int], pieces: list[list[int]]) -> int:
    return sum(len(ids) for ids in pieces[: places.index(start)])


def _settled(document: str, number: int, grid: int) -> int:
    """The place behind `number` grids at which the text may be cut, whatever is typed behind the next one."""
    at = number * grid
    if at == 0:
        return 0
    found = _TOP_LEVEL_LINE.search(document, at, at + grid) or _LINE.search(document, at, at + grid)
    return found.start() if found else at


def _starts_line(document: str, place: int) -> bool:
    return place == 0 or document[place - 1] == "\n"
