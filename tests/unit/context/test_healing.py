"""The word at the cursor is taken back whole, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.healing import heal
from zenray.model.tokenizer import ByteTokenizer


class WordTokenizer(ByteTokenizer):
    """Tokens of up to four bytes, cut every four bytes of the text: words and characters are cut anywhere."""

    def __init__(self) -> None:
        super().__init__(vocab_size=264)
        self._spelled: dict[int, bytes] = {}

    def _encode(self, text: str, data: bytes) -> list[int]:
        ids = []
        for at in range(0, len(data), 4):
            ids.append(1000 + len(self._spelled))
            self._spelled[ids[-1]] = data[at : at + 4]
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._spelled.get(token_id, b"")


@pytest.mark.parametrize(
    ("text", "healed"),
    [
        ("return", "return"[4:]),  # the first token always stays
        ("x = value", "value"),
        ("abc def", "def"),
        ("ab_x.long_na", ".long_na"),  # a token may begin before its word
        ("a + b +", ""),
        ("if x:\n    ", ""),
        ("if x:\n y", ""),  # never past a line end
        ("one", ""),
        ("wxyz" + "\u00e9" * 4, "\u00e9" * 4),
        ("xyz" + "\u00e9" * 4, ""),  # no token but the first begins with a whole character
    ],
)
def test_what_is_taken_back(text: str, healed: str) -> None:
    tokenizer = WordTokenizer()
    kept, forced = heal(tokenizer.encode(text), tokenizer)
    assert tokenizer.decode(kept) + forced == text
    assert forced == healed


@given(st.text(st.sampled_from(list("ab_1 .(\n\té漢🙂")), min_size=1, max_size=40))
def test_kept_tokens_and_healed_text_are_the_text(text: str) -> None:
    tokenizer = WordTokenizer()
    ids = tokenizer.encode(text)
    kept, healed = heal(ids, tokenizer)
    assert b"".join(map(tokenizer.token_bytes, kept)) + healed.encode() == text.encode()
    assert kept == ids[: len(kept)]
    assert len(kept) >= 1
    assert len(ids) - len(kept) <= 3
    assert "\n" not in healed
    if healed:
        assert healed[-1].isalnum() or healed[-1] == "_"


def test_a_control_token_is_never_taken_back() -> None:
    tokenizer = WordTokenizer()
    assert heal([*tokenizer.encode("word"), 258], tokenizer) == ([*range(1000, 1001), 258], "")
