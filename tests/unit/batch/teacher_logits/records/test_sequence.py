"""A row of a shard: whatever happens to it shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import VOCAB_SIZE, random_rows, random_vocabulary, steady
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.sequence import (
    CHECKSUM,
    TOKEN_RANKS,
    decode_hidden,
    decode_sequence,
    encode_hidden,
    encode_sequence,
    hidden_fields,
    sequence_fields,
)
from zenray.errors import OutputDamaged

FORMAT, VOCABULARY, NUM_TOKENS, NUM_SCORED = parse_format("compact-48"), random_vocabulary(1), 7, 5
TOKEN_IDS_T = np.random.default_rng(0).integers(0, VOCAB_SIZE, NUM_TOKENS)
ROWS = random_rows(1, NUM_SCORED, FORMAT.score_format, hidden_width=3)
VALUES = encode_sequence("row", TOKEN_IDS_T, ROWS, FORMAT, VOCABULARY, 1)
HIDDEN = encode_hidden("row", ROWS.hidden)


def decode(values: dict[str, bytes], row_id: str = "row") -> np.ndarray:
    token_ids_T, rows = decode_sequence(row_id, values, NUM_TOKENS, NUM_SCORED, FORMAT, VOCABULARY)
    assert rows.num_rows == NUM_SCORED
    return token_ids_T


def test_tokens_come_back_and_every_column_is_declared() -> None:
    assert decode(VALUES).tolist() == TOKEN_IDS_T.tolist()
    assert [field.name for field in sequence_fields(FORMAT)] == list(VALUES)
    assert [field.name for field in hidden_fields((2,))] == list(HIDDEN)


@steady
@given(st.sampled_from(sorted(VALUES)), st.data())
def test_every_flipped_bit_is_found(name: str, data: st.DataObject) -> None:
    flipped = bytearray(VALUES[name])
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(OutputDamaged, match="row row: its columns do not have its checksum"):
        decode({**VALUES, name: bytes(flipped)})


def test_another_rows_values_and_exchanged_columns_are_found() -> None:
    with pytest.raises(OutputDamaged, match="checksum"):
        decode(VALUES, "another")
    gold, entropies = VALUES["entropies"], VALUES["gold_logprobs"]
    with pytest.raises(OutputDamaged, match="checksum"):
        decode({**VALUES, "gold_logprobs": gold, "entropies": entropies})


def test_a_sequence_of_another_length_is_refused() -> None:
    for num_tokens, num_scored in ((NUM_TOKENS + 1, NUM_SCORED), (NUM_TOKENS, NUM_SCORED - 1)):
        with pytest.raises(OutputDamaged, match="bytes"):
            decode_sequence("row", VALUES, num_tokens, num_scored, FORMAT, VOCABULARY)


def test_hidden_states_come_back_or_are_refused() -> None:
    states = decode_hidden("row", HIDDEN, (2,), NUM_SCORED)[2]
    assert np.array_equal(states.values_RD, ROWS.hidden[2].values_RD) and states.values_RD.dtype == np.int8
    assert np.array_equal(states.scales_R, ROWS.hidden[2].scales_R)
    for name, data in HIDDEN.items():
        with pytest.raises(OutputDamaged, match="checksum"):
            decode_hidden("row", {**HIDDEN, name: bytes([data[0] ^ 1]) + data[1:]}, (2,), NUM_SCORED)
    with pytest.raises(OutputDamaged, match="bytes"):
        decode_hidden("row", HIDDEN, (2,), NUM_SCORED + 1)


FOOTER = Footer(FORMAT, VOCABULARY, {"name": "teacher", "sha256": "0" * 64}, "1" * 64, "2" * 64, (0, 2))


def test_a_footer_says_how_to_read_in_plain_text() -> None:
    metadata = FOOTER.to_metadata()
    assert Footer.from_metadata(metadata) == FOOTER
    assert all(key.startswith(b"zenray.records.") and value.isascii() for key, value in metadata.items())


@pytest.mark.parametrize("key", sorted(FOOTER.to_metadata()))
def test_a_footer_with_something_missing_or_meaningless_is_refused(key: bytes) -> None:
    metadata = FOOTER.to_metadata()
    with pytest.raises(OutputDamaged, match=key.decode()):
        Footer.from_metadata({name: value for name, value in metadata.items() if name != key})
    with pytest.raises(OutputDamaged):
        Footer.from_metadata({**metadata, key: b"\xff"})
    with pytest.raises(OutputDamaged):
        Footer.from_metadata(None)


def test_tokens_are_kept_as_ranks() -> None:
    """Frequent ones have small numbers, so that the upper planes are zeros."""
    assert VALUES[TOKEN_RANKS][2 * NUM_TOKENS :] == bytes(NUM_TOKENS)
    assert len(VALUES[CHECKSUM]) == 8
