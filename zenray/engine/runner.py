"""Runs one forward pass for a plan: lays the tokens out, owns the KV tensors, returns logits rows."""

from __future__ import annotations

import torch

from zenray.engine.blocks import BlockPool
from zenray.engine.scheduler import Scheduled
from zenray.model.decoder import Decoder
from zenray.ops.batch import StepBatch


class Runner:
    """The model and its KV cache. The pool decides which block is whose; the runner only follows tables."""

    def __init__(self, decoder: Decoder, pool: BlockPool) -> None:
        self._decoder = decoder
        self._block_size = pool.block_size
        self._caches = decoder.new_caches(pool.num_blocks, pool.block_size)

    def run(self, plan: list[Scheduled], logit_rows: list[int]) -> torch.Tensor:
        """One step: [len(logit_rows), V] logits in the model's logits type.

        `logit_rows` index the step's tokens laid end to end in the plan's order.
        """
        with torch.inference_mode():
            return self._decoder.forward(self._lay_out(plan, logit_rows), self._caches)

    def _lay_out(self, plan: list[Scheduled], logit_rows: list[int]) -> StepBatch:
        block_size = self._block_size
        token_ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        query_starts = [0]
        context_lens: list[int] = []
        for scheduled in plan:
            sequence = scheduled.sequence
            start, end = sequence.num_computed, sequence.num_computed + scheduled.num_tokens
            token_ids += sequence.token_ids[start:end]
            if scheduled.num_draft:
                assert sequence.draft is not None and end == len(sequence.token_ids), "a draft follows the last token"
                token_ids += sequence.draft.token_ids[: scheduled.num_draft]
                end += scheduled.num_draft
            positions += range(start, end)
            slots += [
                sequence.block_ids[position // block_size] * block_size + position % block_size
                for position in range(start, end)
            ]
            query_starts.append(len(token_ids))
            context_lens.append(end)
        width = max(len(scheduled.sequence.block_ids) for scheduled in plan)
        tables = [
            scheduled.sequence.block_ids + [0] * (width - len(scheduled.sequence.block_ids)) for scheduled in plan
        ]
        device = self._decoder.device
        return StepBatch(
            token_ids_T=torch.tensor(token_ids, dtype=torch.int64, device=device),
            positions_T=torch.tensor(positions, dtype=torch.int64, device=device),
            query_starts=torch.tensor(query_starts, dtype=torch.int32, device=device),
            context_lens_S=torch.tensor(context_lens, dtype=torch.int32, device=device),
            block_tables_SB=torch.tensor(tables, dtype=torch.int32, device=device),
            slots_T=torch.tensor(slots, dtype=torch.int64, device=device),
            logit_rows_R=torch.tensor(logit_rows, dtype=torch.int64, device=device),
            query_starts_list=query_starts,
            context_lens_list=context_lens,
        )
