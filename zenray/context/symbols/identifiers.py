"""Identifiers around a cursor."""

from __future__ import annotations

import re
from functools import lru_cache

from zenray.context.languages.grammars import grammar

_WINDOW_BEFORE = 2500
_WINDOW_AFTER = 1000
_IDENTIFIER = re.compile(r"\b[^\W\d]\w*")
_KEYWORD = re.compile(r"[A-Za-z_]+")
_NEVER_DEFINED = frozenset(
    """self this super true false True False None null nil undefined NULL bool boolean byte char double float int long
    mut short str string unsigned void i8 i16 i32 i64 u8 u16 u32 u64 isize usize f32 f64 int8_t int16_t int32_t int64_t
    uint8_t uint16_t uint32_t uint64_t size_t""".split()  # noqa: SIM905 - words read better than quotes
)
"""Constants and plain types that grammars have no keyword for."""
_COMMON_KEYWORDS = _NEVER_DEFINED | frozenset(
    """and as async await begin break case catch class const continue def default do else elif elsif end enum except
    export extends finally fn for from func function if implements import in interface is let local match module
    namespace new not or package pass private protected public return static struct switch then throw try type union
    use using val var void when where while with yield""".split()  # noqa: SIM905 - words read better than quotes
)


def identifiers_near(text: str, offset: int, language_id: str, limit: int = 50) -> list[str]:
    """Up to `limit` different identifiers around code point `offset`, nearest first, keywords left out.

    Looks at 2,500 characters before and 1,000 behind, however long the text is. Those before count as nearer: what
    follows the cursor was written about something else more often.
    """
    start, end = max(0, offset - _WINDOW_BEFORE), min(len(text), offset + _WINDOW_AFTER)
    keywords = _keywords(language_id)
    distances: dict[str, int] = {}
    for match in _IDENTIFIER.finditer(text, start, end):
        first, last = match.span()
        name = match[0]
        if name in keywords or (last == end < len(text) and (text[end] == "_" or text[end].isalnum())):
            continue
        distance = offset - last if last <= offset else max(0, 2 * (first - offset))
        if distance < distances.get(name, distance + 1):
            distances[name] = distance
    return sorted(distances, key=distances.__getitem__)[:limit]


@lru_cache(maxsize=256)
def _keywords(language_id: str) -> frozenset[str]:
    """The words a grammar spells out; common ones where there is no grammar."""
    rules = grammar(language_id)
    if rules is None:
        return _COMMON_KEYWORDS
    words = (
        rules.node_kind_for_id(id)
        for id in range(rules.node_kind_count)
        if rules.node_kind_is_visible(id) and not rules.node_kind_is_named(id)
    )
    return _NEVER_DEFINED | {word for word in words if word and _KEYWORD.fullmatch(word)}
