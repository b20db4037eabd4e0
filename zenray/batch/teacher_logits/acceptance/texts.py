"""The texts of a dump as the teacher read them: segment by segment."""

from __future__ import annotations

from collections.abc import Iterator

from zenray.batch.teacher_logits.acceptance.measure import TeacherText
from zenray.batch.teacher_logits.reading.reader import RecordReader

OTHER = "other"
"""Of texts whose language nobody knows."""


def teacher_texts(reader: RecordReader, num_positions: int | None = None) -> Iterator[TeacherText]:
    """Whole segments, until they have so many records. Sequences are in random order, so they are a fair sample."""
    before = 0
    for sequence in reader:
        for segment, rows in sequence.by_segment():
            if num_positions is not None and before >= num_positions:
                return
            before += rows.num_rows
            if rows.num_rows:
                yield TeacherText(segment.language or OTHER, tuple(segment.token_ids), rows)
