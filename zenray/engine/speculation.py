"""What the engine knows of speculative decoding: drafts come in, verified rounds go out.

The engine neither makes drafts nor judges drafters; it only checks drafts against its own choices. Whatever a
speculator does, the tokens are those of plain decoding, because every committed token is the verifier's own.
"""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from zenray.engine.request import DrafterLoad
    from zenray.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens proposed to follow a sequence's last one, likeliest continuation only.

    `classes` holds one small integer per token: how sure the drafter is, in classes of its own
    (0 to `NUM_CLASSES` - 1). What a class is worth is learned from what gets accepted.
    """

    drafter: str
    token_ids: tuple[int, ...]
    classes: tuple[int, ...]

    def first(self, count: int) -> Draft:
        """Its first `count` tokens, all of them if there are no more."""
        return Draft(self.drafter, self.token_ids[:count], self.classes[:count])


NUM_CLASSES = 16


@dataclass(frozen=True, slots=True)
class Round:
    """One sequence's part of a verified step.

    `first_row` is the row of the step's logits that chose the round's first token; one row per draft token
    follows. `num_accepted` draft tokens equalled the verifier's choice. `num_committed` tokens were appended:
    one more than accepted, fewer only when a stop rule ended the choice.
    """

    sequence: Sequence
    draft: Draft | None
    num_accepted: int
    num_committed: int
    first_row: int


class Speculator(Protocol):
    """Called by the engine thread only."""

    def opened(self, sequence: Sequence) -> None:
        """A sequence has arrived; its prompt is not computed yet. Once per sequence."""

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        """Sets `sequence.draft` (to None for nothing) of every given decoding sequence.

        `room` bounds the draft tokens of the step over all sequences; `sequence.max_draft` those of one.
        """

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool) -> None:
        """The rounds of a step that produced tokens. Sequences may be finished by now.

        `is_pure_decode`: no prompt was computed in the same step, so `step_ms` is the cost of verifying.
        """

    def closed(self, sequence: Sequence) -> None:
        """The sequence is finished, however it ended. Once per opened sequence."""

    def load(self) -> tuple[DrafterLoad, ...]:
        """Counters per drafter since start; may be called from any thread."""

    def shutdown(self) -> None:
        """The engine ends: release threads, connections and memory."""
