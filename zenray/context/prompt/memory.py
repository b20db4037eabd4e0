"""What is kept between two prompts, so that the next one costs what changed and begins as the last one did."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from zenray.context.pieces import DroppedPiece, Snippet
from zenray.context.prompt.bounded import BoundedCache
from zenray.context.prompt.duplicates import telling_lines
from zenray.context.prompt.encoding import RememberingTokenizer
from zenray.context.prompt.gather import Readings
from zenray.context.prompt.query import Query
from zenray.context.prompt.selection import Selection
from zenray.context.sized_lru import SizedLru
from zenray.context.surroundings import Document, Surroundings
from zenray.context.tokens import PromptTokenizer

NO_WINDOW = -1


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
    window_start: int = NO_WINDOW
    """Where the text before the cursor began in the prompt."""


class SelectionMemory:
    """The last selection of each (session, document), least recently used forgotten. May be used by several threads.

    It keeps the documents alive from which was chosen, also when their session has newer ones or is gone, so it counts
    their characters: each document once, however many selections share it.
    """

    def __init__(self, max_selections: int = 1024, max_characters: int = 64 << 20) -> None:
        self._max_selections, self._max_characters = max_selections, max_characters
        self._remembered: SizedLru[tuple[str, str], Remembered] = SizedLru()
        self._uses: Counter[int] = Counter()
        """Of documents, by identity: what is counted is what is held."""
        self._num_document_characters = 0
        self._lock = threading.Lock()

    @property
    def num_characters(self) -> int:
        return self._remembered.size + self._num_document_characters

    def __len__(self) -> int:
        return len(self._remembered)

    def recall(self, session_id: str, path: str) -> Remembered | None:
        """None without a session, whose requests have nothing to do with each other."""
        with self._lock:
            return self._remembered.get((session_id, path)) if session_id else None

    def keep(self, session_id: str, path: str, remembered: Remembered) -> None:
        if not session_id:
            return
        with self._lock:
            self._forget((session_id, path))
            around = remembered.surroundings
            num_other = sum(len(snippet.text) for snippet in around.snippets) + len(around.clipboard)
            num_other += sum(len(edit.before) + len(edit.after) for edit in around.edits)
            self._remembered.put((session_id, path), remembered, num_other)
            for document in _documents(remembered):
                self._uses[id(document)] += 1
                if self._uses[id(document)] == 1:
                    self._num_document_characters += len(document.text)
            while len(self) > self._max_selections or self.num_characters > self._max_characters:
                self._forget(self._remembered.oldest())

    def end_session(self, session_id: str) -> None:
        """Forget its documents, and what surrounded them."""
        with self._lock:
            for key in [key for key in self._remembered if key[0] == session_id]:
                self._forget(key)

    def _forget(self, key: tuple[str, str]) -> None:
        remembered = self._remembered.get(key)
        if remembered is None:
            return
        self._remembered.forget(key)
        for document in _documents(remembered):
            self._uses[id(document)] -= 1
            if not self._uses[id(document)]:
                del self._uses[id(document)]
                self._num_document_characters -= len(document.text)


def _documents(remembered: Remembered) -> tuple[Document, ...]:
    return (remembered.document, *remembered.surroundings.documents)


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
