"""Times a decoder's forward passes by batch size and rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from zenray.model.decoder import Decoder
from zenray.ops.batch import Span, StepBatch, lay_out

MEASURED_ROWS: Mapping[int, tuple[int, ...]] = {
    1: (1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 17, 24, 33, 65),
    4: (4, 8, 9, 16, 17, 33),
    16: (16, 33, 65),
}
"""Rows by batch size: dense where drafts are short, and on both sides of 8 and 16, where kernels change."""
PREFILL_TOKENS = 128
CONTEXT_TOKENS = 256
BLOCK_SIZE = 16
MEASURE_BUDGET_S = 5.0
"""Passes over all sizes are repeated for so long, twice at least and `MOST_PASSES` times at most."""
MOST_PASSES = 7

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Milliseconds: `points_ms[batch_size][rows]` of a step, and of a token of a long prompt."""

    points_ms: Mapping[int, Mapping[int, float]]
    prefill_ms_per_token: float


def measure(
    decoder: Decoder,
    progress: Progress | None = None,
    clock_s: Callable[[], float] = time.perf_counter,
    measured_rows: Mapping[int, Sequence[int]] = MEASURED_ROWS,
) -> StepTimes:
    """Runs the decoder at all sizes in turn, again and again, and takes the least time of each.

    Other work on the machine only adds, and it comes and goes: the least says most about the step itself. In
    turn, so that a busy moment falls on all sizes alike. Uses its own small KV cache.
    """
    context = min(CONTEXT_TOKENS, decoder.config.max_position_embeddings // 2)
    shapes = [(batch_size, rows) for batch_size, sizes in measured_rows.items() for rows in sizes]
    tokens_of_one = max(PREFILL_TOKENS, *(-(-rows // batch_size) for batch_size, rows in shapes))
    num_blocks = max(measured_rows) * -(-(context + tokens_of_one) // BLOCK_SIZE)
    caches = decoder.new_caches(num_blocks, BLOCK_SIZE)
    batches = [_batch(decoder, batch_size, rows, context) for batch_size, rows in shapes]
    prefill = _batch(decoder, 1, min(PREFILL_TOKENS, context), context, num_logit_rows=1)

    def timed_ms(batch: StepBatch) -> float:
        start_s = clock_s()
        decoder.forward(batch, caches)
        if decoder.device.type == "cuda":
            torch.cuda.synchronize(decoder.device)
        return (clock_s() - start_s) * 1000

    for batch in (batches[0], batches[-1], prefill):  # warm up
        timed_ms(batch)
    times_ms: list[list[float]] = [[] for _ in batches]
    prefill_ms: list[float] = []
    start_s = clock_s()
    for pass_number in range(MOST_PASSES):
        if pass_number >= 2 and clock_s() - start_s > MEASURE_BUDGET_S * pass_number / (pass_number + 1):
            break
        if progress is not None:
            progress(pass_number, MOST_PASSES, "measuring steps")
        for batch, taken_ms in zip(batches, times_ms, strict=True):
            taken_ms.append(timed_ms(batch))
        prefill_ms.append(timed_ms(prefill))
    if progress is not None:
        progress(MOST_PASSES, MOST_PASSES, "measuring steps")
    points_ms: dict[int, dict[int, float]] = {}
    for (batch_size, rows), taken_ms in zip(shapes, times_ms, strict=True):
        points_ms.setdefault(batch_size, {})[rows] = min(taken_ms)
    return StepTimes(points_ms, min(prefill_ms) / prefill.token_ids_T.shape[0])


def _batch(decoder: Decoder, batch_size: int, rows: int, context: int, num_logit_rows: int | None = None) -> StepBatch:
    """`rows` tokens dealt to `batch_size` sequences as evenly as they go, each behind `context` tokens."""
    counts = [rows // batch_size + (index < rows % batch_size) for index in range(batch_size)]
    width = -(-(context + max(counts)) // BLOCK_SIZE)
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(decoder.config.vocab_size, (rows,), generator=generator).tolist()
    spans = [
        Span(token_ids[end - count : end], context, range(index * width, (index + 1) * width))
        for index, (count, end) in enumerate(zip(counts, accumulate(counts), strict=True))
    ]
    first_row = rows - (rows if num_logit_rows is None else num_logit_rows)
    return lay_out(spans, range(first_row, rows), BLOCK_SIZE, decoder.device)
