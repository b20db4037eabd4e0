"""Running a decoder without an engine: whole texts at once, for comparisons and tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from zenray.model.decoder import Decoder
from zenray.ops.batch import StepBatch

BLOCK_SIZE = 16


def step_batch(
    sequences: Sequence[tuple[Sequence[int], int]],
    *,
    max_tokens: int,
    rows: Sequence[int] | None = None,
    block_size: int = BLOCK_SIZE,
) -> StepBatch:
    """A step over sequences of (new token ids, tokens already in the cache).

    Sequence i owns the blocks of `max_tokens` tokens from i * blocks on. rows: the logits wanted, all by
    default.
    """
    blocks_each = -(-max_tokens // block_size)
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    starts, contexts = [0], []
    for index, (token_ids, cached) in enumerate(sequences):
        context = cached + len(token_ids)
        assert context <= max_tokens, (context, max_tokens)
        tokens += token_ids
        positions += range(cached, context)
        slots += range(index * blocks_each * block_size + cached, index * blocks_each * block_size + context)
        starts.append(len(tokens))
        contexts.append(context)
    tables = torch.arange(len(sequences) * blocks_each, dtype=torch.int32).reshape(len(sequences), blocks_each)
    return StepBatch(
        token_ids_T=torch.tensor(tokens, dtype=torch.int64),
        positions_T=torch.tensor(positions, dtype=torch.int64),
        query_starts=torch.tensor(starts, dtype=torch.int32),
        context_lens_S=torch.tensor(contexts, dtype=torch.int32),
        block_tables_SB=tables,
        slots_T=torch.tensor(slots, dtype=torch.int64),
        logit_rows_R=torch.arange(len(tokens)) if rows is None else torch.tensor(rows, dtype=torch.int64),
        query_starts_list=starts,
        context_lens_list=contexts,
    )


def sequence_logits(decoder: Decoder, token_ids: Sequence[int], *, chunk: int = 512) -> torch.Tensor:
    """Logits of every position of one text, [T, V], prefilled in chunks of `chunk` tokens."""
    caches = decoder.new_caches(-(-len(token_ids) // BLOCK_SIZE), BLOCK_SIZE)
    steps = [
        step_batch([(token_ids[start : start + chunk], start)], max_tokens=len(token_ids))
        for start in range(0, len(token_ids), chunk)
    ]
    return torch.cat([decoder.forward(step, caches) for step in steps])
