"""Which documents are planned, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zenray.batch.inputs.document import SourceDocument
from zenray.batch.rows import derive_seed, row_id
from zenray.batch.teacher_logits.planning.account import PlanAccount
from zenray.context.languages.registry import language_of

UNKNOWN_LANGUAGE = "plaintext"
"""What LSP calls a document of no known language."""
_MAX_FIRST_LINE = 500


@dataclass(frozen=True, slots=True)
class ChosenDocument:
    """`document_id` is a function of the text alone."""

    document_id: str
    language: str
    document: SourceDocument


def choose_documents(
    documents: Iterable[SourceDocument], languages: tuple[str, ...], seed: int, account: PlanAccount
) -> list[ChosenDocument]:
    """Documents in one of `languages` (in any, if empty), each text once, in an order drawn by the seed and the texts:
    the first of them are a random sample of all.

    Of copies the one whose repository and path come first stands for all, so the order in which documents are given
    does not matter.
    """
    chosen: dict[str, ChosenDocument] = {}
    for document in documents:
        account.num_documents += 1
        language = document_language(document)
        if languages and language not in languages:
            account.documents_left_out["in another language"] += 1
            continue
        found = ChosenDocument(row_id("document", document.text), language, document)
        known = chosen.get(found.document_id)
        if known is not None:
            account.documents_left_out["copy of another document"] += 1
            found = min(known, found, key=_place)
        chosen[found.document_id] = found
    return sorted(chosen.values(), key=lambda each: (derive_seed(seed, each.document_id, "order"), each.document_id))


def document_language(document: SourceDocument) -> str:
    """Its LSP id."""
    first_line = document.text[:_MAX_FIRST_LINE].partition("\n")[0]
    return language_of(document.path, first_line) or UNKNOWN_LANGUAGE


def _place(chosen: ChosenDocument) -> tuple[str, ...]:
    document = chosen.document
    return document.repository, document.path, document.revision, document.licence_file
