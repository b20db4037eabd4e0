"""A shard's rows as they travel between stages: one Arrow row of the shard's index and JSON text.

One Arrow row per shard is what keeps a shard whole: Ray Data may split, join and reorder blocks of rows, never a row.
JSON text, because nested Arrow types change what they carry (missing keys become nulls, integers become floats).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from zenray.batch.rows import Row, canonical_json

INDEX = "shard"
TEXT = "rows"
_SCHEMA = pa.schema([pa.field(INDEX, pa.int64()), pa.field(TEXT, pa.large_binary())])


def encode_row(row: Row) -> bytes:
    """Raises ValueError, TypeError for what JSON cannot carry."""
    return canonical_json(row).encode()


def to_block(index: int, rows: Sequence[bytes]) -> pa.Table:
    """A block of one shard, of rows that `encode_row` made."""
    return pa.table({INDEX: [index], TEXT: [b"\n".join(rows)]}, schema=_SCHEMA)


def from_block(block: pa.Table) -> tuple[int, list[bytes]]:
    """The shard's index and its encoded rows."""
    assert block.num_rows == 1
    return int(block[INDEX][0].as_py()), bytes(block[TEXT][0].as_py()).split(b"\n")


def decode_row(data: bytes) -> Row:
    row: Row = json.loads(data)
    return row
