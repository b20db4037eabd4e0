"""The index of files that a client gave one by one, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from zenray.context.index import store
from zenray.context.index.entry import make_entry
from zenray.context.index.lookup import Lookup
from zenray.context.index.store import FileState
from zenray.context.index.walk import defines_symbols
from zenray.context.languages.registry import language_of
from zenray.context.pieces import Snippet
from zenray.context.privacy.secret_files import is_secret_file

DEFAULT_MAX_BYTES = 32 << 20
_MAX_FILE_CHARACTERS = 512_000
"""Of a longer file nothing is kept: it is read while its sender waits."""


class UploadedIndex:
    """A `SymbolIndex` of the latest uploaded files, of at most `max_bytes` of text; what it keeps of them takes up to
    a few times as much. Files of secrets, and of languages without a grammar, are not kept."""

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._files: OrderedDict[str, tuple[int, int]] = OrderedDict()  # path -> (id, bytes), the oldest first
        self._connection = store.open_in_memory()
        self._lookup = Lookup(self._connection, is_private=lambda path: False)

    def put(self, path: str, text: str) -> None:
        """The file is new or changed."""
        self.remove(path)
        language = language_of(path, text[:500].partition("\n")[0])
        if not defines_symbols(language) or is_secret_file(path) or len(text) > _MAX_FILE_CHARACTERS:
            return
        num_bytes = len(text.encode("utf-8", "replace"))
        while self._files and self._num_bytes + num_bytes > self._max_bytes:
            self.remove(next(iter(self._files)))
        if num_bytes <= self._max_bytes:
            state = FileState(path, num_bytes, 0, b"")
            self._files[path] = store.write_file(self._connection, state, make_entry(text, language)), num_bytes
            self._num_bytes += num_bytes
            self._lookup.forget()

    def remove(self, path: str) -> None:
        """The file is gone; one that is not known changes nothing."""
        if path in self._files:
            file_id, num_bytes = self._files.pop(path)
            store.remove_files(self._connection, [file_id])
            self._num_bytes -= num_bytes
            self._lookup.forget()

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        """See `SymbolIndex`."""
        return self._lookup.definitions(names, language, limit)

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        """See `SymbolIndex`."""
        return self._lookup.exports(modules, importer_path, language, limit)
