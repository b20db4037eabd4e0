"""Token healing: the last token before the cursor is taken back, for the model to write anew.

Text up to the cursor rarely ends where a token of the whole text would: after `retu` the tokenizer made `ret` and `u`,
and what follows `u` in the model's experience is not `rn`. So the prompt ends one token earlier and the completion is
forced to begin with what that token stood for (`zenray.engine.forcing`).
"""

from __future__ import annotations

from collections.abc import Sequence

from zenray.context.tokens import PromptTokenizer

_MOST_TOKENS = 3
"""A word typed halfway is seldom cut into more."""


def heal(token_ids: Sequence[int], tokenizer: PromptTokenizer) -> tuple[list[int], str]:
    """The tokens that stay, at least one, and the text that the completion must begin with; empty: nothing to heal.

    Taken back are the tokens of the word that the cursor stands in or behind, at most `_MOST_TOKENS`. Behind anything
    else the text stays as it is: a token that ends there usually ends well, and a line end or an indentation taken
    back would let the model leave its line.
    """
    healed = b""
    found = (len(token_ids), "")
    for at in range(len(token_ids) - 1, max(0, len(token_ids) - 1 - _MOST_TOKENS), -1):
        token_bytes = tokenizer.token_bytes(token_ids[at])
        healed = token_bytes + healed
        text = _decoded(healed)
        if not token_bytes or (text is not None and (not _is_word(text[-1]) or "\n" in text or "\r" in text)):
            break
        if text is None:
            continue  # The token begins inside a character; the one before it has the rest.
        found = (at, text)
        if not _is_word(text[0]) or not _ends_in_word(tokenizer.token_bytes(token_ids[at - 1])):
            break
    kept, forced_text = found
    return list(token_ids[:kept]), forced_text


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _ends_in_word(token_bytes: bytes) -> bool:
    """Whether a token may be part of the word behind it; bytes of unfinished characters are taken for letters."""
    last = token_bytes[-1:]
    return last.isalnum() or last == b"_" or last >= b"\x80"
