"""What a tail probably looks like, of which only the mass is known."""

from __future__ import annotations

import numpy as np

from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.engine.scoring import ScoredRows

_SEQUENCE_SHARE = 0.4


def tail_prior(rows: ScoredRows, vocabulary: Vocabulary) -> np.ndarray:
    """float64 [V], sums to 1 and is nowhere 0: the corpus's unigram prior, mixed with how often each token is in the
    heads of the same sequence (`rows` are all of its records), which tells what the teacher thinks of hereabouts.

    Measured on records of the 1.5B, this takes a tenth off the divergence that the unigram prior alone leaves.
    Counting every entry as one is better than by its probability: tails are made of small ones.
    """
    if not len(rows.head_ids_N):
        return vocabulary.prior_V
    counts_V = np.bincount(rows.head_ids_N, minlength=vocabulary.size)
    mixed_V: np.ndarray = (1 - _SEQUENCE_SHARE) * vocabulary.prior_V + _SEQUENCE_SHARE * counts_V / counts_V.sum()
    return mixed_V
