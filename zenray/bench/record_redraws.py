"""Records of the same positions, drawn and rounded many times: is their mean the teacher's distribution?

Shapes: X positions, V vocabulary, F functions of a token, G groups of positions, M redraws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.bench.record_formats import sparse_of
from zenray.bench.record_pass import code_rows
from zenray.bench.record_statistics import bands, expected_largest_z, z_scores
from zenray.engine.row_scorer import summaries, to_records
from zenray.engine.scoring import ScoredRows
from zenray.ops.backend import Backend

BAND_EDGES = (16, 128, 1024, 4096, 16384)
NUM_SIGN_FUNCTIONS = 8
GROUP_EDGES = (0.3, 2.0)
"""Nats. Where a teacher is sure, what is drawn is rare: groups are large enough for a mean to be normal."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Logits and a student's log-probs [X, V], float32."""

    logits_XV: np.ndarray
    student_XV: np.ndarray


def redraw(
    positions: Positions, record_format: RecordFormat, vocabulary: Vocabulary, ops: Backend, num_redraws: int
) -> dict[str, Any]:
    """A row of the report. The statistics, fixed beforehand, are means over the positions of a group of like entropy of
    the expectation of: being in a band of the vocabulary by frequency, random signs, the student's loss, and 1."""
    logits_XV = torch.from_numpy(positions.logits_XV)
    exact_XV = torch.softmax(logits_XV.double(), dim=1).numpy()
    entropies_X = -(exact_XV * np.log(np.maximum(exact_XV, 1e-300))).sum(axis=1)
    groups_X = np.searchsorted(GROUP_EDGES, entropies_X, side="right")
    functions_FV = _functions(vocabulary)
    losses_XV = -positions.student_XV.astype(np.float64)
    exact_XF = np.column_stack([exact_XV @ functions_FV.T, (exact_XV * losses_XV).sum(axis=1)])
    drawn = []
    chance = np.random.default_rng(0)
    for number in range(num_redraws):
        rows = _score(logits_XV, chance.random(len(logits_XV)), record_format, ops)
        found = sparse_of(code_rows(rows, record_format, vocabulary, number))
        values_FXK = functions_FV[:, found.ids_RK]
        found_XF = (values_FXK * found.probabilities_RK).sum(axis=2).T
        losses_XK = np.take_along_axis(losses_XV, found.ids_RK, axis=1)
        drawn.append(_group_means(np.column_stack([found_XF, (losses_XK * found.probabilities_RK).sum(1)]), groups_X))
    scores = z_scores(np.stack(drawn), _group_means(exact_XF, groups_X))
    return {
        "measure": "redraws",
        "format": record_format.name,
        "positions": len(exact_XV),
        "redraws": num_redraws,
        "statistics": len(scores),
        "largest_z": float(np.abs(scores).max()),
        "expected_largest_z": expected_largest_z(len(scores)),
        "beyond_3": int((np.abs(scores) > 3).sum()),
        "root_mean_square_z": float(np.sqrt((scores**2).mean())),
        "z": [float(each) for each in scores],
    }


def _functions(vocabulary: Vocabulary) -> np.ndarray:
    """[F, V]: bands, signs, and 1."""
    bands_V = bands(vocabulary.counts_V, BAND_EDGES)
    in_bands = bands_V == np.arange(len(BAND_EDGES) + 1)[:, None]
    signs = np.random.default_rng(1).choice([-1.0, 1.0], (NUM_SIGN_FUNCTIONS, vocabulary.size))
    return np.concatenate([in_bands, signs, np.ones((1, vocabulary.size))])


def _score(logits_XV: torch.Tensor, uniforms_X: np.ndarray, record_format: RecordFormat, ops: Backend) -> ScoredRows:
    targets_X = torch.zeros(len(logits_XV), dtype=torch.int64)
    found = summaries(ops, logits_XV, targets_X, torch.from_numpy(uniforms_X), record_format.score_format)
    return to_records([found], first_position=0)


def _group_means(values_XF: np.ndarray, groups_X: np.ndarray) -> np.ndarray:
    return np.concatenate([values_XF[groups_X == group].mean(axis=0) for group in np.unique(groups_X)])
