"""What a text says of itself: its hash and, with its path, its language."""

from __future__ import annotations

import hashlib

from zenray.context.languages.registry import language_of

_FIRST_LINE_CHARACTERS = 256


def content_hash(text: str) -> str:
    """SHA-256 of the UTF-8 bytes in lower-case hex, as in the contracts."""
    return hashlib.sha256(text.encode()).hexdigest()


def guess_language(path: str, text: str) -> str:
    """The LSP language id that its path and first line suggest; empty when nothing is known about it."""
    return language_of(path, text[:_FIRST_LINE_CHARACTERS].partition("\n")[0])
