"""Counts of tokens as ranks, as a prior, as bytes in a footer."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import steady
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.errors import OutputDamaged

counts = st.lists(st.one_of(st.just(0), st.integers(0, 300), st.integers(0, 2**62)), min_size=1, max_size=400)


@steady
@given(counts)
@example([0])
@example([2**63 - 1, 0, 0])
def test_bytes_bring_it_back(numbers: list[int]) -> None:
    vocabulary = Vocabulary(np.array(numbers))
    again = Vocabulary.from_bytes(vocabulary.to_bytes())
    assert again == vocabulary and again.digest == vocabulary.digest
    assert again.counts_V.tolist() == numbers


@steady
@given(counts)
def test_frequent_tokens_have_low_ranks(numbers: list[int]) -> None:
    vocabulary = Vocabulary(np.array(numbers))
    expected = sorted(range(len(numbers)), key=lambda token_id: (-numbers[token_id], token_id))
    assert vocabulary.ids_V.tolist() == expected
    assert vocabulary.ids_at(vocabulary.ranks_V).tolist() == list(range(len(numbers)))


@steady
@given(counts)
def test_the_prior_is_a_distribution_that_excludes_nothing_and_keeps_the_order(numbers: list[int]) -> None:
    prior_V = Vocabulary(np.array(numbers)).prior_V
    assert prior_V.sum() == pytest.approx(1.0) and prior_V.min() > 0
    assert (np.diff(prior_V[np.argsort(numbers)]) >= 0).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02\x01\x00",  # Another version.
        b"\x01\x00\x00",  # No ids.
        b"\x01\x02\x02\x01\x00\x05\x05",  # One id twice.
        b"\x01\x02\x01\x02\x05",  # An id beyond the last.
        b"\x01\x02\x01\x01\x00",  # A count of nothing.
        b"\x81\x00\x02\x00",  # Another spelling of 1.
        b"\x01\x02\x00\x80",  # A number without an end.
        b"\xff" * 12 + b"\x01",
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(OutputDamaged):
        Vocabulary.from_bytes(data)


@steady
@given(st.binary(max_size=40).map(lambda tail: b"\x01\x20" + tail))
def test_whatever_is_accepted_is_in_its_own_spelling(data: bytes) -> None:
    with contextlib.suppress(OutputDamaged):
        assert Vocabulary.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("ranks", [[3], [-1], [0, 2**40]])
def test_a_rank_beyond_the_last_is_damage(ranks: list[int]) -> None:
    with pytest.raises(OutputDamaged, match="of a vocabulary of 3"):
        Vocabulary(np.array([5, 0, 1])).ids_at(np.array(ranks))


def test_counts_are_one_number_for_each_id() -> None:
    for wrong in (np.zeros(0), np.zeros((2, 2)), np.array([1, -1])):
        with pytest.raises(ValueError, match="from 0 on"):
            Vocabulary(wrong)
