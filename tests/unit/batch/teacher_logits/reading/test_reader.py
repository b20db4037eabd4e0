"""What was recorded is read, or an error says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.records_examples import steady, write_dump
from zenray.batch.output.layout import JOURNAL, SHARDS, shard_path
from zenray.batch.teacher_logits.reading.reader import RecordReader
from zenray.errors import NotFound, OutputDamaged


@pytest.mark.parametrize("format_name", ["compact-48", "top-20"])
def test_sequences_come_in_their_order_with_segments_records_and_hidden_states(
    tmp_path: Path, format_name: str
) -> None:
    recorded = write_dump(tmp_path / "out", 8, 3, format_name, with_error=[4], hidden_width=3)
    reader = RecordReader(tmp_path / "out", hidden=True)
    assert reader.complete and reader.shards == (0, 1, 2) and reader.footer.record_format.name == format_name
    found = list(reader)
    expected = [each for index, each in enumerate(recorded) if index != 4]
    assert reader.num_scored >= sum(each.rows.num_rows for each in found) > 0
    assert sum(map(reader.num_rows, reader.shards)) == 8
    for read, (sequence, rows) in zip(found, expected, strict=True):
        assert read.row_id == sequence.row_id and read.segments == sequence.segments
        assert np.allclose(read.rows.gold_logprobs_R, rows.gold_logprobs_R.clip(min=-128), atol=2e-3)
        assert np.array_equal(read.rows.hidden[2].values_RD, rows.hidden[2].values_RD)


def test_every_record_knows_its_place_in_the_sequence_and_in_its_segment(tmp_path: Path) -> None:
    recorded = write_dump(tmp_path / "out", 8, 8)
    assert any(len(sequence.segments) > 1 for sequence, _ in recorded)
    for read, (sequence, rows) in zip(RecordReader(tmp_path / "out"), recorded, strict=True):
        positions, start, taken = [], 0, 0
        for segment, of_segment in read.by_segment():
            assert of_segment.first_position == segment.first_scored and of_segment.num_rows == segment.num_scored
            entropies_R = rows.entropies_R[taken : taken + of_segment.num_rows]
            assert np.allclose(of_segment.entropies_R, entropies_R, atol=2e-3)
            positions += range(start + segment.first_scored, start + len(segment.token_ids))
            start, taken = start + len(segment.token_ids), taken + of_segment.num_rows
        assert read.scored_positions_R.tolist() == positions
        assert taken == sequence.num_scored == read.rows.num_rows and start == len(read.token_ids_T)


def test_a_growing_output_is_read_as_far_as_it_is_finished(tmp_path: Path) -> None:
    recorded = write_dump(tmp_path / "out", 8, 3, shards=[1])
    reader = RecordReader(tmp_path / "out")
    assert not reader.complete and reader.shards == (1,)
    assert [each.row_id for each in reader] == [sequence.row_id for sequence, _ in recorded[3:6]]


def test_an_output_without_shards_or_hidden_states_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputDamaged, match="nothing was begun"):
        RecordReader(tmp_path / "none")
    write_dump(tmp_path / "empty", 8, 3, shards=[])
    with pytest.raises(OutputDamaged, match="no finished shard yet"):
        RecordReader(tmp_path / "empty")
    write_dump(tmp_path / "out", 2, 3)
    with pytest.raises(NotFound, match="hidden"):
        list(RecordReader(tmp_path / "out", hidden=True))


@settings(steady, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_a_flipped_byte_or_a_cut_file_is_always_found(whole: Path, data: st.DataObject) -> None:
    path = whole / data.draw(st.sampled_from([f"{SHARDS}/part-00000.parquet", "hidden/part-00001.parquet"]))
    bytes_before = path.read_bytes()
    place = data.draw(st.integers(0, len(bytes_before) - 1))
    flipped = bytearray(bytes_before)
    flipped[place] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(data.draw(st.sampled_from([bytes(flipped), bytes_before[:place]])))
        with pytest.raises(OutputDamaged, match="has changed since it was written"):
            list(RecordReader(whole, hidden=True))
    finally:
        path.write_bytes(bytes_before)


def test_a_shard_in_anothers_place_is_found(tmp_path: Path) -> None:
    write_dump(tmp_path / "out", 6, 3)
    first, second = (shard_path(tmp_path / "out", index) for index in (0, 1))
    second.write_bytes(first.read_bytes())
    with pytest.raises(OutputDamaged, match="has changed"):
        list(RecordReader(tmp_path / "out"))


def test_a_list_that_is_wrong_about_rows_is_found(tmp_path: Path) -> None:
    """A journal has no checksum, and one row fewer is one that nobody would miss."""
    write_dump(tmp_path / "out", 8, 3, shards=[1])
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'"rows":3', b'"rows":2'))
    with pytest.raises(OutputDamaged, match="shard 1: 3 rows, listed are 2"):
        list(RecordReader(tmp_path / "out"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("dump") / "out"
    write_dump(output, 6, 3, hidden_width=3)
    return output
