"""The symbols a session can refer to: of the files it uploaded, and of the workspace it named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from zenray.context.pieces import Snippet
from zenray.context.surroundings import SymbolIndex


class UploadedSymbols(SymbolIndex, Protocol):
    """An index in memory of files given one by one. It may keep less than it is given, and keeps no more than a
    small multiple of it. It may be asked on one thread while it is changed on another."""

    def put(self, path: str, text: str) -> None:
        """The file is new or changed."""
        ...

    def remove(self, path: str) -> None:
        """The file is gone; one that is not known changes nothing."""
        ...


OpenIndex = Callable[[str], SymbolIndex | None]
"""The index of the workspace at a root, shared by all who ask; None where there is none."""
NewUploads = Callable[[], UploadedSymbols]


class CombinedSymbols:
    """`SymbolIndex` over several, the first ones' answers first."""

    def __init__(self, indexes: Sequence[SymbolIndex]) -> None:
        self._indexes = tuple(indexes)

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        found: list[Snippet] = []
        for index in self._indexes:
            found += index.definitions(names, language, limit - len(found)) if len(found) < limit else []
        return found

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        found: list[Snippet] = []
        for index in self._indexes:
            found += index.exports(modules, importer_path, language, limit - len(found)) if len(found) < limit else []
        return found


def combined(indexes: Sequence[SymbolIndex]) -> SymbolIndex | None:
    """One index for all of `indexes`."""
    if len(indexes) < 2:
        return indexes[0] if indexes else None
    return CombinedSymbols(indexes)
