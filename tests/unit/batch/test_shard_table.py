"""A shard's table when some of its rows cannot be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.harness import ANSWERS, EchoJob
from zenray.batch.rows import ERROR, ROW_ID, Row
from zenray.batch.running.shard_table import shard_tables

FINE, ANSWERED, RAISES, UNANSWERABLE, SURROGATE, ANOTHER_TYPE = (
    "fine", "answered", "raises", "unanswerable", "a lone \ud800", 7
)  # fmt: skip


@dataclass(frozen=True)
class Recording(EchoJob):
    def record(self, row: Row) -> Mapping[str, Any]:
        if row.get("text") == RAISES and ERROR not in row:
            raise RuntimeError("no record")
        return super().record(row)

    def companion(self, name: str, row: Row) -> Mapping[str, Any] | None:
        if row.get("text") == UNANSWERABLE:
            raise RuntimeError("no companion")
        return {ROW_ID: row[ROW_ID], "token_ids": [[1, 2]]} if row.get("text") == ANSWERED else None


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([FINE, ANSWERED, RAISES, UNANSWERABLE, SURROGATE, ANOTHER_TYPE]), min_size=1, max_size=6)
)
def test_a_row_that_cannot_be_recorded_becomes_an_error_beside_the_others(texts: list[Any]) -> None:
    rows: list[Row] = [{ROW_ID: str(index), "text": text} for index, text in enumerate(texts)]
    table, companions, final = shard_tables(Recording(), rows)
    assert table.schema == Recording.schema
    assert companions[ANSWERS].schema == Recording.companions[ANSWERS]
    answered = [row[ROW_ID] for row in rows if row["text"] == ANSWERED]
    assert companions[ANSWERS].to_pylist() == [{ROW_ID: each, "token_ids": [[1, 2]]} for each in answered]
    for text, row, record in zip(texts, final, table.to_pylist(), strict=True):
        assert record[ROW_ID] == row[ROW_ID]
        assert record["error"] == row.get(ERROR)
        if text in (FINE, ANSWERED):
            assert (record["text"], record["error"]) == (text, None)
        else:
            assert record["error"].startswith("record: ")
    assert [row[ROW_ID] for row in final] == [str(index) for index in range(len(texts))]


def test_a_record_has_the_columns_of_the_schema() -> None:
    @dataclass(frozen=True)
    class Wrong(EchoJob):
        def record(self, row: Row) -> Mapping[str, Any]:
            return {**super().record(row), "more": 1}

    with pytest.raises(ValueError, match="a record has the columns"):
        shard_tables(Wrong(), [{ROW_ID: "0", "text": FINE}])


@pytest.mark.parametrize("bad", range(3))
def test_no_row_is_blamed_for_a_full_machine(bad: int) -> None:
    @dataclass(frozen=True)
    class Full(EchoJob):
        def record(self, row: Row) -> Mapping[str, Any]:
            if row[ROW_ID] == str(bad) and ERROR not in row:
                raise pa.ArrowMemoryError("malloc of size 64 failed")
            return super().record(row)

    with pytest.raises(MemoryError):
        shard_tables(Full(), [{ROW_ID: str(index), "text": FINE} for index in range(3)])
