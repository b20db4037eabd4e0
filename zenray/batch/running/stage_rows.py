"""A stage over the rows of a shard: what a row's failure becomes, and what ends the job instead."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from zenray.batch.job import RowError, Stage
from zenray.batch.rows import ERROR, ROW_ID
from zenray.batch.running.shard_text import decode_row, encode_row
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded

log = logging.getLogger(__name__)

_ROWS_ERRNOS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EINVAL,
        errno.EILSEQ,
    }
)
"""What a name or a value can be wrong by. All else that a system call says is of the machine: full, busy, gone."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


def is_nobodys_fault(error: BaseException | None) -> bool:
    """Whether an error says something of the moment or the machine and nothing of the row: it must not be written.

    Of one that nobody raised on purpose, that holds for whatever it came from too.
    """
    while error is not None and not isinstance(error, RowError | InvalidRequest):
        if _is_of_the_moment(error):
            return True
        if isinstance(error, BaseExceptionGroup) and any(map(is_nobodys_fault, error.exceptions)):
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _is_of_the_moment(error: BaseException) -> bool:
    from ray.exceptions import RayError

    if isinstance(error, OSError) and error.errno is not None:
        return error.errno not in _ROWS_ERRNOS
    if isinstance(error, RuntimeError) and "start new thread" in str(error):  # As Python says EAGAIN.
        return True
    return isinstance(
        error,
        Overloaded | DeadlineExceeded | MemoryError | TimeoutError | ConnectionError
        | RayError | grpc.RpcError | grpc.aio.BaseError,
    )  # fmt: skip


def error_text(stage_name: str, error: Exception) -> str:
    """A row's `error`: the same text whenever the same happens to the same row."""
    if isinstance(error, RowError | InvalidRequest):
        return f"{stage_name}: {error}"
    text = str(error).encode(errors="backslashreplace").decode()  # Lone surrogates have no place in a table.
    return f"{stage_name}: {type(error).__name__}: {_ADDRESS.sub('0x…', text)}"


async def process_rows(
    stage_name: str,
    stage: Stage,
    rows: Sequence[bytes],
    places: asyncio.Semaphore,
    on_row: Callable[[], None],
) -> list[bytes]:
    """The rows after the stage, in order, as many of them at once as `places` allows. Rows with an error pass by.

    Raises what is nobody's fault; the rows that are under way are cancelled first.
    """

    async def one(data: bytes) -> bytes:
        async with places:
            done = await _process(stage_name, stage, data)
        on_row()
        return done

    tasks = [asyncio.create_task(one(data)) for data in rows]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _process(stage_name: str, stage: Stage, data: bytes) -> bytes:
    row = decode_row(data)
    if row.get(ERROR):
        return data
    row_id = row[ROW_ID]
    try:
        result = encode_row(await stage.process(row))
        if decode_row(result)[ROW_ID] != row_id:
            raise RuntimeError(f"stage {stage_name} changed a row's {ROW_ID}")
        return result
    except Exception as error:
        if is_nobodys_fault(error):
            raise
        if not isinstance(error, RowError | InvalidRequest):
            log.exception("row %s failed in stage %s", row_id, stage_name)
        # The row as it came: nothing that a failed stage had begun to add.
        return encode_row({**decode_row(data), ERROR: error_text(stage_name, error)})
