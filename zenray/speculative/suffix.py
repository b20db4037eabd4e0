"""Copies of earlier text as drafts: of the prompt, of what was generated, of the session's recent requests.

Prompt lookup (Saxena 2023) with the longest match and the frequencies of SuffixDecoding (Oliaro et al. 2024,
arXiv 2411.04975), found without an index (see `copying`), and with a memory for edits (see `copier`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.speculative.copier import Copier, Copy
from zenray.speculative.drafter import FREE, Ask, DraftCost, DrafterStatus
from zenray.speculative.history import SessionHistory, TokenText, reading_order

if TYPE_CHECKING:
    from zenray.model.tokenizer import FimTokens

# A token is as sure as the match before it is long, tokens of the same draft included: had they been wrong, it would
# not come to this one. Classes 0-3 after a contested match, 4-11 after a unanimous one, 12-14 in a resumed copy, 15
# for a token of a repeated edit.
_CONTESTED_LENGTHS: tuple[int, ...] = (2, 3, 6)
_UNANIMOUS_LENGTHS: tuple[int, ...] = (2, 3, 4, 6, 10, 18, 34)
_RESUMED_LENGTHS: tuple[int, ...] = (1, 5)
_UNANIMOUS, _RESUMED, _EDITED = 4, 12, 15


def confidence_classes(copy: Copy) -> list[int]:
    """The class of every token of a copy, as measured classes of acceptance (see `Draft.classes`)."""
    match = copy.candidate.match
    first, lengths = 0, _CONTESTED_LENGTHS
    if match is None:
        first, lengths = _RESUMED, _RESUMED_LENGTHS
    elif match.is_unanimous:
        first, lengths = _UNANIMOUS, _UNANIMOUS_LENGTHS
    return [
        _EDITED if edit else first + bisect_right(lengths, copy.candidate.length + depth)
        for depth, edit in enumerate(copy.edits)
    ]


def worth_drafting(classes: Ordered[int], ask: Ask) -> int:
    """How many tokens of those classes survive with at least the probability asked for."""
    survival = 1.0
    for count, token_class in enumerate(classes):
        survival *= ask.probability(token_class)
        if survival < ask.min_survival:
            return count
    return len(classes)


class SuffixDrafter:
    """Keeps a text per open sequence and a bounded history per session. Costs no model time."""

    name = "suffix"

    def __init__(self, session_tokens: int, max_sessions: int, fim: FimTokens | None) -> None:
        self.history = SessionHistory(session_tokens, max_sessions)
        self._fim = fim
        self._open: dict[Sequence, _Open] = {}

    def opened(self, sequence: Sequence) -> None:
        text = TokenText(reading_order(sequence.token_ids, self._fim))
        copier = Copier(text, self.history.recall(sequence.request.session_id))
        self._open[sequence] = _Open(copier, len(sequence.token_ids))

    def cost(self, sequence: Sequence, batch_size: int) -> DraftCost | None:
        return FREE if sequence in self._open else None

    def offer(self, asks: Ordered[Ask]) -> list[Draft | None]:
        return [self._offer(ask) for ask in asks]

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor) -> None:
        """Nothing to do: committed tokens are read from the sequence when it asks again."""

    def closed(self, sequence: Sequence) -> None:
        known = self._open.pop(sequence, None)
        if known is not None:
            known.catch_up(sequence)
            self.history.remember(sequence.request.session_id, known.copier.text_N)

    def status(self) -> DrafterStatus:
        return DrafterStatus()

    def shutdown(self) -> None:
        self._open.clear()
        self.history.clear()

    def _offer(self, ask: Ask) -> Draft | None:
        known = self._open.get(ask.sequence)
        if known is None:
            return None
        known.catch_up(ask.sequence)
        copy = known.copier.copy(ask.max_tokens)
        if copy is None:
            return None
        classes = confidence_classes(copy)[: ask.max_tokens]
        num_tokens = worth_drafting(classes, ask)
        if not num_tokens:
            return None
        return Draft(self.name, tuple(copy.token_ids[:num_tokens]), tuple(classes[:num_tokens]))


@dataclass(slots=True)
class _Open:
    """An open sequence; its copier knows the first `num_known` of its tokens."""

    copier: Copier
    num_known: int

    def catch_up(self, sequence: Sequence) -> None:
        self.copier.extend(sequence.token_ids[self.num_known :])
        self.num_known = len(sequence.token_ids)
