"""Looking up definitions and modules in an index: the `SymbolIndex` of `zenray.context.surroundings`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import lru_cache

from zenray.context.index.families import family_of
from zenray.context.index.modules import Guess, guesses
from zenray.context.index.store import files_at, files_ending, files_in
from zenray.context.pieces import ContextSource, Snippet

_MOST_PER_NAME = 3
"""Of a name that many files define, more would say nothing about the one that is meant."""
_MOST_NAMES, _MOST_MODULES = 64, 64
_MOST_FILES_PER_MODULE = 4
_CACHED = 4096

_DEFINITIONS = """
SELECT files.path, definitions.start_line, definitions.text FROM definitions JOIN files ON files.id = file_id
WHERE name = ? AND definitions.family = ? ORDER BY rank, file_id, start_line LIMIT ?
"""


class Lookup:
    """Answers from one connection, the latest kept until `forget`. Not for several threads at once."""

    def __init__(self, connection: sqlite3.Connection, is_private: Callable[[str], bool]) -> None:
        self._connection = connection
        self._is_private = is_private
        self._version = self._data_version()
        self._definitions_of = lru_cache(_CACHED)(self._read_definitions)
        self._files_of = lru_cache(_CACHED)(self._find_files)

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        """See `SymbolIndex`."""
        self._notice_changes()
        family = family_of(language)
        found: list[Snippet] = []
        for name in dict.fromkeys(filter(_is_utf8, names[:_MOST_NAMES])):
            found += [each for each in self._definitions_of(name, family) if not self._is_private(each.path)]
            if len(found) >= limit:
                break
        return found[: max(0, limit)]

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        """See `SymbolIndex`. One snippet for a file."""
        self._notice_changes()
        family = family_of(language)
        folder = importer_path.rpartition("/")[0] if _is_utf8(importer_path) else ""
        found: dict[str, Snippet] = {}
        for module in dict.fromkeys(filter(_is_utf8, modules[:_MOST_MODULES])):
            for snippet in self._files_of(module, folder, family):
                if snippet.path != importer_path and not self._is_private(snippet.path):
                    found.setdefault(snippet.path, snippet)
            if len(found) >= limit:
                break
        return list(found.values())[: max(0, limit)]

    def forget(self) -> None:
        """Keep nothing of what was answered."""
        self._definitions_of.cache_clear()
        self._files_of.cache_clear()

    def _notice_changes(self) -> None:
        version = self._data_version()
        if version != self._version:
            self._version = version
            self.forget()

    def _data_version(self) -> int:
        """Changes when another connection has committed."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _read_definitions(self, name: str, family: str) -> tuple[Snippet, ...]:
        rows = self._connection.execute(_DEFINITIONS, (name, family, _MOST_PER_NAME))
        return tuple(Snippet(ContextSource.DEFINITION, path, text, line) for path, line, text in rows)

    def _find_files(self, module: str, folder: str, family: str) -> tuple[Snippet, ...]:
        """The files of a module, as snippets of what they offer. Importers in one folder find the same."""
        for guess in guesses(module, f"{folder}/_" if folder else "_", family):
            found = self._files_at(guess, family)
            if found:
                rows = [self._connection.execute("SELECT path, outline FROM files WHERE id = ?", (i,)) for i in found]
                outlines = [row for each in rows for row in each if row[1]]
                return tuple(Snippet(ContextSource.IMPORT, path, outline) for path, outline in outlines)
        return ()

    def _files_at(self, guess: Guess, family: str) -> list[int]:
        if guess.kind == "file":
            return files_at(self._connection, guess.paths, family)[:1]
        for path in guess.paths:
            if guess.kind == "folder":
                found = files_in(self._connection, path, family, _MOST_FILES_PER_MODULE)
            else:
                by_folder = guess.kind == "folder_end"
                most = _MOST_FILES_PER_MODULE if by_folder else 1
                found = files_ending(self._connection, path, family, most, by_folder)
            if found:
                return found
        return []


def _is_utf8(text: str) -> bool:
    """Whether SQLite can be asked for it; a lone surrogate has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
