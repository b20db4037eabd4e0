"""Which documents are planned, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.rows import derive_seed, row_id
from zenray.batch.teacher_logits.planning.account import PlanAccount
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.context.languages.registry import language_of

UNKNOWN_LANGUAGE = "plaintext"
"""What LSP calls a document of no known language."""
BEYOND_MAX_TOKENS = "beyond max_tokens"
_CHARACTERS_PER_TOKEN = 64
"""Code has three to four; so many times the tokens are not to be found in any text worth learning."""
_MAX_FIRST_LINE = 500


@dataclass(frozen=True, slots=True)
class ChosenDocument:
    """`document_id` is a function of the text alone."""

    document_id: str
    language: str
    document: SourceDocument


def choose_documents(
    documents: Iterable[SourceDocument], settings: PlanSettings, seed: int, account: PlanAccount
) -> list[ChosenDocument]:
    """Documents in one of the settings' languages, each text once, in an order drawn by the seed and the texts: the
    first of them are a random sample of all. Where `max_tokens` are enough, no more than those surely hold.

    Of copies the one whose repository and path come first stands for all, so the order in which documents are given
    does not matter. What is not returned is not kept in memory either, except 16 bytes a text.
    """
    sample = _Sample(settings.max_tokens * _CHARACTERS_PER_TOKEN if settings.max_tokens else None)
    known: set[bytes] = set()
    for document in documents:
        account.num_documents += 1
        language = document_language(document)
        if settings.languages and language not in settings.languages:
            account.documents_left_out["in another language"] += 1
            continue
        found = ChosenDocument(row_id("document", document.text), language, document)
        key = bytes.fromhex(found.document_id)
        if key in known:
            account.documents_left_out["copy of another document"] += 1
            sample.add_copy(found)
        else:
            known.add(key)
            num_dropped = sample.add(found, derive_seed(seed, found.document_id, "order"))
            if num_dropped:
                account.documents_left_out[BEYOND_MAX_TOKENS] += num_dropped
    return sample.in_order()


class _Sample:
    """The documents that come first in a random order, as many as `num_characters` take: to drop the last of them
    would leave less."""

    def __init__(self, num_characters: int | None) -> None:
        self._wanted, self._held = num_characters, 0
        self._chosen: dict[str, ChosenDocument] = {}
        self._last_first: list[tuple[int, str]] = []  # A heap of (minus the place in the order, document id).

    def add(self, chosen: ChosenDocument, place: int) -> int:
        """How many documents it drops for a new one, which may be among them."""
        self._chosen[chosen.document_id] = chosen
        self._held += len(chosen.document.text)
        heappush(self._last_first, (-place, chosen.document_id))
        num_dropped = 0
        while self._wanted is not None and self._held - len(self._last.document.text) >= self._wanted:
            self._held -= len(self._last.document.text)
            del self._chosen[heappop(self._last_first)[1]]
            num_dropped += 1
        return num_dropped

    def add_copy(self, copy: ChosenDocument) -> None:
        known = self._chosen.get(copy.document_id)
        if known is not None:
            self._chosen[copy.document_id] = min(known, copy, key=_place)

    def in_order(self) -> list[ChosenDocument]:
        return [self._chosen[document_id] for _, document_id in sorted(self._last_first, reverse=True)]

    @property
    def _last(self) -> ChosenDocument:
        return self._chosen[self._last_first[0][1]]


def document_language(document: SourceDocument) -> str:
    """Its LSP id."""
    first_line = document.text[:_MAX_FIRST_LINE].partition("\n")[0]
    return language_of(document.path, first_line) or UNKNOWN_LANGUAGE


def _place(chosen: ChosenDocument) -> tuple[str, ...]:
    document = chosen.document
    return document.repository, document.path, document.revision, document.licence_file
