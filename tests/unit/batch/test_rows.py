"""Ids and seeds are functions of content, and different contents have different ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.rows import canonical_json, derive_seed, row_id, row_ids_digest

ANY_TEXT = st.text(st.characters(), max_size=6)  # Lone surrogates too: file names and models produce them.
PARTS = st.lists(ANY_TEXT, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(PARTS, PARTS)
def test_ids_are_equal_exactly_if_the_parts_are(some: list[str], others: list[str]) -> None:
    assert (row_id(*some) == row_id(*others)) == (some == others)


@given(st.text(max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_where_a_text_is_cut_into_parts_is_part_of_the_id(text: str, one: int, other: int) -> None:
    """Nothing collides by being put together: ("ab", "c") is not ("a", "bc")."""
    one, other = min(one, len(text)), min(other, len(text))
    assert (row_id(text[:one], text[one:]) == row_id(text[:other], text[other:])) == (one == other)
    assert row_id(text) != row_id(text, "") != row_id("", text, "")


@given(PARTS)
def test_an_id_is_32_hexadecimal_digits(parts: list[str]) -> None:
    assert len(row_id(*parts)) == 32 and set(row_id(*parts)) <= set("0123456789abcdef")


@given(st.integers(), ANY_TEXT, ANY_TEXT, st.integers(0, 100))
def test_a_seed_is_a_positive_signed_64_bit_number(job_seed: int, row: str, purpose: str, attempt: int) -> None:
    assert 0 <= derive_seed(job_seed, row, purpose, attempt) < 2**63


SEED_OF = st.tuples(st.integers(), ANY_TEXT, ANY_TEXT, st.integers(0, 100))


@given(SEED_OF, SEED_OF)
def test_requests_have_one_seed_exactly_if_they_are_one(
    some: tuple[int, str, str, int], others: tuple[int, str, str, int]
) -> None:
    assert (derive_seed(*some) == derive_seed(*others)) == (some == others)


def test_seeds_use_all_their_bits() -> None:
    """Each of 63 bits is set in about half of 4000 seeds: within six standard deviations (32 each)."""
    seeds = [derive_seed(1, row_id(str(row)), "test", attempt) for row in range(1000) for attempt in range(4)]
    assert len(set(seeds)) == len(seeds)
    for bit in range(63):
        assert abs(sum(seed >> bit & 1 for seed in seeds) - 2000) < 6 * 32


def test_ids_and_seeds_are_what_they_have_always_been() -> None:
    """Changing these orphans every output there is."""
    assert row_id("a", "bc") == "04b459d9efb51b753080ef99d18fb461"
    assert derive_seed(7, "row", "test", 2) == 2099538970807679808
    assert row_ids_digest(["a", "b"]) == "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"


def test_another_process_with_another_hash_seed_agrees() -> None:
    code = (
        "from zenray.batch.rows import *\n"
        "print(row_id('a', 'é'), derive_seed(3, 'r', 'p', 1), canonical_json({'b': 'x', 'a': [1.5, None]}))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert seen == {f"{row_id('a', 'é')} {derive_seed(3, 'r', 'p', 1)} " + '{"a":[1.5,null],"b":"x"}\n'}


@given(st.lists(ANY_TEXT.filter(lambda text: "\n" not in text and text.isprintable()), max_size=5), st.data())
def test_the_digest_of_ids_depends_on_their_order(row_ids: list[str], data: st.DataObject) -> None:
    others = data.draw(st.permutations(row_ids))
    assert (row_ids_digest(row_ids) == row_ids_digest(others)) == (row_ids == others)


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5), st.randoms(use_true_random=False))
def test_equal_values_have_one_spelling(value: dict[str, object], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    text = canonical_json(value)
    assert canonical_json(dict(items)) == text == canonical_json(json.loads(text))
    assert json.loads(text) == value


def test_texts_that_no_encoding_has_are_carried() -> None:
    text = canonical_json({"name": "\udcff"})
    assert json.loads(text.encode()) == {"name": "\udcff"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(number: float) -> None:
    with pytest.raises(ValueError):
        canonical_json({"x": number})
