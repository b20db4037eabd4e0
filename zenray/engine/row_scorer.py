"""Final states of rows to records, a few rows of logits at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from zenray.engine.scoring import ScoredRows, ScoreFormat
from zenray.model.decoder import Decoder
from zenray.ops.backend import Backend
from zenray.ops.summary import RowSummaries

CHUNK_ROWS = 64
"""Rows whose logits exist at once: enough to read the head's weights rarely."""
MAX_BUFFER_MIB = 64
"""What these may take, whatever the vocabulary."""


class RowScorer:
    """Scores rows in chunks through one buffer, kept between calls: fresh pages would cost a third of the product.

    Where the decoder's backend computes a row without regard to its neighbours, a row's record does not depend on
    the chunk either.
    """

    def __init__(self, decoder: Decoder, chunk_rows: int = CHUNK_ROWS) -> None:
        self._decoder = decoder
        self._vocab_size = decoder.config.vocab_size
        self._wide = torch.float64 if decoder.dtype == torch.float64 else torch.float32
        self._chunk_rows = max(1, min(chunk_rows, (MAX_BUFFER_MIB << 20) // (self._vocab_size * self._wide.itemsize)))
        self._logits_RV: torch.Tensor | None = None

    @torch.inference_mode()
    def score(
        self,
        states_RD: torch.Tensor,
        targets_R: np.ndarray,
        uniforms_R: np.ndarray,
        format: ScoreFormat,
        first_position: int,
    ) -> ScoredRows:
        """Records of R consecutive positions of one sequence, R at least 1.

        `states_RD` are the final norm's output at the positions before, `targets_R` (integers) the tokens that stand
        there and `uniforms_R` (float64, in [0, 1)) what their tails are drawn by. Hidden states are left out.
        """
        targets = torch.as_tensor(targets_R, dtype=torch.int64, device=states_RD.device)
        uniforms = torch.as_tensor(uniforms_R, dtype=torch.float64, device=states_RD.device)
        parts: list[RowSummaries] = []
        for start in range(0, len(states_RD), self._chunk_rows):
            rows = slice(start, start + self._chunk_rows)
            logits_RV = self._decoder.head(states_RD[rows], self._buffer(len(targets[rows])))
            parts.append(summaries(self._decoder.ops, logits_RV, targets[rows], uniforms[rows], format))
        return to_records(parts, first_position)

    def _buffer(self, num_rows: int) -> torch.Tensor:
        if self._logits_RV is None:
            shape = (self._chunk_rows, self._vocab_size)
            self._logits_RV = torch.empty(shape, dtype=self._wide, device=self._decoder.device)
        return self._logits_RV[:num_rows]


def summaries(
    ops: Backend, logits_RV: torch.Tensor, targets_R: torch.Tensor, uniforms_R: torch.Tensor, format: ScoreFormat
) -> RowSummaries:
    """What `format` keeps of rows of logits, on their device; arguments as for `Backend.summarise`."""
    return ops.summarise(
        logits_RV,
        targets_R,
        uniforms_R,
        format.max_head,
        format.head_mass,
        format.num_tail_samples,
        format.least_probability,
    )


def to_records(parts: Sequence[RowSummaries], first_position: int) -> ScoredRows:
    """Summaries of rows that follow each other as records on the host, without hidden states."""

    def joined(name: str, kind: type[np.generic]) -> np.ndarray:
        return torch.cat([getattr(part, name) for part in parts]).cpu().numpy().astype(kind, copy=False)

    counts_R = joined("head_counts_R", np.int32)
    head_ids_RK = joined("head_ids_RK", np.int32)
    in_head_RK = np.arange(head_ids_RK.shape[1]) < counts_R[:, None]
    return ScoredRows(
        first_position=first_position,
        gold_logprobs_R=joined("gold_logprobs_R", np.float32),
        entropies_R=joined("entropies_R", np.float32),
        head_counts_R=counts_R,
        head_ids_N=head_ids_RK[in_head_RK],
        head_logprobs_N=joined("head_logprobs_RK", np.float32)[in_head_RK],
        tail_masses_R=joined("tail_masses_R", np.float32),
        tail_ids_RS=joined("tail_ids_RS", np.int32),
    )
