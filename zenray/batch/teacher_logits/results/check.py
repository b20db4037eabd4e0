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
    what it is. Of hidden states, where there are any, every row with records has some and no other row."""
    num_scored: dict[str, int] = {}
    for name, table in sorted(tables.items()):  # The shard, whose name is empty, comes first.
        try:
            footer = Footer.from_metadata(table.schema.metadata)
        except OutputDamaged as error:
            yield name, str(error)
            continue
        with_hidden = set()
        for batch in table.to_batches(max_chunksize=1):
            (row,) = batch.to_pylist()
            try:
                if name == HIDDEN_STATES:
                    with_hidden.add(row[ROW_ID])
                    if row[ROW_ID] not in num_scored:
                        raise ValueError("the shard has no records of it")
                    decode_hidden(row[ROW_ID], row, footer.hidden_layers, num_scored[row[ROW_ID]])
                elif row[ERROR] is None:
                    num_scored[row[ROW_ID]] = sum(row[SEGMENT_LENGTHS]) - sum(row[SEGMENT_FIRST_SCORED])
                    _decode(row, num_scored[row[ROW_ID]], footer)
            except OutputDamaged as error:
                yield name, str(error)
            except (KeyError, TypeError, ValueError) as error:
                yield name, f"row {row.get(ROW_ID)}: {type(error).__name__}: {error}"
        if name == HIDDEN_STATES:
            for row_id in sorted(num_scored.keys() - with_hidden):
                yield name, f"row {row_id}: has records, but no hidden states"


def _decode(row: Mapping[str, Any], num_scored: int, footer: Footer) -> None:
    shape = (sum(row[SEGMENT_LENGTHS]), num_scored)
    token_ids_T, _ = decode_sequence(row[ROW_ID], row, *shape, footer.record_format, footer.vocabulary)
    segments_of({field.name: row[field.name] for field in SEGMENT_FIELDS}, token_ids_T.tolist())
