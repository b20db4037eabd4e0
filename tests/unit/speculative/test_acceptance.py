"""What is learned from accepted and rejected tokens, over the engine and in one sequence."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.speculative.acceptance import ANY_CLASS, NEUTRAL_ACCEPTANCE, AcceptanceBook, count_matching

RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["suffix", "recycling"]),
        st.lists(st.integers(0, 15), max_size=8),
        st.integers(0, 8),
        st.integers(0, 4),
    ),
    max_size=60,
)


@given(RECORDS)
def test_estimates_are_never_certain(records: list[tuple[str, list[int], int, int]]) -> None:
    book = AcceptanceBook()
    for drafter, classes, num_accepted, key in records:
        book.record(drafter, classes, min(num_accepted, len(classes)), key)
        book.end_round(key)
    for drafter in ("suffix", "recycling", "unheard of"):
        for key in (None, 0, 4, 99):
            probabilities = [book.probability(drafter, class_, key) for class_ in range(ANY_CLASS, 16)]
            assert all(0 < probability < 1 for probability in probabilities)
            survivals = book.survivals(drafter, range(16), key)
            assert survivals == sorted(survivals, reverse=True)


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9, 0.99])
def test_a_class_is_learned(chance: float) -> None:
    book, rng = AcceptanceBook(), random.Random(0)
    for key in range(2000):
        book.record("suffix", [3], int(rng.random() < chance), key)
        book.forget(key)
    assert book.probability("suffix", 3) == pytest.approx(chance, abs=0.12)
    assert book.probability("suffix", ANY_CLASS) == book.probability("suffix", 3)
    assert book.probability("suffix", 4) == NEUTRAL_ACCEPTANCE == book.probability("recycling", 3)


def test_only_tokens_up_to_the_first_rejected_one_are_evidence() -> None:
    book = AcceptanceBook()
    book.record("suffix", [0, 1, 2, 3], 1, key=1)
    assert book.probability("suffix", 0) > NEUTRAL_ACCEPTANCE > book.probability("suffix", 1)
    assert book.probability("suffix", 2) == NEUTRAL_ACCEPTANCE == book.probability("suffix", 3)


def test_a_token_behind_what_was_committed_is_no_evidence() -> None:
    book = AcceptanceBook()
    book.record("suffix", [0, 1, 2], 1, key=1, num_seen=1)
    assert book.probability("suffix", 0) > NEUTRAL_ACCEPTANCE
    assert book.probability("suffix", 1) == NEUTRAL_ACCEPTANCE


def test_a_sequence_follows_its_own_text_within_a_few_tokens() -> None:
    book = AcceptanceBook()
    for _ in range(100):
        book.record("suffix", [0] * 4, 4, key="good")
    assert book.probability("suffix", 0, "new") == book.probability("suffix", 0) > 0.95
    for _ in range(4):
        book.record("suffix", [0] * 4, 0, key="bad")
        book.end_round("bad")
    assert book.probability("suffix", 0, "bad") < 0.55
    assert book.probability("suffix", 0, "new") > 0.9


def test_what_a_sequence_knew_fades_with_its_rounds() -> None:
    book = AcceptanceBook()
    for _ in range(100):
        book.record("suffix", [0] * 4, 4, key="good")
    for _ in range(8):
        book.record("suffix", [0], 0, key="bad")
        book.end_round("bad")
    fresh = book.probability("suffix", 0, "bad")
    for _ in range(200):
        book.end_round("bad")
    assert fresh < 0.4 < 0.75 < book.probability("suffix", 0, "bad")


def test_a_drafter_that_changes_is_judged_anew() -> None:
    book = AcceptanceBook()
    for key in range(1000):
        book.record("suffix", [0], 1, key)
    for key in range(300):
        book.record("suffix", [0], 0, key)
    assert book.probability("suffix", 0) < 0.15


def test_memory_is_bounded_and_sequences_are_forgotten() -> None:
    book = AcceptanceBook(max_sequences=2)
    for key in ("first", "second", "third"):
        for _ in range(20):
            book.record("suffix", [0], 0, key)
    engine = book.probability("suffix", 0)
    assert book.probability("suffix", 0, "first") == engine > book.probability("suffix", 0, "third")
    book.forget("third")
    assert book.probability("suffix", 0, "third") == engine


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_matching_tokens_are_the_common_prefix(drafted: list[int], committed: list[int]) -> None:
    count = count_matching(drafted, committed)
    assert drafted[:count] == committed[:count]
    assert count == min(len(drafted), len(committed)) or drafted[count] != committed[count]
