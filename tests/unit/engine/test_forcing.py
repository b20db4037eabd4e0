"""What may come next while the output must begin with given bytes: held against a look at every token."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from zenray.engine.forcing import TokenPrefixes, restrict
from zenray.model.tokenizer import ByteTokenizer

spellings = st.binary(min_size=1, max_size=4)


class ListedTokenizer(ByteTokenizer):
    """A vocabulary of listed spellings behind the bytes, of which several tokens may share one."""

    def __init__(self, listed: list[bytes]) -> None:
        super().__init__(vocab_size=264 + len(listed))
        self._listed = listed

    def token_bytes(self, token_id: int) -> bytes:
        return self._listed[token_id - 264] if token_id >= 264 else super().token_bytes(token_id)


@given(st.lists(st.one_of(spellings, st.binary(max_size=3).map(lambda tail: tail + b"\xff")), max_size=30), spellings)
def test_allowed_is_every_token_that_agrees_with_the_bytes(listed: list[bytes], remaining: bytes) -> None:
    tokenizer = ListedTokenizer(listed)
    agreeing = []
    for token_id in range(tokenizer.vocab_size):
        spelled = tokenizer.token_bytes(token_id)
        if spelled and (spelled.startswith(remaining) or remaining.startswith(spelled)):
            agreeing.append(token_id)
    assert sorted(TokenPrefixes(tokenizer).allowed(remaining)) == agreeing


def test_a_restricted_row_keeps_its_numbers_and_the_row_itself_is_untouched() -> None:
    row_V = torch.arange(6, dtype=torch.float32)
    restricted_V = restrict(row_V, [1, 4])
    assert restricted_V.tolist() == [float("-inf"), 1, float("-inf"), float("-inf"), 4, float("-inf")]
    assert row_V.tolist() == [0, 1, 2, 3, 4, 5]
