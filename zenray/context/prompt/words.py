"""Words of code: identifiers and what they are made of."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

_IDENTIFIER = re.compile(r"[^\W\d]\w+")
_SUBWORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+")
_LONGEST_IDENTIFIER = 64  # Anything longer is data, not a name.


@lru_cache(maxsize=1 << 16)
def terms_of(identifier: str) -> tuple[str, ...]:
    """The identifier itself and, where it is made of several words, these: `parseURL` gives parseurl, parse, url."""
    if len(identifier) > _LONGEST_IDENTIFIER:
        return ()
    parts = [part.lower() for part in _SUBWORD.findall(identifier) if len(part) > 1]
    whole = identifier.lower()
    return (whole, *parts) if parts != [whole] else (whole,)


def count_identifiers(text: str) -> Counter[str]:
    """How often each identifier occurs. Words in comments and strings count too: they tell what code is about."""
    return Counter(_IDENTIFIER.findall(text))
