"""A draft's output head, restricted to the tokens code is made of.

A small model spends much of a decode step on its head: a quarter of Qwen2.5-Coder-0.5B's bytes choose among
151,936 tokens of all languages. A draft may leave the rare ones out, since the verifier puts right what is wrong
(VocabTrim, arXiv 2506.22694; FR-Spec, arXiv 2502.14856). Only the head shrinks: every token can still be read.

Rankings by frequency in code are data files made by `scripts/rank_tokens.py`, found by the digest of the
vocabulary they are for. Without one the lowest ids are kept, which byte-level BPE merged first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np
import torch

from zenray.model.decoder import Decoder
from zenray.model.load import LoadedModel
from zenray.model.tokenizer import Tokenizer
from zenray.ops.packing import take_rows
from zenray.speculative.vocabulary import vocabulary_digest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrimmedModel(LoadedModel):
    """A model whose logits column r is that of token `head_ids_R[r]`, ids ascending."""

    head_ids_R: torch.Tensor


def trim_head(model: LoadedModel, num_tokens: int) -> LoadedModel:
    """`model` with a head of its `num_tokens` most frequent tokens; itself where that is all or 0.

    Embedding and layers are shared with `model`. The head is copied in its packed format; the full one is
    free to go with `model` (one mapped from a file takes no memory once nobody reads it).
    """
    if not 0 < num_tokens < model.config.vocab_size:
        return model
    decoder = model.decoder
    head_ids_R = torch.tensor(head_token_ids(model.tokenizer, num_tokens), device=decoder.device)
    weights = replace(decoder.weights, head=take_rows(decoder.weights.head, head_ids_R))
    trimmed = Decoder(decoder.config, weights, decoder.ops)
    info = replace(model.info, weight_bytes=weights.num_bytes)
    return TrimmedModel(trimmed, model.tokenizer, info, head_ids_R)


def head_token_ids(tokenizer: Tokenizer, count: int) -> list[int]:
    """The `count` tokens to keep, ascending: those that end a text, then the most frequent."""
    ends = sorted(token_id for token_id in tokenizer.eos_token_ids if token_id < tokenizer.vocab_size)
    ranking = ranked_tokens(tokenizer)
    if ranking is None:
        _log.warning("no token ranking for this vocabulary: the trimmed head keeps the %d lowest ids", count)
        ranking = ()
    order = dict.fromkeys([*ends, *ranking, *range(tokenizer.vocab_size)])
    return sorted(list(order)[:count])


def ranked_tokens(tokenizer: Tokenizer) -> Sequence[int] | None:
    """Ids from the packaged ranking of this vocabulary, most frequent first; None where there is none."""
    file = resources.files("zenray.speculative") / "data" / ranking_name(tokenizer)
    if not file.is_file():
        return None
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        ids: list[int] = arrays["token_ids"].tolist()
    return ids


def ranking_name(tokenizer: Tokenizer) -> str:
    """File name of the ranking for a vocabulary."""
    return f"head-{vocabulary_digest(tokenizer)[:16]}.npz"
