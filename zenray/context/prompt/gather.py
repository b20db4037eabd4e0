"""What could stand in a prompt: every source asked for its snippets near a cursor."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from zenray.context.pieces import ContextSource, Snippet
from zenray.context.privacy.secrets import redact
from zenray.context.prompt.bounded import BoundedCache
from zenray.context.prompt.candidates import Candidate, WordIndex, bm25, index_words
from zenray.context.prompt.chunks import MOST_CHARS, MOST_LINES, block_at, cut_into_chunks
from zenray.context.prompt.definitions import defined_names, head_of, imported_modules
from zenray.context.prompt.query import Query
from zenray.context.surroundings import Document, RecentEdit, Surroundings

_MOST_LEXICAL = 48
_LEAST_LEXICAL = 0.2
"""Of the best match: snippets that match less are noise."""
_ANY_LEXICAL = 1e-9
_MOST_FROM_INDEX = 16
_MOST_EDIT_LINES = 12
_MOST_CHARS_READ = 1 << 19
"""Of one document; the rest of a larger one is not looked at."""
_NEAR_LINES = 3


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document's chunks by their words, and which of them defines what, in which line of the document."""

    words: WordIndex
    defines: dict[str, tuple[int, int]]


@dataclass(slots=True)
class Readings:
    """What was read of documents and snippets, for as long as it is used."""

    documents: BoundedCache[Document, ReadDocument] = field(
        default_factory=lambda: BoundedCache(8 << 20, lambda document: len(document.text))
    )
    snippets: BoundedCache[Snippet, WordIndex] = field(
        default_factory=lambda: BoundedCache(1 << 20, lambda snippet: len(snippet.text))
    )

    imports: BoundedCache[tuple[str, str], tuple[str, ...]] = field(default_factory=lambda: BoundedCache(1024))
    differences: BoundedCache[RecentEdit, str] = field(default_factory=lambda: BoundedCache(1024))

    def document(self, document: Document) -> ReadDocument:
        return self.documents.get_or_make(document, read_document)

    def snippet(self, snippet: Snippet) -> WordIndex:
        return self.snippets.get_or_make(snippet, lambda made: index_words((made,)))

    def difference(self, edit: RecentEdit) -> str:
        return self.differences.get_or_make(edit, edit_difference)

    def modules(self, document: Document) -> tuple[str, ...]:
        """What it imports."""
        key = (head_of(document.text), document.language)
        return self.imports.get_or_make(key, lambda made: imported_modules(*made))


def read_document(document: Document) -> ReadDocument:
    """Chunks, words and definitions of a document."""
    text = redact(document.text[:_MOST_CHARS_READ])
    chunks = cut_into_chunks(text)
    words = index_words(
        [Snippet(ContextSource.OPEN_FILE, document.path, each.text, each.start_line) for each in chunks]
    )
    defines: dict[str, tuple[int, int]] = {}
    lines = defined_names(text, document.language)
    for number, chunk in enumerate(chunks):
        for line in range(chunk.start_line, chunk.end_line):
            for name in lines.get(line, ()):
                defines.setdefault(name, (number, line))
    return ReadDocument(words, defines)


def gather(
    current: Document,
    cursor_line: int,
    query: Query,
    surroundings: Surroundings,
    readings: Readings,
    most_chars: int = 1 << 30,
    all_fit: Callable[[Sequence[Snippet]], bool] = lambda snippets: False,
) -> list[Candidate]:
    """Candidates from every source, in no order. `current` may be a slightly older state of the current document.

    Of a chunk longer than `most_chars` that defines a name near the cursor only that definition is taken, and of a
    longer definition its head: a call needs the signature, not the body. Where the chunks of other files that do
    `all_fit` together, they are taken whole.
    """
    loose = [
        *_given(surroundings),
        *_edits(current, cursor_line, surroundings.edits, readings),
        *_indexed(current, query, surroundings, readings),
    ]
    opened = (current, *surroundings.documents)
    documents, paths = [readings.document(each) for each in opened], [each.path for each in opened]
    indexes = [*(document.words for document in documents), *(readings.snippet(each.snippet) for each in loose)]
    scores = bm25(dict(query.terms), indexes)
    of_documents, of_loose = scores[: len(documents)], scores[len(documents) :]
    of_documents[0] = _without_nearest(of_documents[0], documents[0], cursor_line)
    least = _least_lexical([score for row in of_documents for score in row])
    found = [
        replace(each, lexical=row[0] or None, distance=_folders_between(current.path, each.snippet.path))
        for each, row in zip(loose, of_loose, strict=True)
    ]
    reached = [_reach(query, document) for document in documents]
    others = zip(documents[1:], reached[1:], strict=True)
    is_narrow = not all_fit([document.words.snippets[at] for document, reach in others for at in reach])
    for age, (document, path, row, reach) in enumerate(zip(documents, paths, of_documents, reached, strict=True)):
        touched = _touched(path, document.words.snippets, surroundings)
        distance = _folders_between(current.path, path)
        for at, score in enumerate(row):
            if score < least and at not in reach and at not in touched:
                continue
            source, age_s = touched.get(at, (ContextSource.OPEN_FILE, _LONG_AGO_S + age))
            if path == current.path:
                source = ContextSource.SAME_FILE
            snippet = document.words.snippets[at]
            if (is_narrow or path == current.path) and at in reach and len(snippet.text) > most_chars:
                snippet = _narrowed(snippet, document.defines[query.names[reach[at]]][1], most_chars)
            shown = snippet if source is snippet.source else replace(snippet, source=source)
            found.append(Candidate(shown, score or None, reach.get(at), age_s, distance))
    return found


_LONG_AGO_S = 1e9  # The age of what nobody touched; files used later count as younger.


def _without_nearest(scores: list[float], current: ReadDocument, cursor_line: int) -> list[float]:
    """Nothing for the chunks around the cursor: the query was made of their words, and the prompt shows them anyway."""
    return [
        0.0 if chunk.start_line - MOST_LINES < cursor_line < chunk.end_line + MOST_LINES else score
        for chunk, score in zip(current.words.snippets, scores, strict=True)
    ]


def _least_lexical(scores: list[float]) -> float:
    """What a chunk must score to be ranked for its words: enough to stand out from chunks that share a few common
    words with the text at the cursor."""
    best = heapq.nlargest(_MOST_LEXICAL, scores)
    return max(best[-1], _LEAST_LEXICAL * best[0], _ANY_LEXICAL) if best else 0.0


def _reach(query: Query, document: ReadDocument) -> dict[int, int]:
    """Chunks that define a name near the cursor: how near, by the nearest one."""
    found: dict[int, int] = {}
    for place, name in enumerate(query.names):
        if name in document.defines:
            found.setdefault(document.defines[name][0], place)
    return found


def _narrowed(snippet: Snippet, line: int, most_chars: int) -> Snippet:
    """What is defined at a line of the file: whole lines, `most_chars` or one line."""
    block = block_at(snippet.text, line - snippet.start_line).text
    head = block if len(block) <= most_chars else block[: block.rfind("\n", 0, most_chars) + 1]
    return replace(snippet, text=head or block[: block.find("\n") + 1] or block, start_line=line)


def _given(surroundings: Surroundings) -> list[Candidate]:
    """What the client sent and the clipboard, the long ones in chunks."""
    found = []
    for place, snippet in enumerate(surroundings.snippets):
        found += [Candidate(part, given=place) for part in _parts(snippet)]
    if surroundings.clipboard.strip():
        copied = Snippet(ContextSource.CLIPBOARD, "", surroundings.clipboard)
        found += [Candidate(part, recency=0.0) for part in _parts(copied)]
    return found


def _parts(snippet: Snippet) -> list[Snippet]:
    """With secrets covered before anything is cut: part of one would not be known for what it is."""
    snippet = replace(snippet, text=redact(snippet.text))
    if snippet.text.count("\n") <= MOST_LINES and len(snippet.text) <= MOST_CHARS:
        return [snippet] if snippet.text.strip() else []
    chunks = cut_into_chunks(snippet.text[:_MOST_CHARS_READ])
    return [replace(snippet, text=each.text, start_line=snippet.start_line + each.start_line) for each in chunks]


def _edits(current: Document, cursor_line: int, edits: Iterable[RecentEdit], readings: Readings) -> list[Candidate]:
    """Edits that replaced or removed something, as small diffs: a change made once is often made again. What is being
    typed at the cursor is no such edit, and what was only added stands in its file."""
    found = []
    for place, edit in enumerate(edits):
        end_line = edit.start_line + edit.after.count("\n") + 1
        at_cursor = edit.start_line - _NEAR_LINES <= cursor_line <= end_line + _NEAR_LINES
        if (edit.path == current.path and at_cursor) or not edit.before.strip():
            continue
        text = readings.difference(edit)
        if text:
            snippet = Snippet(ContextSource.RECENT_EDIT, edit.path, text, edit.start_line)
            found.append(Candidate(snippet, recency=float(place)))
    return found


def edit_difference(edit: RecentEdit) -> str:
    """What an edit changed, secrets covered, as a diff without file names; empty where that is nothing, or long."""
    before, after = redact(edit.before).splitlines(), redact(edit.after).splitlines()
    changes = difflib.unified_diff(before[: 2 * MOST_LINES], after[: 2 * MOST_LINES], n=1, lineterm="")
    lines = [line for line in changes if not line.startswith(("---", "+++"))]
    text = redact("".join(f"{line}\n" for line in lines))
    return text if len(lines) <= _MOST_EDIT_LINES and len(text) <= MOST_CHARS else ""


def _indexed(current: Document, query: Query, surroundings: Surroundings, readings: Readings) -> list[Candidate]:
    """What the workspace's index knows of the names near the cursor and of the imported modules."""
    if surroundings.symbols is None:
        return []
    known = surroundings.symbols
    definitions = known.definitions(query.names, current.language, _MOST_FROM_INDEX)
    modules = readings.modules(current)
    exports = known.exports(modules, current.path, current.language, _MOST_FROM_INDEX) if modules else []
    found = [Candidate(each, reach=place) for place, each in enumerate(definitions)]
    found += [Candidate(each, given=place) for place, each in enumerate(exports)]
    return [replace(each, snippet=replace(each.snippet, text=redact(each.snippet.text))) for each in found]


def _touched(
    path: str, chunks: Sequence[Snippet], surroundings: Surroundings
) -> dict[int, tuple[ContextSource, float]]:
    """Chunks somebody edited or looked at lately, and how long ago; edits count before looks."""
    found: dict[int, tuple[ContextSource, float]] = {}
    ranges = [
        (ContextSource.OPEN_FILE, edit.start_line, edit.start_line + edit.after.count("\n") + 1, edit.at_s)
        for edit in surroundings.edits
        if edit.path == path
    ]
    ranges += [
        (ContextSource.VIEWED, view.start_line, view.end_line, view.at_s)
        for view in surroundings.viewed
        if view.path == path
    ]
    for source, start, end, at_s in ranges:
        for number, chunk in enumerate(chunks):
            if chunk.start_line < end and start < chunk.end_line:
                found.setdefault(number, (source, max(0.0, surroundings.now_s - at_s)))
    return found


def _folders_between(path: str, other: str) -> int:
    """Steps through folders from one file to the other; 0 within one folder."""
    ours, theirs = PurePosixPath(path).parent.parts, PurePosixPath(other).parent.parts
    shared = 0
    while shared < min(len(ours), len(theirs)) and ours[shared] == theirs[shared]:
        shared += 1
    return len(ours) + len(theirs) - 2 * shared
