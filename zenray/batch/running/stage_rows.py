"""A stage over the rows of a shard: what a row's failure becomes, and what ends the job instead."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable, Sequence

from zenray.batch.job import RowError, Stage
from zenray.batch.rows import ERROR, ROW_ID
from zenray.batch.running.shard_text import decode_row, encode_row
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded

log = logging.getLogger(__name__)

_MACHINE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO}
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


def is_nobodys_fault(error: BaseException) -> bool:
    """Whether an error says something of the moment or the machine and nothing of the row: it must not be written."""
    if isinstance(error, OSError):
        return error.errno in _MACHINE_ERRNOS
    return isinstance(error, Overloaded | DeadlineExceeded | MemoryError)


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
