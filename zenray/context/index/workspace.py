"""The index of a workspace on this machine, as a completion request asks it."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from zenray.context.index import store
from zenray.context.index.lookup import Lookup
from zenray.context.index.paths import index_path
from zenray.context.pieces import Snippet
from zenray.context.privacy.ignore import IgnoreRules

_LOG = logging.getLogger(__name__)
_LOOK_AGAIN_S = 2.0
"""How soon changed ignore rules hold and a new database is noticed."""


@dataclass(frozen=True, slots=True)
class LanguageCount:
    """Files and definitions of one language."""

    language: str
    num_files: int
    num_definitions: int


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What an index holds. `report` is of its last complete update, empty before one."""

    database: Path
    database_bytes: int
    source_bytes: int
    languages: tuple[LanguageCount, ...]
    report: dict[str, Any]

    @property
    def num_files(self) -> int:
        return sum(each.num_files for each in self.languages)

    @property
    def num_definitions(self) -> int:
        return sum(each.num_definitions for each in self.languages)


class WorkspaceIndex:
    """The `SymbolIndex` of the tree at `root`. It may be built, updated or deleted meanwhile: a tree without an index
    has no symbols. Ignore rules hold as they are now, not as they were when the tree was indexed. Any thread may ask.
    """

    def __init__(self, root: Path, database: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root, self.database = root, database
        self._clock = clock
        self._lock = threading.Lock()
        self._rules = IgnoreRules(root)
        self._looked_at_s = clock()
        self._file_id: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None
        self._lookup: Lookup | None = None
        self._has_failed = False
        self._open()

    @classmethod
    def open(cls, root: Path | str, database: Path | None = None) -> WorkspaceIndex:
        """The index of the tree at `root`, whether or not there is one yet."""
        folder = Path(os.path.realpath(root))
        return cls(folder, database or index_path(folder))

    @property
    def is_built(self) -> bool:
        """There is a database, of this version."""
        return self._lookup is not None

    def is_private(self, path: str) -> bool:
        """Whether a file of the tree must not enter a prompt: it is ignored or made to hold secrets."""
        with self._lock:
            self._look_again()
            return self._rules.is_private(path)

    def is_withheld(self, path: str) -> bool:
        """Whether not even a file's own editor is served: .zenrayignore names it."""
        with self._lock:
            self._look_again()
            return self._rules.is_withheld(path)

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        """See `SymbolIndex`."""
        return self._ask(lambda lookup: lookup.definitions(names, language, limit))

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        """See `SymbolIndex`."""
        return self._ask(lambda lookup: lookup.exports(modules, importer_path, language, limit))

    def status(self) -> IndexStatus | None:
        """What the index holds; None where there is none."""
        with self._lock:
            self._open()
            return None if self._connection is None else _status(self._connection, self.database)

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._lookup = self._file_id = None

    def _ask(self, question: Callable[[Lookup], list[Snippet]]) -> list[Snippet]:
        with self._lock:
            self._look_again()
            if self._lookup is None:
                return []
            try:
                return question(self._lookup)
            except sqlite3.DatabaseError as error:
                level = logging.DEBUG if self._has_failed else logging.WARNING
                _LOG.log(level, "the index at %s cannot be read (%s): run zenray index again", self.database, error)
                self._has_failed = True
                self._close()
                return []

    def _look_again(self) -> None:
        if self._clock() - self._looked_at_s >= _LOOK_AGAIN_S:
            self._looked_at_s = self._clock()
            self._rules = IgnoreRules(self.root)
            self._open()

    def _open(self) -> None:
        """Open the database unless it is open already."""
        try:
            status = os.stat(self.database)
            file_id = (status.st_dev, status.st_ino)
        except OSError:
            self._close()
            return
        if file_id == self._file_id:
            return
        self._close()
        self._connection = store.open_to_read(self.database)
        if self._connection is not None:
            self._file_id = file_id
            self._lookup = Lookup(self._connection, lambda path: self._rules.is_private(path))


@lru_cache(maxsize=64)
def open_index(root: str) -> WorkspaceIndex:
    """The index of the tree at `root`, one for all who ask."""
    return WorkspaceIndex.open(root)


def _status(connection: sqlite3.Connection, database: Path) -> IndexStatus:
    counted = connection.execute(
        "SELECT language, count(*), sum(num_definitions) FROM files GROUP BY language ORDER BY count(*) DESC, language"
    ).fetchall()
    (source_bytes,) = connection.execute("SELECT coalesce(sum(size), 0) FROM files").fetchone()
    sizes = (Path(f"{database}{suffix}") for suffix in ("", "-wal"))
    return IndexStatus(
        database,
        sum(path.stat().st_size for path in sizes if path.exists()),
        source_bytes,
        tuple(LanguageCount(*row) for row in counted),
        json.loads(store.get_meta(connection, "report") or "{}"),
    )
