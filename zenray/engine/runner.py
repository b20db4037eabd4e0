"""Runs one forward pass for a plan: lays the tokens out, owns the KV tensors, returns states and logits."""

from __future__ import annotations

from collections.abc import Collection

import torch

from zenray.engine.blocks import BlockPool
from zenray.engine.scheduler import Scheduled
from zenray.model.decoder import Decoder, States
from zenray.ops.batch import Span, StepBatch, lay_out


class Runner:
    """The model and its KV cache. The pool decides which block is whose; the runner only follows tables."""

    def __init__(self, decoder: Decoder, pool: BlockPool) -> None:
        self._decoder = decoder
        self._block_size = pool.block_size
        self._caches = decoder.new_caches(pool.num_blocks, pool.block_size)

    def run(self, plan: list[Scheduled], rows: list[int], hidden_layers: Collection[int] = ()) -> States:
        """One step: the states of `rows`, which index its tokens laid end to end in the plan's order."""
        with torch.inference_mode():
            return self._decoder.states(self._lay_out(plan, rows), self._caches, hidden_layers)

    def head(self, states_RD: torch.Tensor) -> torch.Tensor:
        """[R, V] logits in the model's logits type."""
        return self._decoder.head(states_RD)

    def _lay_out(self, plan: list[Scheduled], logit_rows: list[int]) -> StepBatch:
        spans = []
        for scheduled in plan:
            sequence = scheduled.sequence
            start, end = sequence.num_computed, sequence.num_computed + scheduled.num_tokens
            token_ids = sequence.token_ids[start:end]
            if scheduled.num_draft:
                assert sequence.draft is not None and end == len(sequence.token_ids), "a draft follows the last token"
                token_ids += sequence.draft.token_ids[: scheduled.num_draft]
            spans.append(Span(token_ids, start, sequence.block_ids))
        return lay_out(spans, logit_rows, self._block_size, self._decoder.device)
