"""What is scored: sequences made of segments. Both travel as rows and end up as columns."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


def token_array(token_ids: Sequence[int]) -> array[int]:
    """Ids as unsigned 32-bit numbers: a tenth of what a tuple of ints takes, equal by value, readable as a buffer."""
    return token_ids if isinstance(token_ids, array) and token_ids.typecode == "I" else array("I", token_ids)


class Mode(Enum):
    """How a segment's text was arranged (Bavarian et al., arXiv 2207.14255)."""

    PLAIN = "plain"
    PSM = "psm"
    """prefix, suffix, middle, each behind its control token."""
    SPM = "spm"
    """suffix first, then prefix and middle as one run of text."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that the teacher reads by themselves, whatever stands before them in their sequence.

    Positions from `first_scored` on get records. A document too long for one segment is cut into windows that overlap:
    the first tokens of window 1, 2, ... only give context, so that every token of a document is scored exactly once
    (the very first one never: nothing predicts it). `window` counts them, and the pieces of a long document that was
    transformed for infilling, which do not overlap.

    `token_ids` may be given as any sequence; it is kept as an array of four bytes a token.
    """

    token_ids: Sequence[int]
    first_scored: int
    mode: Mode
    language: str
    path: str
    repository: str
    revision: str
    licence_file: str
    window: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", token_array(self.token_ids))

    @property
    def num_scored(self) -> int:
        return len(self.token_ids) - self.first_scored


@dataclass(frozen=True, slots=True)
class PackedSequence:
    """One row: segments laid end to end, as many as fit the job's window. A trainer masks attention between them."""

    row_id: str
    segments: tuple[Segment, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(segment.token_ids) for segment in self.segments)

    @property
    def num_scored(self) -> int:
        return sum(segment.num_scored for segment in self.segments)
