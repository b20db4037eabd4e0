"""What a stage puts into a row is what the next one takes out, even after the way as text."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.rows import canonical_json
from zenray.batch.unit_tests.codec import from_row, to_row
from zenray.batch.unit_tests.model import Candidates, MinedFunction, Mutant, Provenance, Skipped, SuiteScores


@pytest.fixture(autouse=True)
def values_as_they_can_be() -> Iterator[None]:
    """Text was read as UTF-8, so has no lone surrogates; a share is a number."""
    st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    st.register_type_strategy(float, st.floats(0, 1))
    yield
    st.register_type_strategy(str, st.text())
    st.register_type_strategy(float, st.floats())


@pytest.mark.parametrize("cls", [MinedFunction, Candidates, SuiteScores, Skipped, Mutant])
def test_every_value_survives_the_way_through_json(cls: type) -> None:
    @given(st.from_type(cls))
    def survives(value: object) -> None:
        row = json.loads(canonical_json(to_row(value)))
        assert from_row(cls, row) == value
        assert canonical_json(to_row(from_row(cls, row))) == canonical_json(row)

    survives()


def test_what_does_not_fit_is_named() -> None:
    row = to_row(Provenance("repo", "1", "a.py", 1, 2))
    with pytest.raises(ValueError, match="start_line"):
        from_row(Provenance, {**row, "start_line": "first"})
