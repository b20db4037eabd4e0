"""A sequence as a row of a shard, and on its way there.

Between stage and driver rows are JSON, so binary values travel as base64: about 100 bytes a token before compression,
and 4/3 bytes for each number of a hidden state. Writing, checking and reading take 4 ns a byte together.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zenray.batch.rows import ERROR, ROW_ID, Row
from zenray.batch.teacher_logits.codec import SEGMENTS, from_row
from zenray.batch.teacher_logits.columns import (
    SEGMENT_FIELDS,
    SEGMENT_FIRST_SCORED,
    SEGMENT_LENGTHS,
    segment_columns,
)
from zenray.batch.teacher_logits.model import PackedSequence
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.sequence import hidden_fields, sequence_fields
from zenray.batch.teacher_logits.results.statistics import STATISTICS_FIELDS, ScoredSegment, statistics_columns

HIDDEN_STATES = "hidden"
"""The companion's name, and so its folder's."""

_RECORDS, _HIDDEN, _STATISTICS = "records", "hidden", "statistics"


def record_schema(footer: Footer) -> pa.Schema:
    """Of the shards. All but the row's id is null where a row has an error, its segments excepted."""
    fields = (
        *(pa.field(ROW_ID, pa.string()), pa.field(ERROR, pa.string())),
        *SEGMENT_FIELDS,
        *sequence_fields(footer.record_format),
        *STATISTICS_FIELDS,
    )
    return pa.schema([field.with_nullable(True) for field in fields], footer.to_metadata())


def hidden_schema(footer: Footer) -> pa.Schema:
    """Of the companion, which has a row for every one without an error."""
    return pa.schema([pa.field(ROW_ID, pa.string()), *hidden_fields(footer.hidden_layers)], footer.to_metadata())


def scored_row(
    sequence: PackedSequence,
    values: Mapping[str, bytes],
    segments: Sequence[ScoredSegment],
    hidden: Mapping[str, bytes] | None,
) -> Row:
    """What a stage makes of a planned row: the values of `sequence_fields` and of `hidden_fields`, if there are any."""
    row: Row = {
        ROW_ID: sequence.row_id,
        **segment_columns(sequence.segments),
        _RECORDS: _to_text(values),
        _STATISTICS: statistics_columns(segments),
    }
    return row if hidden is None else {**row, _HIDDEN: _to_text(hidden)}


def to_record(row: Row, schema: pa.Schema) -> dict[str, Any]:
    """A scored row, or one with an `error`, as a row of `record_schema`."""
    record: dict[str, Any] = dict.fromkeys(schema.names) | {ROW_ID: row[ROW_ID], ERROR: row.get(ERROR)}
    if SEGMENTS in row:  # Never scored.
        return record | segment_columns(from_row(row).segments)
    if _RECORDS not in row:
        return record
    of_segments = {field.name: row[field.name] for field in SEGMENT_FIELDS}
    return {**record, **of_segments, **_from_text(row[_RECORDS]), **row[_STATISTICS]}


def to_hidden_record(row: Row) -> dict[str, Any] | None:
    """A scored row as a row of `hidden_schema`; None for one with an error."""
    return {ROW_ID: row[ROW_ID], **_from_text(row[_HIDDEN])} if _HIDDEN in row else None


def num_scored(row: Row) -> int:
    """Records of a row."""
    return sum(row[SEGMENT_LENGTHS]) - sum(row[SEGMENT_FIRST_SCORED]) if _RECORDS in row else 0


def _to_text(values: Mapping[str, bytes]) -> dict[str, str]:
    return {name: b64encode(data).decode() for name, data in values.items()}


def _from_text(values: Mapping[str, str]) -> dict[str, bytes]:
    return {name: b64decode(text) for name, text in values.items()}
