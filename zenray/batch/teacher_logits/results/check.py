"""Whether every row of a shard can be read back: its checksum, its lengths, its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from zenray.batch.rows import ERROR, ROW_ID
from zenray.batch.teacher_logits.columns import SEGMENT_FIELDS, SEGMENT_FIRST_SCORED, SEGMENT_LENGTHS, segments_of
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.sequence import decode_hidden, decode_sequence
from zenray.batch.teacher_logits.results.record import HIDDEN_STATES
from zenray.errors import OutputDamaged


def unreadable_rows(tables: Mapping[str, pa.Table]) -> Iterator[tuple[str, str]]:
    """What is wrong with rows of a shard (under no name) and of its companions (under theirs): the table's name, and
    what it is."""
    for name, table in tables.items():
        try:
            footer = Footer.from_metadata(table.schema.metadata)
        except OutputDamaged as error:
            yield name, str(error)
            continue
        lengths = tables[""].select([ROW_ID, SEGMENT_LENGTHS, SEGMENT_FIRST_SCORED]).to_pylist()
        num_scored = {row[ROW_ID]: _num_scored(row) for row in lengths}
        for batch in table.to_batches(max_chunksize=1):
            (row,) = batch.to_pylist()
            try:
                if name == HIDDEN_STATES:
                    decode_hidden(row[ROW_ID], row, footer.hidden_layers, num_scored[row[ROW_ID]])
                elif row[ERROR] is None:
                    _decode(row, num_scored[row[ROW_ID]], footer)
            except (OutputDamaged, ValueError) as error:
                yield name, str(error)


def _decode(row: Mapping[str, Any], num_scored: int, footer: Footer) -> None:
    shape = (sum(row[SEGMENT_LENGTHS]), num_scored)
    token_ids_T, _ = decode_sequence(row[ROW_ID], row, *shape, footer.record_format, footer.vocabulary)
    segments_of({field.name: row[field.name] for field in SEGMENT_FIELDS}, token_ids_T.tolist())


def _num_scored(row: Mapping[str, Any]) -> int:
    return sum(row[SEGMENT_LENGTHS] or ()) - sum(row[SEGMENT_FIRST_SCORED] or ())
