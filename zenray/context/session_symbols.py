"""The symbols a session can refer to: of the files it uploaded, and of the workspace it named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from zenray.context.pieces import Snippet
from zenray.context.surroundings import SymbolIndex


class UploadedSymbols(SymbolIndex, Protocol):
    """An index in memory of files given one by one. It may keep less than it is given, and keeps no more than a
    small multiple of it. Where requests are assembled on another thread, it has to be one for several threads."""

    def put(self, path: str, text: str) -> None:
        """The file is new or changed."""
        ...

    def remove(self, path: str) -> None:
        """The file is gone; one that is not known changes nothing."""
        ...


class WorkspaceSymbols(SymbolIndex, Protocol):
    """The index of a folder of this machine, empty where none was built, and the folder's ignore rules."""

    def is_private(self, path: str) -> bool:
        """Whether a file must not enter a prompt beside another one."""
        ...

    def is_withheld(self, path: str) -> bool:
        """Whether it must not enter its own."""
        ...


OpenIndex = Callable[[str], WorkspaceSymbols]
NewUploads = Callable[[], UploadedSymbols]


@dataclass(frozen=True, slots=True)
class CombinedSymbols:
    """`SymbolIndex` over several, the first ones' answers first. Equal where they are the same ones."""

    indexes: tuple[SymbolIndex, ...]

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        found: list[Snippet] = []
        for index in self.indexes:
            found += index.definitions(names, language, limit - len(found)) if len(found) < limit else []
        return found

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        found: list[Snippet] = []
        for index in self.indexes:
            found += index.exports(modules, importer_path, language, limit - len(found)) if len(found) < limit else []
        return found


def combined(indexes: Sequence[SymbolIndex]) -> SymbolIndex | None:
    """One index for all of `indexes`."""
    if len(indexes) < 2:
        return indexes[0] if indexes else None
    return CombinedSymbols(tuple(indexes))
