"""Sequences travel as JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.rows import canonical_json
from zenray.batch.teacher_logits.codec import from_row, to_row
from zenray.batch.teacher_logits.model import Mode, PackedSequence, Segment

TEXT = st.text(max_size=5)
SEGMENTS = st.builds(
    Segment,
    token_ids=st.lists(st.integers(0, 2**32 - 1), max_size=9),
    first_scored=st.integers(1, 9),
    mode=st.sampled_from(Mode),
    language=TEXT,
    path=TEXT,
    repository=TEXT,
    revision=TEXT,
    licence_file=TEXT,
    window=st.integers(0, 9),
)
SEQUENCES = st.builds(PackedSequence, row_id=TEXT, segments=st.lists(SEGMENTS, max_size=3).map(tuple))


@given(SEQUENCES)
def test_a_row_is_read_back_as_it_was_whatever_stages_added(sequence: PackedSequence) -> None:
    row = to_row(sequence)
    travelled = json.loads(canonical_json({**row, "records": "AAAA"}))
    assert from_row(travelled) == sequence
    assert row["row_id"] == sequence.row_id


def test_token_ids_are_little_endian_on_every_machine() -> None:
    segment = Segment((1, 2**24 + 2), 1, Mode.PLAIN, "python", "a.py", "r", "", "", 0)
    assert to_row(PackedSequence("id", (segment,)))["segments"][0]["token_ids"] == "AQAAAAIAAAE="
