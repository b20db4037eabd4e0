"""Which copy of an expert computes it in this step."""

from __future__ import annotations

from collections.abc import Sequence

from zenray.experts.placement import LEADER

READ_ROWS = 16
"""What reading an expert's weights costs, in rows multiplied with them. For an expert of 1536 x 4480 on two cores one
row takes as long as 9 (int4), 17 (int8) or 27 (bf16) further ones."""

ASK_ROWS = 4
"""What it costs to ask a shard that would be idle in this layer, in rows: a round trip through a socket of about a
hundred microseconds, where that expert's row takes 28 (int8) to 47 (bf16)."""


def assign(holders: Sequence[Sequence[int]], counts: Sequence[int]) -> list[int]:
    """The shard that computes each used expert of one layer: holders[i] (ascending) have expert i's weights and
    counts[i] rows want it.

    Shards work at the same time, so this keeps the one that finishes last early: experts with one holder first,
    then those with a choice, largest first, each where it is done soonest. Ties go to the lowest number: the
    leader needs no transport.
    """
    chosen = [copies[0] for copies in holders]
    choices = [index for index, copies in enumerate(holders) if len(copies) > 1]
    if not choices:
        return chosen
    rows_by_shard = {LEADER: 0}
    for index, copies in enumerate(holders):
        if len(copies) == 1:
            shard = copies[0]
            rows_by_shard[shard] = rows_by_shard.get(shard, ASK_ROWS) + READ_ROWS + counts[index]
    if len(choices) > 1:
        choices.sort(key=lambda index: -counts[index])
    for index in choices:
        best = least = -1
        for shard in holders[index]:
            rows = rows_by_shard.get(shard, ASK_ROWS)
            if least < 0 or rows < least:
                best, least = shard, rows
        chosen[index] = best
        rows_by_shard[best] = least + READ_ROWS + counts[index]
    return chosen
