"""What the text around the cursor asks for: its words, and the names it uses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zenray.context.prompt.words import terms_of

_CHARS_BEFORE, _CHARS_AFTER = 1_600, 400
_NEAR_CHARS = 240
_MOST_TERMS, _MOST_NAMES = 40, 32
_MOST_WEIGHT = 4.0  # A word that stands everywhere near the cursor is not ten times as telling.
_IDENTIFIER = re.compile(r"[^\W\d]\w+")


@dataclass(frozen=True, slots=True)
class Query:
    """Weighted terms, and names: those before the cursor, nearest first, then those after it. The word that is being
    typed is in neither, and no distance is counted in characters, so both stay the same until the word is done."""

    terms: tuple[tuple[str, float], ...]
    names: tuple[str, ...]


def query_at(text: str, cursor: int) -> Query:
    """The query of a cursor. Only about 2,000 characters around it are looked at."""
    begin, near = _line_before(text, cursor, _CHARS_BEFORE), _line_before(text, cursor, _NEAR_CHARS)
    end = text.find("\n", min(len(text), cursor + _CHARS_AFTER), cursor + 2 * _CHARS_AFTER)
    end = min(len(text), cursor + 2 * _CHARS_AFTER) if end < 0 else end
    found = [
        (match.start(), match.group())
        for match in _IDENTIFIER.finditer(text, begin, end)
        if not match.start() <= cursor <= match.end()
    ]
    before = [name for start, name in reversed(found) if start < cursor]
    after = [name for start, name in found if start > cursor]
    names = dict.fromkeys((*before, *after))
    weights: dict[str, float] = {}
    for start, name in found:
        for term in terms_of(name):
            weights[term] = min(_MOST_WEIGHT, weights.get(term, 0.0) + (2.0 if start >= near else 1.0))
    terms = sorted(weights.items(), key=lambda each: (-each[1], each[0]))[:_MOST_TERMS]
    return Query(tuple(terms), tuple(names)[:_MOST_NAMES])


def _line_before(text: str, cursor: int, num_chars: int) -> int:
    """The start of the line so many characters before the cursor, or that place itself where lines are endless."""
    earliest = max(0, cursor - 2 * num_chars)
    found = text.rfind("\n", earliest, max(0, cursor - num_chars))
    return found + 1 if found >= 0 else earliest
