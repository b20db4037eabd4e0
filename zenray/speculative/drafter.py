"""What a drafter is: anything that guesses the next tokens of a sequence. It can be wrong, late or gone."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import Protocol

import torch

from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a draft of at most `max_tokens` tokens (at least 1).

    `probability(class)` is the chance that a token of that class is accepted here. The product along the
    draft is its survival; drafting further is not worth its cost once that falls below `min_survival`.
    """

    sequence: Sequence
    max_tokens: int
    min_survival: float
    probability: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class DraftCost:
    """What asking would cost now, in milliseconds of the verifier's time.

    `start_ms` comes before the first token (a draft model that has to read the prompt), `token_ms` is each
    further token of the whole batch; the first `num_ready` tokens cost nothing (a remote answer that waits).
    """

    start_ms: float = 0.0
    token_ms: float = 0.0
    num_ready: int = 0


FREE = DraftCost()


@dataclass(frozen=True, slots=True)
class DrafterStatus:
    """What only the drafter itself knows; see `zenray.engine.request.DrafterLoad`."""

    timeouts: int = 0
    queue_age_ms: float = 0.0
    replicas: int = 0


class Drafter(Protocol):
    """Called by the engine thread only. None of these may wait without a deadline, or raise for a sequence's sake."""

    @property
    def name(self) -> str: ...

    def opened(self, sequence: Sequence) -> None:
        """A sequence has arrived. Its `token_ids` grow; the drafter keeps its own record of what it has seen."""

    def cost(self, sequence: Sequence, batch_size: int) -> DraftCost | None:
        """What a draft for this sequence would cost in a batch of that many; None when it cannot draft now."""

    def offer(self, asks: Ordered[Ask]) -> list[Draft | None]:
        """One draft, or None, per ask; all sequences of a step in one call."""

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor) -> None:
        """What the verifier chose, of this drafter's sequences and drafts or others'."""

    def closed(self, sequence: Sequence) -> None:
        """The sequence is finished."""

    def status(self) -> DrafterStatus:
        """May be called from any thread."""

    def shutdown(self) -> None:
        """Release threads, connections and memory."""
