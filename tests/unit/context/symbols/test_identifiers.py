"""The words around a cursor that may name something."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.symbols import identifiers_near

TEXT = """\
import shapes

def area(circle):
    if circle is None:
        return self.radius
    total = shapes.ring(circle)
    return total * |factor

class After:
    pass
"""
CURSOR = TEXT.index("|")


def test_nearest_come_first_and_keywords_never() -> None:
    names = identifiers_near(TEXT.replace("|", ""), CURSOR, "python", 10)
    assert names == ["factor", "total", "circle", "ring", "After", "shapes", "radius", "area"]


def test_the_limit_keeps_the_nearest() -> None:
    assert identifiers_near(TEXT.replace("|", ""), CURSOR, "python", 2) == ["factor", "total"]
    assert identifiers_near(TEXT, CURSOR, "python", 0) == []


@pytest.mark.parametrize(
    ("language_id", "text", "names"),
    [
        ("rust", "pub fn grow(&mut self, by: u32)", ["by", "grow"]),
        ("go", "func (t *Tree) Grow(by int) error", ["error", "by", "Grow", "Tree", "t"]),
        ("javascript", "const größe = async () => await naïve", ["naïve", "größe"]),
        ("crystal", "def grow(by) return self end", ["by", "grow"]),
        ("never heard of", "if x then y else z", ["z", "y", "x"]),
    ],
)
def test_keywords_are_those_of_the_language(language_id: str, text: str, names: list[str]) -> None:
    found = identifiers_near(text, len(text), language_id, 10)
    assert [name for name in found if name not in ("u32", "int")] == names


def test_a_word_cut_by_the_window_is_no_identifier() -> None:
    text = "a" * 1_000_000
    assert identifiers_near(text, 500_000, "python", 10) == []
    assert identifiers_near(text + " tail", len(text) + 5, "python", 10) == ["tail"]


def test_only_what_is_near_counts_in_a_long_text() -> None:
    text = "far " * 250_000 + "near " + "far2 " * 250_000
    names = identifiers_near(text, text.index("near"), "plaintext", 10)
    assert names == ["near", "far", "far2"]


@given(st.text(), st.data(), st.sampled_from(["python", "cpp", "plaintext", ""]), st.integers(0, 20))
def test_any_cursor_gives_words_of_the_text_each_once(
    text: str, data: st.DataObject, language: str, limit: int
) -> None:
    offset = data.draw(st.integers(0, len(text)))
    names = identifiers_near(text, offset, language, limit)
    assert len(names) == len(set(names)) <= limit
    assert set(names) <= set(re.findall(r"\w+", text))
