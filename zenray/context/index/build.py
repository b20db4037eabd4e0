"""Making and updating the index of a tree. What was committed before a kill is not done again."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from zenray.context.index import store
from zenray.context.index.paths import index_path, tree_root
from zenray.context.index.read import ReadFile, read_files
from zenray.context.index.store import FileState
from zenray.context.index.walk import FoundFile, walk
from zenray.context.index.workers import Workers
from zenray.errors import ConfigError, Overloaded

_BATCH_FILES, _BATCH_BYTES = 64, 256_000
_NUM_OWN_BATCHES = 2
"""Batches that are read before other processes are started, which takes longer than most updates."""
_COMMIT_EVERY_S = 1.0
_UNSETTLED_NS = 2_000_000_000
"""A file changed so shortly before it was read may change again within the same tick of its file system's clock."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an update is. `num_bytes` counts what was read, not what was unchanged."""

    num_files: int
    num_bytes: int
    path: str


@dataclass(slots=True)
class BuildReport:
    """What an update did. `skipped` counts by reason; `read_bytes` were extracted anew."""

    num_added: int = 0
    num_changed: int = 0
    num_unchanged: int = 0
    num_removed: int = 0
    read_bytes: int = 0
    elapsed_s: float = 0.0
    finished_at_s: float = 0.0
    was_damaged: bool = False
    skipped: dict[str, int] = field(default_factory=dict)


def build_index(
    root: Path | str,
    database: Path | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    num_workers: int = 0,
) -> BuildReport:
    """Bring the index of the tree at `root` up to date, or make it; `num_workers` 0 takes a process per core.

    Raises ConfigError when `root` is no readable folder or the index cannot be written, Overloaded while another
    process updates it.
    """
    folder = tree_root(root)
    database = database or index_path(folder)
    num_workers = num_workers or len(os.sched_getaffinity(0))
    with _only_writer(database, folder):
        try:
            try:
                return _update(folder, database, on_progress, num_workers)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                store.delete(database)
                return _update(folder, database, on_progress, num_workers, was_damaged=True)
        except sqlite3.OperationalError as error:
            raise ConfigError(f"the index at {database} cannot be written: {error}") from error


def forget_index(root: Path | str) -> bool:
    """Delete the index of the tree at `root`, which may be gone; whether there was one. Raises Overloaded while it is
    updated."""
    database = index_path(root)
    if not database.exists():
        return False
    with _only_writer(database, Path(root)):
        return store.delete(database)


def _update(
    folder: Path,
    database: Path,
    on_progress: Callable[[Progress], None],
    num_workers: int,
    was_damaged: bool = False,
) -> BuildReport:
    started_s = time.monotonic()
    connection = store.open_to_write(database)
    try:
        store.set_meta(connection, "root", str(folder))
        report = _Update(connection, folder, on_progress).run(num_workers)
        report.was_damaged = was_damaged
        report.elapsed_s, report.finished_at_s = time.monotonic() - started_s, time.time()
        store.set_meta(connection, "report", json.dumps(asdict(report)))
        return report
    finally:
        connection.close()


class _Update:
    """One pass over the tree."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, on_progress: Callable[[Progress], None]) -> None:
        self._connection, self._folder, self._on_progress = connection, folder, on_progress
        self._report = BuildReport()
        self._skipped: Counter[str] = Counter()
        self._num_seen = 0
        self._committed_s = time.monotonic()

    def run(self, num_workers: int) -> BuildReport:
        # On disk when it is large: the tree's size must not show in memory.
        self._connection.execute("PRAGMA temp_store = FILE")
        self._connection.execute("CREATE TEMP TABLE present (id INTEGER PRIMARY KEY)")
        self._connection.execute("BEGIN")
        workers = Workers(partial(read_files, str(self._folder)), _crashed, num_workers, _NUM_OWN_BATCHES)
        for files in workers.run(self._batches()):
            for file in files:
                self._take(file)
            if time.monotonic() - self._committed_s > _COMMIT_EVERY_S:
                self._connection.execute("COMMIT")
                self._connection.execute("BEGIN")
                self._committed_s = time.monotonic()
        self._remove_absent()
        self._connection.execute("COMMIT")
        self._report.skipped = dict(self._skipped.most_common())
        return self._report

    def _batches(self) -> Iterator[list[tuple[FoundFile, bytes]]]:
        """Files that are new or look changed, with the digests that are known of them."""
        batch: list[tuple[FoundFile, bytes]] = []
        num_bytes = 0
        for found in walk(self._folder, lambda reason: self._skipped.update((reason,))):
            known = store.known_file(self._connection, found.path)
            if known is not None and (known.size, known.mtime_ns) == (found.size, found.mtime_ns):
                self._mark_present(known.id)
                self._report.num_unchanged += 1
                self._tell(found.path)
                continue
            batch.append((found, known.digest if known else b""))
            num_bytes += found.size
            if len(batch) >= _BATCH_FILES or num_bytes >= _BATCH_BYTES:
                yield batch
                batch, num_bytes = [], 0
        if batch:
            yield batch

    def _take(self, file: ReadFile) -> None:
        known = store.known_file(self._connection, file.state.path)
        if file.skipped:
            self._skipped[file.skipped] += 1
        elif file.entry is not None:
            self._mark_present(store.write_file(self._connection, _settled(file.state), file.entry))
            self._report.read_bytes += file.state.size
            if known is None:
                self._report.num_added += 1
            else:
                self._report.num_changed += 1
        elif known is not None:
            store.touch_file(self._connection, known.id, _settled(file.state).mtime_ns)
            self._mark_present(known.id)
            self._report.num_unchanged += 1
        self._tell(file.state.path)

    def _mark_present(self, file_id: int) -> None:
        self._connection.execute("INSERT OR IGNORE INTO present VALUES (?)", (file_id,))

    def _remove_absent(self) -> None:
        query = "SELECT id FROM files WHERE id NOT IN (SELECT id FROM present) LIMIT 1000"
        while rows := self._connection.execute(query).fetchall():
            store.remove_files(self._connection, [file_id for (file_id,) in rows])
            self._report.num_removed += len(rows)

    def _tell(self, path: str) -> None:
        self._num_seen += 1
        self._on_progress(Progress(self._num_seen, self._report.read_bytes, path))


def _settled(state: FileState) -> FileState:
    """With a time that matches no file, where it was changed just now: it will be read again, and be the same."""
    is_settled = time.time_ns() - state.mtime_ns > _UNSETTLED_NS
    return state if is_settled else FileState(state.path, state.size, -1, state.digest)


def _crashed(item: tuple[FoundFile, bytes]) -> ReadFile:
    found, _ = item
    return ReadFile(FileState(found.path, found.size, found.mtime_ns, b""), skipped="crashed its parser")


@contextmanager
def _only_writer(database: Path, folder: Path) -> Iterator[None]:
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(f"{database}.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Overloaded(f"another process updates the index of {folder}", retry_ms=2000) from None
    except OSError as error:
        raise ConfigError(f"the index at {database} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
