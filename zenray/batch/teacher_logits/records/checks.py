"""What every format checks of values that came from a disk."""

from __future__ import annotations

import numpy as np

from zenray.batch.teacher_logits.records.planes import NUM_RANK_PLANES, from_planes
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.errors import OutputDamaged


def ids_of_planes(data: bytes, count: int, vocabulary: Vocabulary) -> np.ndarray:
    """int32 [count]: the tokens of planes of ranks. Raises OutputDamaged for other lengths or ranks."""
    ranks_N = from_planes(data, NUM_RANK_PLANES, count)
    if count and ranks_N.max() >= vocabulary.size:
        raise OutputDamaged(f"rank {ranks_N.max()} of a vocabulary of {vocabulary.size}")
    ids_N: np.ndarray = vocabulary.ids_V[ranks_N]
    return ids_N
