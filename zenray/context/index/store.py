"""The index's tables in SQLite: one writer, any number of readers at the same time (WAL), in a file or in memory."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from zenray.context.index.entry import EXTRACTION_VERSION, FileEntry
from zenray.context.index.families import family_of

_LAYOUT_VERSION = 2
SCHEMA_VERSION = _LAYOUT_VERSION * 1000 + EXTRACTION_VERSION

# Ends of paths are looked up as beginnings of `tail`: the parts of the path from last to first, each behind a slash.
# Of definitions of one name those at the top of a file come first, then members, then what is in tests (`rank`).
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    tail TEXT NOT NULL,
    folder_tail TEXT NOT NULL,
    family TEXT NOT NULL,
    language TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    digest BLOB NOT NULL,
    num_definitions INTEGER NOT NULL,
    outline TEXT NOT NULL
);
CREATE INDEX files_by_tail ON files (tail);
CREATE INDEX files_by_folder ON files (folder_tail);
CREATE TABLE definitions (
    file_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    family TEXT NOT NULL,
    rank INTEGER NOT NULL,
    start_line INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX definitions_by_name ON definitions (name, family, rank, file_id, start_line);
CREATE INDEX definitions_by_file ON definitions (file_id);
"""

_IN_TESTS = re.compile(r"(?:^|/)(?:tests?|testing|__tests__|specs?)/|(?:^|/)test_|[._]test\.|[._]spec\.", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells whether a file has changed since it was read. `digest` is of its bytes."""

    path: str
    size: int
    mtime_ns: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of the index."""

    id: int
    size: int
    mtime_ns: int
    digest: bytes


def open_in_memory() -> sqlite3.Connection:
    """An empty index that lives as long as its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _create(connection)
    return connection


def open_to_read(database: Path) -> sqlite3.Connection | None:
    """The index at `database`; None where there is none, or one of another version."""
    if not database.is_file():
        return None
    connection = sqlite3.connect(
        f"file:{quote(str(database))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        if _version(connection) == SCHEMA_VERSION:
            connection.execute("PRAGMA cache_size = -8192")
            return connection
    except sqlite3.DatabaseError:
        pass
    connection.close()
    return None


def open_to_write(database: Path) -> sqlite3.Connection:
    """The index at `database`, made when there is none or one of another version. Raises sqlite3.DatabaseError for a
    damaged one."""
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))  # it holds source text
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        version = _version(connection)
        if version not in (0, SCHEMA_VERSION):
            connection.close()
            delete(database)
            return open_to_write(database)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            _create(connection)
        elif connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the index is damaged")
    except BaseException:
        connection.close()
        raise
    return connection


def delete(database: Path) -> bool:
    """Remove an index; whether there was one. Readers that have it open keep what they have."""
    existed = database.exists()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    return existed


def known_file(connection: sqlite3.Connection, path: str) -> KnownFile | None:
    found = connection.execute("SELECT id, size, mtime_ns, digest FROM files WHERE path = ?", (path,)).fetchone()
    return None if found is None else KnownFile(*found)


def write_file(connection: sqlite3.Connection, state: FileState, entry: FileEntry) -> int:
    """Put a file in, or in place of what was known of it. Its id."""
    family = family_of(entry.language)
    folder, _, _ = state.path.rpartition("/")
    is_test = _IN_TESTS.search(state.path) is not None
    (file_id,) = connection.execute(
        "INSERT INTO files"
        " (path, tail, folder_tail, family, language, size, mtime_ns, digest, num_definitions, outline)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET family = excluded.family,"
        " language = excluded.language, size = excluded.size, mtime_ns = excluded.mtime_ns, digest = excluded.digest,"
        " num_definitions = excluded.num_definitions, outline = excluded.outline RETURNING id",
        (
            *(state.path, tail_of(state.path), tail_of(folder), family, entry.language),
            *(state.size, state.mtime_ns, state.digest, len(entry.definitions), entry.outline),
        ),
    ).fetchone()
    connection.execute("DELETE FROM definitions WHERE file_id = ?", (file_id,))
    connection.executemany(
        "INSERT INTO definitions VALUES (?, ?, ?, ?, ?, ?)",
        (
            (file_id, each.name, family, each.is_member + 2 * is_test, each.start_line, each.text)
            for each in entry.definitions
        ),
    )
    return int(file_id)


def touch_file(connection: sqlite3.Connection, file_id: int, mtime_ns: int) -> None:
    """The file was written again and is the same."""
    connection.execute("UPDATE files SET mtime_ns = ? WHERE id = ?", (mtime_ns, file_id))


def remove_files(connection: sqlite3.Connection, file_ids: Iterable[int]) -> None:
    rows = [(file_id,) for file_id in file_ids]
    connection.executemany("DELETE FROM definitions WHERE file_id = ?", rows)
    connection.executemany("DELETE FROM files WHERE id = ?", rows)


def tail_of(path: str) -> str:
    """`a/b.py` as `/b.py/a/`: every end of the path, of whole parts, is a beginning of it."""
    return "/" + "".join(f"{part}/" for part in reversed(path.split("/")) if part)


def files_at(connection: sqlite3.Connection, paths: Sequence[str], family: str) -> list[int]:
    """Those of `paths` that are there, in the order given."""
    places = ", ".join("?" * len(paths))
    query = f"SELECT path, id FROM files WHERE path IN ({places}) AND family = ?"  # noqa: S608
    found = dict(connection.execute(query, (*paths, family)))
    return [found[path] for path in paths if path in found]


def files_ending(connection: sqlite3.Connection, end: str, family: str, limit: int, by_folder: bool) -> list[int]:
    """Files whose paths end in the parts `end`, or whose folders' paths do; the least deep first."""
    column = "folder_tail" if by_folder else "tail"
    tail = tail_of(end)
    query = (
        f"SELECT id FROM (SELECT id, path, {column} AS place FROM files WHERE {column} >= ? AND {column} < ?"  # noqa: S608
        " AND family = ? LIMIT 64) ORDER BY length(place), path LIMIT ?"
    )
    return [file_id for (file_id,) in connection.execute(query, (tail, tail + "\U0010ffff", family, limit))]


def files_in(connection: sqlite3.Connection, folder: str, family: str, limit: int) -> list[int]:
    """Files that lie in exactly this folder."""
    query = "SELECT id FROM files WHERE folder_tail = ? AND family = ? ORDER BY path LIMIT ?"
    return [file_id for (file_id,) in connection.execute(query, (tail_of(folder), family, limit))]


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def get_meta(connection: sqlite3.Connection, key: str) -> str:
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return "" if found is None else str(found[0])


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.executescript(f"BEGIN;\n{_SCHEMA}\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;")
