"""Drafters that are never right: what speculation costs at its worst."""

from __future__ import annotations

from collections.abc import Sequence as Ordered

import torch

from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.speculative.drafter import FREE, Ask, DraftCost, Drafter, DrafterStatus

WRONG_TOKEN = 0
"""Repeated; a model hardly ever writes it ("!" in Qwen's vocabulary)."""


class WrongDrafter:
    """Always offers all it is asked for, and all of it wrong. `spending` is a drafter that is made to do its work
    first, at its cost, only to be ignored; None drafts for nothing."""

    def __init__(self, spending: Drafter | None = None) -> None:
        self._spending = spending

    @property
    def name(self) -> str:
        return "wrong" if self._spending is None else "wrong_model"

    def opened(self, sequence: Sequence) -> None:
        if self._spending is not None:
            self._spending.opened(sequence)

    def cost(self, sequence: Sequence, batch_size: int) -> DraftCost | None:
        return FREE if self._spending is None else self._spending.cost(sequence, batch_size)

    def offer(self, asks: Ordered[Ask]) -> list[Draft | None]:
        if self._spending is None:
            return [Draft(self.name, (WRONG_TOKEN,) * ask.max_tokens, (0,) * ask.max_tokens) for ask in asks]
        return [
            draft and Draft(self.name, (WRONG_TOKEN,) * len(draft.token_ids), draft.classes)
            for draft in self._spending.offer(asks)
        ]

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor) -> None:
        if self._spending is not None:
            self._spending.observe(rounds, logits_RV)

    def closed(self, sequence: Sequence) -> None:
        if self._spending is not None:
            self._spending.closed(sequence)

    def status(self) -> DrafterStatus:
        return DrafterStatus()

    def shutdown(self) -> None:
        if self._spending is not None:
            self._spending.shutdown()
