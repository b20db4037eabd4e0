"""Running a decoder without an engine: whole texts at once, for comparisons and tests."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from zenray.model.decoder import Decoder
from zenray.model.tokenizer import Tokenizer
from zenray.ops.batch import Span, StepBatch, lay_out

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
    spans = []
    for index, (token_ids, cached) in enumerate(sequences):
        context = cached + len(token_ids)
        assert context <= max_tokens, (context, max_tokens)
        spans.append(Span(token_ids, cached, range(index * blocks_each, (index + 1) * blocks_each)))
    num_tokens = sum(len(span.token_ids) for span in spans)
    return lay_out(spans, range(num_tokens) if rows is None else rows, block_size)


def chunked_logits(decoder: Decoder, token_ids: Sequence[int], chunk: int = 256) -> Iterator[torch.Tensor]:
    """Logits of every position of one text, [chunk, V] at a time: those of a large vocabulary are big."""
    caches = decoder.new_caches(-(-len(token_ids) // BLOCK_SIZE), BLOCK_SIZE)
    for start in range(0, len(token_ids), chunk):
        step = step_batch([(token_ids[start : start + chunk], start)], max_tokens=len(token_ids))
        yield decoder.forward(step, caches)


def sequence_logits(decoder: Decoder, token_ids: Sequence[int]) -> torch.Tensor:
    """Logits of every position of one text: [T, V]."""
    return torch.cat(list(chunked_logits(decoder, token_ids)))


STANDARD_LIBRARY_TEXTS = (
    "tomllib/_parser.py",
    "asyncio/taskgroups.py",
    "graphlib.py",
    "heapq.py",
    "shlex.py",
    "statistics.py",
    "wave.py",
    "zipapp.py",
)


def code_texts(files: Sequence[Path] = ()) -> dict[str, str]:
    """Texts by name: the given files, by default a fixed choice of the Python standard library."""
    if files:
        return {str(file): file.read_text(encoding="utf-8") for file in files}
    library = Path(sysconfig.get_paths()["stdlib"])
    return {name: (library / name).read_text(encoding="utf-8") for name in STANDARD_LIBRARY_TEXTS}


def token_windows(tokenizer: Tokenizer, texts: Mapping[str, str], tokens_each: int) -> list[list[int]]:
    """The first `tokens_each` tokens of every text, a BOS first where the model wants one."""
    start = [tokenizer.bos_token_id] if tokenizer.add_bos and tokenizer.bos_token_id is not None else []
    return [(start + tokenizer.encode(text))[:tokens_each] for text in texts.values()]
