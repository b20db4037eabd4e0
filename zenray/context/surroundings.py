"""What is known around the document at the cursor: an immutable view, taken for one request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from zenray.context.pieces import Snippet
from zenray.context.privacy.secret_files import is_secret_file


@dataclass(frozen=True, slots=True)
class Document:
    """One state of an open document; `path` is relative to the workspace. Equal objects are equal texts, so what is
    computed from one may be kept for as long as the object lives."""

    path: str
    language: str
    text: str
    version: int = 0


@dataclass(frozen=True, slots=True)
class RecentEdit:
    """Neighbouring changes of one document, joined: what stood at `start_line` before, and what does now."""

    path: str
    start_line: int
    before: str
    after: str
    at_s: float
    """When the last of them happened, on the clock of `Surroundings.now_s`."""


@dataclass(frozen=True, slots=True)
class ViewedRange:
    """Lines [start_line, end_line) of a document that were on the screen lately."""

    path: str
    start_line: int
    end_line: int
    at_s: float


class SymbolIndex(Protocol):
    """What the workspace defines, read only and quick (a few milliseconds). Secrets and ignored files are not in it."""

    def definitions(self, names: Sequence[str], language: str, limit: int) -> list[Snippet]:
        """Definitions of `names`, those of the earliest names first, as DEFINITION snippets: whole when short,
        else signature and documentation. Only from files in languages that `language` can refer to."""
        ...

    def exports(self, modules: Sequence[str], importer_path: str, language: str, limit: int) -> list[Snippet]:
        """What the modules that `importer_path` imports by these names offer, as IMPORT snippets of signatures."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything besides the current document. Sequences are newest first."""

    documents: tuple[Document, ...] = ()
    """Open documents except the current one, most recently used first."""
    edits: tuple[RecentEdit, ...] = ()
    viewed: tuple[ViewedRange, ...] = ()
    clipboard: str = ""
    snippets: tuple[Snippet, ...] = ()
    """The client's own, best first."""
    symbols: SymbolIndex | None = None
    now_s: float = 0.0
    workspace: str = ""
    """The workspace's name; empty where it has none."""
    is_private: Callable[[str], bool] = is_secret_file
    """Whether the file of a path must not enter the prompt of another; where the workspace has ignore rules, these
    too."""
    is_withheld: Callable[[str], bool] = is_secret_file
    """Whether it must not enter its own either."""


NOTHING_AROUND = Surroundings()
"""For a request without a session."""
