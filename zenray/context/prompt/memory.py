"""What is kept between two prompts, so that the next one costs what changed and begins as the last one did."""

from __future__ import annotations

from dataclasses import dataclass, field

from zenray.context.pieces import DroppedPiece, Snippet
from zenray.context.prompt.bounded import BoundedCache
from zenray.context.prompt.duplicates import telling_lines
from zenray.context.prompt.encoding import RememberingTokenizer
from zenray.context.prompt.gather import Readings
from zenray.context.prompt.query import Query
from zenray.context.prompt.selection import Selection
from zenray.context.surroundings import Document, Surroundings
from zenray.context.tokens import PromptTokenizer


@dataclass(frozen=True, slots=True)
class DistantText:
    """Text after the cursor that stands among the snippets. `raw` is how it reads in the document, where secrets are
    not covered; it begins `from_end` characters from the document's end, which typing before it does not change."""

    snippet: Snippet
    raw: str
    from_end: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """How the last prompt of a (session, document) was chosen, and from what.

    `document` and `cursor` are those at which the current document was last read: while someone types at one place,
    the rest of it stays as it was read.
    """

    document: Document
    cursor: int
    query: Query
    surroundings: Surroundings
    selection: Selection
    distant: DistantText | None
    dropped: tuple[DroppedPiece, ...] = ()


class SelectionMemory:
    """The last selection of each (session, document), least recently used forgotten."""

    def __init__(self, max_documents: int = 1024) -> None:
        self._remembered: BoundedCache[tuple[str, str], Remembered] = BoundedCache(max_documents)

    def recall(self, session_id: str, path: str) -> Remembered | None:
        """None without a session, whose requests have nothing to do with each other."""
        return self._remembered.get((session_id, path)) if session_id else None

    def keep(self, session_id: str, path: str, remembered: Remembered) -> None:
        if session_id:
            self._remembered.put((session_id, path), remembered)

    def end_session(self, session_id: str) -> None:
        """Forget its documents, and what surrounded them."""
        self._remembered.forget(lambda key: key[0] == session_id)


@dataclass(slots=True)
class PromptMemory:
    """One owner of all of it, for one tokenizer; may be used by several threads. It never changes what a single
    request without a session gets."""

    tokenizer: RememberingTokenizer
    selections: SelectionMemory = field(default_factory=SelectionMemory)
    readings: Readings = field(default_factory=Readings)
    covered_blocks: BoundedCache[str, str] = field(default_factory=lambda: BoundedCache(8 << 20, str.__len__))
    _lines: BoundedCache[str, frozenset[str]] = field(default_factory=lambda: BoundedCache(2 << 20, str.__len__))

    @staticmethod
    def of(tokenizer: PromptTokenizer) -> PromptMemory:
        """An empty one."""
        return PromptMemory(RememberingTokenizer(tokenizer))

    def read_ahead(self, document: Document) -> None:
        """Read a document before a request needs it, on a thread of its own: it takes about 10 ms for 3,000 lines."""
        self.readings.document(document)

    def lines_of(self, text: str) -> frozenset[str]:
        """`telling_lines`, kept."""
        return self._lines.get_or_make(text, telling_lines)
