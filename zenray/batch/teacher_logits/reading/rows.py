"""Parts of runs of records."""

from __future__ import annotations

import numpy as np

from zenray.engine.scoring import HiddenRows, ScoredRows


def take_rows(rows: ScoredRows, start: int, stop: int) -> ScoredRows:
    """Some consecutive records, `stop` not among them."""
    entries = np.concatenate([[0], np.cumsum(rows.head_counts_R)])
    start, stop, _ = slice(start, stop).indices(rows.num_rows)
    inside = slice(entries[start], entries[max(start, stop)])
    return ScoredRows(
        first_position=rows.first_position + start,
        gold_logprobs_R=rows.gold_logprobs_R[start:stop],
        entropies_R=rows.entropies_R[start:stop],
        head_counts_R=rows.head_counts_R[start:stop],
        head_ids_N=rows.head_ids_N[inside],
        head_logprobs_N=rows.head_logprobs_N[inside],
        tail_masses_R=rows.tail_masses_R[start:stop],
        tail_ids_RS=rows.tail_ids_RS[start:stop],
        hidden={
            layer: HiddenRows(states.values_RD[start:stop], states.scales_R[start:stop])
            for layer, states in rows.hidden.items()
        },
    )
