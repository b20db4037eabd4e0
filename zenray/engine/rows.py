"""Which rows of a step's output are wanted, and what for."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from zenray.engine.scheduler import Scheduled


@dataclass(frozen=True, slots=True)
class EntryRows:
    """Rows of one plan entry: `read` of the step's states, from which the distributions over prompt tokens are read,
    and `chosen` of its logits, which choose the tokens to come. Either may be empty."""

    read: range
    chosen: range


@dataclass(frozen=True, slots=True)
class StepRows:
    """`tokens` are those of the step's tokens, laid end to end in the plan's order, whose states are wanted;
    `choosing` are the rows of these states whose logits choose tokens. Both ascend."""

    tokens: list[int]
    choosing: list[int]
    entries: list[EntryRows]
    hidden_layers: frozenset[int]
    """Layers whose states somebody wants of the rows that are read."""


def wanted_rows(plan: Ordered[Scheduled]) -> StepRows:
    """A prompt's token is read from the row before it, if its distribution was asked for and not read yet. A choice is
    made by the last pending token's row and those of its draft, if there is a token to come."""
    tokens: list[int] = []
    choosing: list[int] = []
    entries = []
    hidden_layers: set[int] = set()
    start = 0
    for scheduled in plan:
        sequence, count = scheduled.sequence, scheduled.num_tokens
        shift = start - sequence.num_computed  # from positions to tokens of the step
        first = max(sequence.num_computed, sequence.next_read - 1)
        end = max(first, min(sequence.num_computed + count, sequence.num_prompt - 1))
        num_choosing = 0
        if count == sequence.num_pending and sequence.request.limits.max_tokens:
            num_choosing = 1 + scheduled.num_draft
        if end > first and sequence.request.scoring is not None:
            hidden_layers.update(sequence.request.scoring.hidden_layers)
        read = range(len(tokens), len(tokens) + end - first)
        tokens += range(first + shift, end + shift)
        entries.append(EntryRows(read, range(len(choosing), len(choosing) + num_choosing)))
        choosing += range(len(tokens), len(tokens) + num_choosing)
        tokens += range(start + count - 1, start + count - 1 + num_choosing)
        start += count + scheduled.num_draft
    return StepRows(tokens, choosing, entries, frozenset(hidden_layers))
