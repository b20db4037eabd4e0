"""An output of the teacher-logits job, read sequence by sequence, every byte checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zenray.batch.output.read import checked_bytes, read_contents
from zenray.batch.output.shard import decode_shard, footer_problem, own_schema
from zenray.batch.rows import ERROR, ROW_ID
from zenray.batch.teacher_logits.columns import SEGMENT_FIRST_SCORED, SEGMENT_LENGTHS, segments_of
from zenray.batch.teacher_logits.model import Segment
from zenray.batch.teacher_logits.reading.rows import take_rows
from zenray.batch.teacher_logits.records.footer import Footer
from zenray.batch.teacher_logits.records.sequence import decode_hidden, decode_sequence
from zenray.batch.teacher_logits.results.record import HIDDEN_STATES
from zenray.engine.scoring import ScoredRows
from zenray.errors import OutputDamaged


@dataclass(frozen=True, slots=True)
class RecordedSequence:
    """Tokens [T] (int32) of segments laid end to end, and the records of the scored ones among them, in their order.

    `rows.first_position` is 0 and counts nothing: `scored_positions_R` says where each record's token stands.
    """

    row_id: str
    token_ids_T: np.ndarray
    segments: tuple[Segment, ...]
    rows: ScoredRows

    @property
    def scored_positions_R(self) -> np.ndarray:
        """int64: the place in the sequence of the token that record r predicts; ascending."""
        parts, start = [np.empty(0, np.int64)], 0
        for segment in self.segments:
            parts.append(np.arange(start + segment.first_scored, start + len(segment.token_ids)))
            start += len(segment.token_ids)
        return np.concatenate(parts)

    def by_segment(self) -> Iterator[tuple[Segment, ScoredRows]]:
        """Each segment with its records, whose positions count within the segment."""
        start = 0
        for segment in self.segments:
            rows = take_rows(self.rows, start, start + segment.num_scored)
            yield segment, replace(rows, first_position=segment.first_scored)
            start += segment.num_scored


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row of a shard, and the one of the same id of its hidden states, if these are read: columns to values."""

    values: Mapping[str, Any]
    hidden: Mapping[str, Any] | None


class RecordReader:
    """The finished shards of an output, complete or still growing, as they are listed when it is opened.

    Every file is compared with its listed SHA-256 before anything is made of its bytes, every shard's footer with its
    place and with the first shard's, every row's values with the row's checksum. All of it raises OutputDamaged.
    `hidden` reads the hidden states as well; raises NotFound where the job kept none.
    """

    def __init__(self, output: Path | str, hidden: bool = False) -> None:
        self._output, self._hidden = Path(output), hidden
        self._contents = read_contents(self._output)
        self.shards = tuple(sorted(self._contents.shards))
        """Their indexes."""
        if not self.shards:
            raise OutputDamaged(f"{self._output} has no finished shard yet; read it once there is one")
        self._schema = own_schema(self._table(self.shards[0]).schema)
        self.footer = Footer.from_metadata(self._schema.metadata)

    @property
    def job_sha256(self) -> str:
        """Of the job.json that all of it follows from."""
        return self._contents.job_sha256

    @property
    def complete(self) -> bool:
        """Whether these are all shards that there will be."""
        return self._contents.complete

    @property
    def num_scored(self) -> int:
        """Records of all shards."""
        return self._contents.tokens

    def num_rows(self, shard: int) -> int:
        """Sequences of a shard, those with errors among them."""
        return self._contents.shards[shard].rows

    def __iter__(self) -> Iterator[RecordedSequence]:
        """All sequences in their order, one shard in memory at a time."""
        for shard in self.shards:
            yield from self.read_shard(shard)

    def read_shard(self, shard: int) -> Iterator[RecordedSequence]:
        """Its sequences in their order. Rows with an error, which no teacher could read, are left out."""
        for row in self.stored_rows(shard):
            if row is not None:
                yield self.decode(row)

    def stored_rows(self, shard: int) -> list[StoredRow | None]:
        """Its rows as they are stored, for `decode` to make sequences of; None for one with an error."""
        table = self._table(shard)
        if not own_schema(table.schema).equals(self._schema, check_metadata=True):
            raise OutputDamaged(f"{self._output}, shard {shard}: other columns or footer than shard {self.shards[0]}")
        beside = self._table(shard, HIDDEN_STATES).to_pylist() if self._hidden else []
        hidden = {row[ROW_ID]: row for row in beside}
        return [
            None if row[ERROR] is not None else StoredRow(row, hidden.get(row[ROW_ID])) for row in table.to_pylist()
        ]

    def decode(self, stored: StoredRow) -> RecordedSequence:
        """Raises OutputDamaged."""
        row, footer = stored.values, self.footer
        row_id = row[ROW_ID]
        try:
            num_tokens = sum(row[SEGMENT_LENGTHS])
            num_scored = num_tokens - sum(row[SEGMENT_FIRST_SCORED])
            token_ids_T, rows = decode_sequence(
                row_id, row, num_tokens, num_scored, footer.record_format, footer.vocabulary
            )
            if self._hidden:
                if stored.hidden is None:
                    raise ValueError(f"it has no row in {HIDDEN_STATES}")
                rows = replace(rows, hidden=decode_hidden(row_id, stored.hidden, footer.hidden_layers, num_scored))
            return RecordedSequence(row_id, token_ids_T, segments_of(row, token_ids_T.tolist()), rows)
        except (KeyError, TypeError, ValueError) as error:
            raise OutputDamaged(f"{self._output}, row {row_id}: {type(error).__name__}: {error}") from error

    def _table(self, shard: int, companion: str = "") -> pa.Table:
        entry = self._contents.shards[shard]
        table = decode_shard(checked_bytes(self._output, entry, companion))
        listed = entry.companions[companion] if companion else entry
        problem = footer_problem(table, self._contents.job_sha256, shard, entry.tokens, companion)
        if problem is None and table.num_rows != listed.rows:
            problem = f"{table.num_rows} rows, listed are {listed.rows}"
        if problem:
            raise OutputDamaged(f"{self._output}, shard {shard}: {problem}")
        return table
