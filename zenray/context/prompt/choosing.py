"""The snippets of one prompt: those of the last one while they are good, else gathered, ranked and chosen anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from zenray.context.budget import PromptLimits, keep_start
from zenray.context.pieces import ContextSource, DroppedPiece, Snippet
from zenray.context.privacy.secret_files import is_secret_file
from zenray.context.prompt.candidates import Candidate
from zenray.context.prompt.covering import CoveredText
from zenray.context.prompt.duplicates import telling_lines, without_duplicates
from zenray.context.prompt.gather import gather
from zenray.context.prompt.layout import file_header, num_tokens, repository_header, snippet_parts
from zenray.context.prompt.memory import NO_WINDOW, DistantText, PromptMemory, Remembered
from zenray.context.prompt.query import query_at
from zenray.context.prompt.ranking import Ranked, rank
from zenray.context.prompt.selection import Selection, choose
from zenray.context.prompt.window import fit_before
from zenray.context.surroundings import Document, RecentEdit, Surroundings

_JUMP_CHARS = 2_000
"""A document that changed by so much, or a cursor that moved so far, is read anew."""
_MOST_GAP_CHARS = 600
"""Between the text right behind the cursor and the distant text, before the latter is cut anew."""
_LEAST_DISTANT_TOKENS = 24
_CHARS_READ_PER_TOKEN = 8
MOST_SHARE = 0.75
"""Of a prompt, for anything but the text before the cursor, whatever is configured: all the rest is for it."""
_MOST_DROPPED = 64
_MOST_CHARS_COUNTED = 6
"""Per token of an allowance: more text hardly fits."""


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor in a document. `near_end` is where the text right behind it ends that is shown there anyway."""

    document: Document
    cursor: int
    near_end: int
    shown: CoveredText


def choose_snippets(
    place: Place,
    session_id: str,
    room: int,
    limits: PromptLimits,
    surroundings: Surroundings,
    memory: PromptMemory,
) -> Remembered:
    """What to show beside the text around the cursor, within `limits.snippet_share` of `room` tokens.

    Asked again with the same words and names around the cursor and nothing new elsewhere, it answers at once.
    """
    document, cursor, language = place.document, place.cursor, place.document.language
    last = memory.selections.recall(session_id, document.path)
    jumped = last is None or _has_jumped(place, last)
    near_tokens = memory.tokenizer.count(place.shown(cursor, place.near_end))
    allowance = min(int(room * limits.snippet_share), int((room - near_tokens) * MOST_SHARE))
    allowance -= _headers_tokens(document, surroundings, memory)
    distant_budget = min(int(room * limits.suffix_share) - near_tokens, allowance // 2)
    distant = _distant(place, distant_budget, None if jumped else last, memory)
    if distant is not None:
        allowance -= snippet_tokens(distant.snippet, language, memory)
    query = query_at(document.text, cursor)

    def cost_of(candidate: Candidate) -> int:
        return snippet_tokens(candidate.snippet, language, memory)

    def all_fit(snippets: Sequence[Snippet]) -> bool:
        num_chars = sum(len(snippet.text) for snippet in snippets)
        return num_chars <= allowance * _MOST_CHARS_COUNTED and (
            sum(snippet_tokens(snippet, language, memory) for snippet in snippets) <= allowance
        )

    is_same = last is not None and not jumped and last.query == query and _nothing_new(last, document, surroundings)
    if last is not None and is_same and last.selection.cost(cost_of) <= allowance:
        made = replace(last, distant=distant)
        memory.selections.keep(session_id, document.path, made)
        return made

    read = document if last is None or jumped else last.document
    open_documents, private = _without_private(surroundings)
    line = document.text.count("\n", 0, cursor)
    around = replace(surroundings, documents=open_documents)
    # About a fifth of the snippets' share, in characters of code; the same for every prompt of a session.
    most_chars = int(limits.max_prompt_tokens * limits.snippet_share * 3 / 4)
    candidates = gather(read, line, query, around, memory.readings, most_chars, all_fit)
    if last is not None:
        candidates = list(_as_shown(candidates, last, (read, *open_documents)))
    allowed = []
    for each in candidates:
        path = each.snippet.path
        if path in ("", document.path) or not surroundings.is_private(path):  # Its editor sees an ignored file anyway.
            allowed.append(each)
        else:
            private.append(_dropped(Ranked(each, 0.0), _why_private(path)))
    window = fit_before(document.text, cursor, room, memory.tokenizer, place.shown)
    visible = telling_lines(window.text + place.shown(cursor, place.near_end))
    if distant is not None:
        visible |= memory.lines_of(distant.snippet.text)
    ranked, duplicates = without_duplicates(rank(allowed, limits.weights), visible, memory.lines_of)
    previous = None if last is None else _still_true(last, read, around, candidates, memory)
    selection = choose(previous, ranked, allowance, cost_of)
    dropped = [_dropped(each, "budget") for each in selection.over_budget]
    dropped += [_dropped(each, "duplicate") for each in duplicates if each.candidate.snippet.path != document.path]
    made = Remembered(
        document=read,
        cursor=cursor if last is None or jumped else last.cursor,
        query=query,
        surroundings=surroundings,
        selection=selection,
        distant=distant,
        dropped=(*private, *sorted(dropped, key=lambda each: -each.score))[:_MOST_DROPPED],
        window_start=NO_WINDOW if last is None or jumped else last.window_start,
    )
    memory.selections.keep(session_id, document.path, made)
    return made


def snippet_tokens(snippet: Snippet, language: str, memory: PromptMemory) -> int:
    """What it costs, with its header."""
    return num_tokens(snippet_parts(snippet, 0.0, language, memory.tokenizer))


def _headers_tokens(document: Document, surroundings: Surroundings, memory: PromptMemory) -> int:
    repository = repository_header(surroundings.workspace, memory.tokenizer)
    return num_tokens(repository) + num_tokens(file_header(document.path, document.language, memory.tokenizer))


def _has_jumped(place: Place, last: Remembered) -> bool:
    """The cursor stands elsewhere, or much was typed or removed at it since the document was read."""
    before = abs(place.cursor - last.cursor)
    after = abs(len(place.document.text) - place.cursor - (len(last.document.text) - last.cursor))
    return max(before, after) > _JUMP_CHARS


def _nothing_new(last: Remembered, current: Document, now: Surroundings) -> bool:
    """Everything but the current document is as it was; the edits that are being made there do not count."""
    was = last.surroundings
    return (
        was.documents == now.documents
        and was.viewed == now.viewed
        and was.clipboard == now.clipboard
        and was.snippets == now.snippets
        and was.symbols == now.symbols
        and was.is_private == now.is_private
        and _elsewhere(was.edits, current) == _elsewhere(now.edits, current)
    )


def _elsewhere(edits: Iterable[RecentEdit], current: Document) -> list[RecentEdit]:
    return [edit for edit in edits if edit.path != current.path]


def _distant(place: Place, budget: int, last: Remembered | None, memory: PromptMemory) -> DistantText | None:
    """Whole lines of the text after the cursor that stand among the snippets.

    The same lines as for the last prompt, as long as they stand as far from the end of the document and about as far
    from the cursor.
    """
    text, path, language = place.document.text, place.document.path, place.document.language
    if last is not None and last.distant is not None:
        was = last.distant
        at = len(text) - was.from_end
        stays = -len(was.raw) // 2 <= at - place.near_end <= _MOST_GAP_CHARS
        if (
            stays
            and text[at : at + len(was.raw)] == was.raw
            and snippet_tokens(was.snippet, language, memory) <= budget
        ):
            return replace(was, snippet=replace(was.snippet, start_line=text.count("\n", 0, at)))
    start = place.near_end
    if start > 0 and text[start - 1] != "\n":
        start = text.find("\n", start) + 1 or len(text)
    room = budget - snippet_tokens(Snippet(ContextSource.SAME_FILE, path, ""), language, memory)
    if room < _LEAST_DISTANT_TOKENS:
        return None
    kept = keep_start(place.shown(start, start + _CHARS_READ_PER_TOKEN * room), room, memory.tokenizer).text
    if start + len(kept) < len(text):
        kept = kept[: kept.rfind("\n") + 1]
    if not kept.strip():
        return None
    snippet = Snippet(ContextSource.SAME_FILE, path, kept, text.count("\n", 0, start))
    return DistantText(snippet, text[start : start + len(kept)], len(text) - start)


def _as_shown(candidates: Iterable[Candidate], last: Remembered, documents: Iterable[Document]) -> Iterator[Candidate]:
    """Candidates; one that is part of a snippet of the last prompt is that snippet, which can stay where it is."""
    was = {document.path: document for document in (last.document, *last.surroundings.documents)}
    same = {document.path for document in documents if was.get(document.path) == document}
    shown = [each.candidate.snippet for each in last.selection.shown if each.candidate.snippet.path in same]
    for candidate in candidates:
        path, text = candidate.key
        around = (each for each in shown if each.path == path and len(each.text) > len(text) and text in each.text)
        whole = next(around, None)
        yield candidate if whole is None else replace(candidate, snippet=whole)


def _without_private(surroundings: Surroundings) -> tuple[tuple[Document, ...], list[DroppedPiece]]:
    open_documents = []
    dropped = []
    for document in surroundings.documents:
        if surroundings.is_private(document.path):
            whole = Snippet(ContextSource.OPEN_FILE, document.path, document.text)
            dropped.append(_dropped(Ranked(Candidate(whole), 0.0), _why_private(document.path)))
        else:
            open_documents.append(document)
    return tuple(open_documents), dropped


def _why_private(path: str) -> str:
    return "secret" if is_secret_file(path) else "ignored"


def _still_true(
    last: Remembered,
    read: Document,
    around: Surroundings,
    candidates: Iterable[Candidate],
    memory: PromptMemory,
) -> Selection:
    """The last selection without what its source no longer says. Definitions and imports that the index does not name
    just now are still true, unless their file was changed in the editor."""
    was = {document.path: document for document in (last.document, *last.surroundings.documents)}
    now = {document.path: document for document in (read, *around.documents)}
    offered = {each.key for each in candidates}
    texts: dict[str, set[str]] = {}

    def holds(each: Ranked) -> bool:
        snippet = each.candidate.snippet
        if snippet.path not in ("", read.path) and around.is_private(snippet.path):
            return False
        if each.candidate.key in offered:
            return True
        if snippet.source in (ContextSource.CLIPBOARD, ContextSource.SNIPPET, ContextSource.RECENT_EDIT):
            return False
        if was.get(snippet.path) == now.get(snippet.path):
            return True
        if snippet.path not in now:
            return False
        if snippet.path not in texts:
            reading = memory.readings.document(now[snippet.path])
            texts[snippet.path] = {chunk.text for chunk in reading.words.snippets}
        return snippet.text in texts[snippet.path]

    return Selection(tuple(each for each in last.selection.shown if holds(each)))


def _dropped(ranked: Ranked, reason: str) -> DroppedPiece:
    snippet = ranked.candidate.snippet
    return DroppedPiece(snippet.source, snippet.path, snippet.start_line, snippet.end_line, ranked.score, reason)
