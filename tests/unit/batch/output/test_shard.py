"""A shard's bytes are a function of its rows."""

from __future__ import annotations

import random
import subprocess
import sys
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.batch.output.small_job import table
from zenray.batch.output.row_ids import RowIdCheck
from zenray.batch.output.shard import decode_shard, encode_shard, own_schema, shard_schema
from zenray.batch.rows import row_ids_digest
from zenray.errors import OutputDamaged

SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("blob", pa.large_binary(), metadata={"format": "planes"}),
        pa.field("score", pa.float64()),
        pa.field("counts", pa.list_(pa.int64())),
        pa.field("tests", pa.list_(pa.struct([("name", pa.string()), ("kept", pa.bool_())]))),
        pa.field("scale", pa.float16()),
        pa.field("digest", pa.binary(4)),
    ],
    metadata={"teacher": "tiny"},
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "row_id": st.text(st.characters(codec="utf-8"), max_size=8),
            "error": st.none() | st.text(st.characters(codec="utf-8"), max_size=8),
            "blob": st.none() | st.binary(max_size=300),
            "score": st.none() | st.floats(),
            "counts": st.none() | st.lists(st.integers(-5, 5), max_size=4),
            "tests": st.lists(st.fixed_dictionaries({"name": st.text(max_size=3), "kept": st.booleans()}), max_size=3),
            "scale": st.floats(width=16, allow_nan=False),
            "digest": st.binary(min_size=4, max_size=4),
        }
    ),
    max_size=12,
)


@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 12), max_size=4))
def test_neither_chunks_nor_slices_change_the_bytes(rows: list[dict[str, object]], cuts: list[int]) -> None:
    whole = pa.Table.from_pylist(rows, SCHEMA)
    ends = sorted(min(each, len(rows)) for each in [0, *cuts, len(rows)])
    pieces = [whole.slice(start, end - start) for start, end in pairwise(ends)]
    framed = pa.concat_tables([whole.slice(0, 1), whole, whole.slice(0, 1)]).slice(min(len(rows), 1), len(rows))
    data = encode_shard(whole, "job", 3, 5)
    assert encode_shard(pa.concat_tables(pieces), "job", 3, 5) == data
    assert encode_shard(framed, "job", 3, 5) == data


def test_chunks_do_not_move_the_pages_of_a_large_column() -> None:
    rng = random.Random(1)
    blobs = [rng.randbytes(rng.randint(1, 9000)) for _ in range(800)]
    whole = pa.table({"row_id": [str(row) for row in range(800)], "blob": blobs})
    pieces = pa.concat_tables([whole.slice(0, 300), whole.slice(300, 13), whole.slice(313)])
    assert encode_shard(pieces, "job", 0, 0) == encode_shard(whole, "job", 0, 0)


@settings(deadline=None)
@given(rows=ROWS)
def test_a_shard_reads_back_as_it_was_and_encodes_to_itself(rows: list[dict[str, object]]) -> None:
    before = pa.Table.from_pylist(rows, SCHEMA)
    data = encode_shard(before, "job", 3, 5)
    after = decode_shard(data)
    assert own_schema(after.schema).equals(SCHEMA, check_metadata=True) and shard_schema(data) == SCHEMA
    assert after.num_rows == before.num_rows
    assert encode_shard(after, "job", 3, 5) == data


def test_another_process_writes_the_same_bytes() -> None:
    code = (
        "from hashlib import sha256\n"
        "from tests.unit.batch.output.small_job import table\n"
        "from zenray.batch.output.shard import encode_shard\n"
        "print(sha256(encode_shard(table(1), 'job', 1, 2)).hexdigest())"
    )
    root = Path(__file__).parents[4]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed, "TZ": zone, "OMP_NUM_THREADS": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert seen == {sha256(encode_shard(table(1), "job", 1, 2)).hexdigest()}


def test_whose_shard_it_is_and_which_makes_other_bytes() -> None:
    ways = {encode_shard(table(1), job, index, tokens) for job in "ab" for index in (1, 2) for tokens in (3, 4)}
    assert len(ways) == 8


def test_every_page_has_a_checksum_and_blobs_have_no_statistics() -> None:
    data = encode_shard(table(0), "job", 0, 0)
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert columns["blob"].statistics is None and columns["row_id"].statistics is None
    assert columns["length"].statistics.max == 32
    start = columns["blob"].data_page_offset
    flipped = bytearray(data)
    flipped[start + columns["blob"].total_compressed_size - 1] ^= 1
    assert decode_shard(data).num_rows == 4
    with pytest.raises(OutputDamaged, match="CRC"):
        decode_shard(bytes(flipped))


@given(st.lists(st.text("ab", max_size=3), max_size=30), st.integers(1, 5))
def test_repeated_ids_are_told_by_their_places(row_ids: list[str], batch: int) -> None:
    check = RowIdCheck()
    for start in range(0, len(row_ids), batch):
        check.add(row_ids[start : start + batch])
    assert check.hexdigest == row_ids_digest(row_ids)
    last: dict[str, int] = {}
    expected = []
    for place, each in enumerate(row_ids):
        if each in last:
            expected.append((last[each], place))
        last[each] = place
    assert check.repeated() == sorted(expected)
