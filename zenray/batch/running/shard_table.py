"""From processed rows to a shard's tables. A row that cannot be recorded becomes a row with an error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from zenray.batch.job import Job
from zenray.batch.rows import ERROR, ROW_ID, Row
from zenray.batch.running.stage_rows import error_text, is_nobodys_fault

log = logging.getLogger(__name__)

_STAGE = "record"


def shard_tables(job: Job, rows: Sequence[Row]) -> tuple[pa.Table, dict[str, pa.Table], list[Row]]:
    """The table of `job.schema`, those of `job.companions` by name, and the rows they were made of: those that could
    not be recorded now have an error."""
    try:
        return *_tables(job, rows), list(rows)
    except Exception as error:  # Some row of them; one by one tells which.
        if is_nobodys_fault(error):
            raise
        final = [_recordable(job, row) for row in rows]
        return *_tables(job, final), final


def _recordable(job: Job, row: Row) -> Row:
    """The row, or it with an error, or where that cannot be recorded either, nothing but its error."""
    try:
        _tables(job, [row])
        return row
    except Exception as error:
        if is_nobodys_fault(error):
            raise
        log.exception("row %s cannot be recorded", row[ROW_ID])
        failed = {**row, ERROR: row.get(ERROR) or error_text(_STAGE, error)}
    with contextlib.suppress(Exception):
        _tables(job, [failed])
        return failed
    return {ROW_ID: row[ROW_ID], ERROR: failed[ERROR]}


def _tables(job: Job, rows: Sequence[Row]) -> tuple[pa.Table, dict[str, pa.Table]]:
    companions = {
        name: _table(schema, [record for row in rows if (record := job.companion(name, row)) is not None])
        for name, schema in job.companions.items()
    }
    return _table(job.schema, [job.record(row) for row in rows]), companions


def _table(schema: pa.Schema, records: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = set(schema.names)
    for record in records:
        if record.keys() != names:  # pyarrow would drop or invent columns without a word.
            raise ValueError(f"a record has the columns {sorted(record.keys())}; the schema {sorted(names)}")
    return pa.Table.from_pylist([dict(record) for record in records], schema=schema)
