"""Distributions over a prompt's own tokens: records of scored ones, log-probabilities of others."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import replace

import numpy as np
import torch

from zenray.engine.noise import uniform
from zenray.engine.request import TokenLogprob
from zenray.engine.row_scorer import RowScorer
from zenray.engine.rows import StepRows
from zenray.engine.sampler import token_logprobs
from zenray.engine.scheduler import Scheduled
from zenray.engine.scoring import HiddenRows, ScoredRows, ScoreFormat, split_rows
from zenray.engine.sequence import Sequence
from zenray.model.decoder import Decoder, States
from zenray.ops.batch import SERIAL_ELEMENTS, select_rows


class PromptReader:
    """Reads what a step's states say of the prompt tokens behind them. Changes no sequence."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._scorer = RowScorer(decoder)

    def score(self, plan: Ordered[Scheduled], rows: StepRows, states: States) -> dict[Sequence, ScoredRows]:
        """The records this step gives, by sequence. Those of one format are reduced together: the head's weights are
        read once for all."""
        by_format: dict[ScoreFormat, list[tuple[Sequence, range]]] = {}
        for scheduled, entry in zip(plan, rows.entries, strict=True):
            scoring = scheduled.sequence.request.scoring
            if scoring is not None and entry.read:
                by_format.setdefault(scoring.format, []).append((scheduled.sequence, entry.read))
        return {
            sequence: replace(records, hidden=_hidden(sequence, read, states))
            for format, group in by_format.items()
            for (sequence, read), records in zip(group, self._reduce(group, format, states), strict=True)
        }

    def _reduce(self, group: list[tuple[Sequence, range]], format: ScoreFormat, states: States) -> list[ScoredRows]:
        positions = [(sequence, sequence.next_read + row) for sequence, read in group for row in range(len(read))]
        together = self._scorer.score(
            select_rows(states.final_RD, [row for _, read in group for row in read]),
            np.array([sequence.token_ids[position] for sequence, position in positions]),
            np.array([uniform(sequence.seed, position) for sequence, position in positions]),
            format,
            first_position=0,
        )
        return split_rows(together, [(sequence.next_read, len(read)) for sequence, read in group])

    def logprobs(self, sequence: Sequence, read: range, states: States) -> list[TokenLogprob]:
        """Log-probabilities of the prompt's next tokens."""
        first = sequence.next_read
        logits_RV = self._decoder.head(states.final_RD[read.start : read.stop])
        num_top = sequence.request.sampling.logprobs or 0
        return token_logprobs(logits_RV, sequence.token_ids[first : first + len(read)], num_top)


def _hidden(sequence: Sequence, read: range, states: States) -> dict[int, HiddenRows]:
    assert sequence.request.scoring is not None
    layers = sequence.request.scoring.hidden_layers
    return {layer: quantise_rows(states.hidden_RD[layer][read.start : read.stop]) for layer in layers}


def quantise_rows(states_RD: torch.Tensor) -> HiddenRows:
    """Each row as int8 times its largest magnitude over 127, computed where the states are. A row of zeros has scale
    0."""
    at_once = max(1, SERIAL_ELEMENTS // states_RD.shape[1])
    parts = [_quantised(part_RD.float()) for part_RD in torch.split(states_RD, at_once)]
    values, scales = zip(*parts, strict=True)
    return HiddenRows(np.concatenate(values), np.concatenate(scales))


_ROUNDER = 1.5 * 2.0**23
"""Added and taken away it leaves the nearest integer of a small float32; torch.round would wake threads."""


def _quantised(states_RD: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    scales_R = states_RD.abs().amax(dim=1) / 127
    divisors_R = torch.where(scales_R > 0, scales_R, 1.0)
    values_RD = (states_RD / divisors_R[:, None]).clamp(-127, 127) + _ROUNDER - _ROUNDER
    return values_RD.to(torch.int8).cpu().numpy(), scales_R.cpu().numpy()
