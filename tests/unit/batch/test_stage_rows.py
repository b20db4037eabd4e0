"""What a stage makes of a shard's rows when some of them fail."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import grpc
import grpc.aio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.exceptions import RayError

from zenray.batch.job import Generator, RowError
from zenray.batch.rows import ERROR, ROW_ID, Row
from zenray.batch.running.shard_text import decode_row, encode_row, from_block, to_block
from zenray.batch.running.stage_rows import process_rows
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
        st.characters(exclude_categories=["Cs"]), max_size=5
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=3), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip
ROWS = st.lists(st.dictionaries(st.sampled_from("abc\nü"), JSON, max_size=3), min_size=1, max_size=6)


def because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


KINDS = ["fine", "hopeless", "broken", "invalid", "before", "nan", "other", "missing", "on purpose"]


class Calling:
    """A stage that is one function."""

    def __init__(self, function: Callable[[Row], Row]) -> None:
        self._function = function
        self.num_inside = self.most_inside = 0

    async def open(self, generator: Generator | None) -> None: ...

    async def process(self, row: Row) -> Row:
        self.num_inside += 1
        self.most_inside = max(self.most_inside, self.num_inside)
        try:
            await asyncio.sleep(0)
            return self._function(row)
        finally:
            self.num_inside -= 1

    async def close(self) -> None: ...


def run(function: Callable[[Row], Row], rows: list[Row], at_once: int = 2) -> list[Row]:
    async def story() -> list[bytes]:
        stage = Calling(function)
        result = await process_rows(
            "look", stage, [encode_row(row) for row in rows], asyncio.Semaphore(at_once), lambda: None
        )
        assert stage.most_inside <= at_once
        return result

    return [decode_row(data) for data in asyncio.run(story())]


@settings(deadline=None)
@given(ROWS, st.integers(0, 2**40))
def test_a_shard_travels_unchanged(rows: list[Row], index: int) -> None:
    assert from_block(to_block(index, [encode_row(row) for row in rows])) == (index, [encode_row(row) for row in rows])
    assert [decode_row(encode_row(row)) for row in rows] == rows


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["fine", "hopeless", "broken", "invalid", "before", "nan", "other", "missing", "on purpose"])
    )
)
def test_each_row_gets_its_own_end(kinds: list[str]) -> None:
    def process(row: Row) -> Row:
        match row["kind"]:
            case "hopeless":
                row["half"] = "done"
                raise RowError("no way")
            case "broken":
                raise KeyError(f"{object()}")
            case "missing":
                raise FileNotFoundError(errno.ENOENT, "no such file", "x")
            case "on purpose":
                raise RowError("too deep") from MemoryError()
            case "invalid":
                raise InvalidRequest.of("n", 0, "1 or more")
            case "nan":
                return {**row, "value": float("nan")}
            case "other":
                return {**row, ROW_ID: "x"}
        assert row["kind"] == "fine", "a row with an error passes by"
        return {**row, "value": 1}

    rows: list[Row] = [{ROW_ID: str(index), "kind": kind} for index, kind in enumerate(kinds)]
    for row in rows:
        if row["kind"] == "before":
            row[ERROR] = "an earlier stage"
    ends = {
        "hopeless": "look: no way",
        "broken": "look: KeyError: '<object object at 0x…>'",
        "invalid": "look: n is 0; allowed: 1 or more",
        "before": "an earlier stage",
        "nan": "look: ValueError: Out of range float values are not JSON compliant",
        "other": "look: RuntimeError: stage look changed a row's row_id",
        "missing": "look: FileNotFoundError: [Errno 2] no such file: 'x'",
        "on purpose": "look: too deep",
    }
    for row, done in zip(rows, run(process, rows), strict=True):
        if row["kind"] == "fine":
            assert done == {**row, "value": 1}
        else:
            error = done.pop(ERROR)
            assert error.startswith(ends[row["kind"]])
            row.pop(ERROR, None)
            assert done == row


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("gone"), Overloaded("full"), DeadlineExceeded("late"), MemoryError(), OSError(errno.ENOSPC, "full"),
        TimeoutError(), ConnectionResetError(errno.ECONNRESET, "reset"), ConnectionError("no answer"),
        OSError(errno.ESTALE, "stale"), RuntimeError("can't start new thread"), grpc.RpcError(), RayError("lost"),
        grpc.aio.UsageError("Channel is closed."), ExceptionGroup("several", [KeyError("x"), TimeoutError()]),
        because(KeyError("x"), OSError(errno.EMFILE, "too many")), because(ValueError("x"), Unavailable("gone")),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_nobodys_fault_is_no_rows_error(error: Exception) -> None:
    def process(row: Row) -> Row:
        if row[ROW_ID] == "1":
            raise error
        return row

    with pytest.raises(type(error)):
        run(process, [{ROW_ID: str(index)} for index in range(4)])
