"""A local log of rows in Parquet files, written off the event loop."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zenray.errors import ConfigError

log = logging.getLogger(__name__)

MAX_QUEUED_ROWS = 4096
"""Beyond, rows are dropped: the log must neither hold up a completion nor fill the memory while a disk is slow."""
MAX_FILE_ROWS = 65_536
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_FILE_AGE_S = 300.0
"""How long a row may wait for others; what a killed process loses at most."""

Row = Mapping[str, Any]


class ParquetLog:
    """Rows of one schema, in files that are whole or not there: each is written aside, read back, then renamed.

    `on_dropped` hears, on any thread, of rows that are in no file and never will be.
    """

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        on_dropped: Callable[[int], None],
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_queued_rows: int = MAX_QUEUED_ROWS,
    ) -> None:
        """Raises ConfigError for a folder that cannot be written to."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f"{folder} cannot be written to")
        except OSError as error:
            raise ConfigError(f"suggestion.outcome_log: {error}") from error
        self._folder, self._schema, self._max_file_bytes = folder, schema, max_file_bytes
        self._queue: queue.Queue[Row | None] = queue.Queue(max_queued_rows)
        self._on_dropped = on_dropped
        self._num_files = 0
        self._thread = threading.Thread(target=self._write_all, name="zenray-outcome-log", daemon=True)
        self._thread.start()

    def add(self, row: Row) -> None:
        """Never waits."""
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self._on_dropped(1)

    def close(self, timeout_s: float) -> None:
        """Writes what was added, for at most `timeout_s`."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)

    def _write_all(self) -> None:
        closing = False
        while not closing:
            rows, closing = self._gather()
            if rows:
                self._write(rows)

    def _gather(self) -> tuple[list[Row], bool]:
        """The rows of the next file, and whether it is the last one."""
        rows: list[Row] = []
        num_bytes, until_s = 0, 0.0
        while num_bytes < self._max_file_bytes and len(rows) < MAX_FILE_ROWS:
            try:
                row = self._queue.get(timeout=max(0.0, until_s - time.monotonic()) if rows else None)
            except queue.Empty:
                break
            if row is None:
                return rows, True
            until_s = until_s if rows else time.monotonic() + MAX_FILE_AGE_S
            rows.append(row)
            num_bytes += sum(len(value) if isinstance(value, str) else 8 for value in row.values())
        return rows, False

    def _write(self, rows: list[Row]) -> None:
        self._num_files += 1
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = self._folder / f"outcomes-{moment}-{os.getpid()}-{self._num_files:05d}.parquet"
        aside = path.with_suffix(".writing")
        try:
            table = pa.Table.from_pylist(list(rows), self._schema)
            with aside.open("wb") as file:
                pq.write_table(table, file, compression="zstd", write_statistics=False, write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())
            # On a full disk the writer may not have noticed.
            if pq.read_table(aside, page_checksum_verification=True).num_rows != len(rows):
                raise OSError("rows are missing")
            aside.rename(path)
        except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
            self._on_dropped(len(rows))
            # Arrow's messages quote values, which may be source text.
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            log.warning("%d outcomes were not logged: %s", len(rows), reason)
            aside.unlink(missing_ok=True)
