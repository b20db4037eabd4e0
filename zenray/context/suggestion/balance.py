"""Brackets of a completion against those around the cursor."""

from __future__ import annotations

from zenray.context.suggestion.lexing import CLOSER_OF, OPENER_OF, Bracket, brackets, unmatched
from zenray.context.suggestion.open_brackets import open_at_cursor
from zenray.context.suggestion.seams import cut_before, indentation

_SEARCHED_CHARACTERS = 8192


def without_surplus_closers(text: str, before: str, after: str, language: str) -> str:
    """`text` cut before closers that end it and that the text behind the cursor has, or that close nothing."""
    sees_all = len(before) <= _SEARCHED_CHARACTERS
    before, after = before[-_SEARCHED_CHARACTERS:], after[:_SEARCHED_CHARACTERS]
    read = brackets(language, before)
    surrounding = open_at_cursor(language, before, after, read)
    found = brackets(language, before + text, read.resume).found
    for bracket in unmatched([bracket for bracket in found if bracket.position >= len(before)])[0]:
        at = bracket.position - len(before)
        if not surrounding and not sees_all:
            return text
        if not surrounding or surrounding[-1].closer != bracket.character or surrounding[-1].is_closed:
            is_end = all(character in OPENER_OF or character in ";, \t\r\n" for character in text[at:])
            return text[: cut_before(text, at, after)] if is_end else text
        surrounding = surrounding[:-1]
    return text


def leaves_open(text: str, before: str, language: str) -> bool:
    """Whether `text` opens a bracket that it does not close."""
    return bool(_own_openers(text, before[-_SEARCHED_CHARACTERS:], language))


def with_own_closers(text: str, before: str, after: str, language: str) -> str:
    """`text` with the closers of the brackets it opened itself, a brace on a line of its own, unless what follows
    begins with one of them."""
    before = before[-_SEARCHED_CHARACTERS:]
    openers = _own_openers(text, before, language)
    if any(CLOSER_OF[opener.character] == after.lstrip()[:1] for opener in openers):
        return text
    for opener in reversed(openers):
        source = before + text
        line = source[source.rfind("\n", 0, opener.position) + 1 :]
        is_block = opener.character == "{" and "\n" in line.rstrip()
        text += ("\n" + indentation(line) if is_block else "") + CLOSER_OF[opener.character]
    return text


def _own_openers(text: str, before: str, language: str) -> list[Bracket]:
    """At their positions in `before + text`."""
    found = brackets(language, before + text, brackets(language, before).resume).found
    return unmatched([bracket for bracket in found if bracket.position >= len(before)])[1]
