from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from zenray.speculative.copying import LONGEST_MATCH, Match, continuation, end_of, longest_match
from zenray.speculative.history import SEPARATOR, TokenArray, TokenText

TOKENS = st.lists(st.integers(0, 3), max_size=60)
TEXTS = st.lists(st.integers(-1, 3), max_size=60)


def array(token_ids: list[int]) -> TokenArray:
    return TokenText(token_ids).ids_N


def slow_match(text: list[int], end: list[int]) -> Match | None:
    """The definition, place by place: `text` begins with a separator, `end` is in reading order."""
    lengths = {}
    for position in range(1, len(text)):
        if text[position] == SEPARATOR:
            continue
        agreed = 0
        while agreed < len(end) and text[position - 1 - agreed] == end[-1 - agreed]:
            agreed += 1
        if agreed:
            lengths[position] = agreed
    if not lengths:
        return None
    longest = max(lengths.values())
    places = [position for position, length in lengths.items() if length == longest]
    counts = Counter(text[position] for position in places)
    best = max(places, key=lambda position: (counts[text[position]], position))
    return Match(longest, best, len(counts) == 1)


@given(TEXTS)
@example([0] * 60)
def test_the_longest_match_of_a_texts_own_end_is_found(token_ids: list[int]) -> None:
    text_N = array(token_ids)
    end_M = end_of(text_N)
    found = longest_match(text_N, end_M)
    assert found == slow_match(text_N.tolist(), end_M[::-1].tolist())
    if found is not None:
        assert found.position < len(text_N)


@given(TEXTS, TEXTS)
def test_the_longest_match_in_another_text_is_found(other: list[int], own: list[int]) -> None:
    other_N, end_M = array(other), end_of(array(own))
    assert longest_match(other_N, end_M) == slow_match(other_N.tolist(), end_M[::-1].tolist())


def test_in_a_long_text_the_longest_match_is_found_among_thousands_of_short_ones() -> None:
    rng = np.random.default_rng(0)
    phrase = [7, 8, 9, 1, 2, 3, 4, 5]
    token_ids = [*rng.integers(0, 10, 5_000).tolist(), *phrase, 42, *rng.integers(0, 10, 20_000).tolist(), *phrase]
    text_N = array(token_ids)
    found = longest_match(text_N, end_of(text_N))
    assert found is not None
    assert found.length >= len(phrase)
    assert text_N[found.position - len(phrase) : found.position].tolist() == phrase


def test_the_frequent_continuation_wins_and_of_its_places_the_latest() -> None:
    text_N = array([9, 5, 1, 9, 5, 1, 9, 5, 3, 9, 5])
    assert longest_match(text_N, end_of(text_N)) == Match(2, 6, is_unanimous=False)
    assert longest_match(array([5, 1, 5]), end_of(array([5, 1, 5]))) == Match(1, 2, is_unanimous=True)


@given(TEXTS)
def test_the_end_of_a_text_reaches_back_to_its_last_separator(token_ids: list[int]) -> None:
    end = end_of(array(token_ids))[::-1].tolist()
    *_, last_text = " ".join(map(str, token_ids)).split(str(SEPARATOR))
    assert end == [int(token_id) for token_id in last_text.split()][-LONGEST_MATCH:]


@given(TEXTS.filter(bool), st.data(), st.integers(1, 40))
def test_a_continuation_is_what_follows_and_repeats_itself_at_the_end(
    token_ids: list[int], data: st.DataObject, num_tokens: int
) -> None:
    text_N = array(token_ids)
    position = data.draw(st.integers(1, len(text_N) - 1))
    copied = continuation(text_N, position, num_tokens)
    # Written behind the text, every token of the copy equals the one as far back as the copy's start.
    grown = [*text_N.tolist(), *copied]
    distance = len(text_N) - position
    assert all(grown[len(text_N) + i] == grown[len(text_N) + i - distance] for i in range(len(copied)))
    assert len(copied) == num_tokens or SEPARATOR in text_N[position:].tolist()
    assert SEPARATOR not in copied
