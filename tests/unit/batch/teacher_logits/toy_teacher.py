"""A teacher without a model: its logits are a function of the tokens it has read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch

from zenray.batch.job import Generated, ModelIdentity
from zenray.engine.noise import uniform
from zenray.engine.request import Limits, Sampling
from zenray.engine.row_scorer import summaries, to_records
from zenray.engine.scoring import HiddenRows, ScoredRows, Scoring
from zenray.errors import InvalidRequest
from zenray.model.tokenizer import ByteTokenizer, Tokenizer
from zenray.ops.reference import ReferenceBackend

WIDTH, NUM_LAYERS = 8, 2
"""Of its hidden states."""


def toy_logits(token_ids: Sequence[int], vocab_size: int) -> np.ndarray:
    """[T, V]: what it says after each token; of some tokens it is sure, of others it knows nothing."""
    logits = []
    for position in range(len(token_ids)):
        seed = sha256(bytes(str(list(token_ids[: position + 1])), "ascii")).digest()
        random = np.random.default_rng(list(seed))
        logits.append(random.normal(0, random.choice([0.5, 2.0, 6.0]), vocab_size))
    return np.array(logits)


class ToyTeacher:
    """A `Generator`. A segment that has `refused` among its tokens is a request that no retry helps."""

    def __init__(self, context_length: int = 128, refused: int | None = None) -> None:
        self.tokenizer: Tokenizer = ByteTokenizer()
        self.model = ModelIdentity("toy", "0" * 64, "float64", context_length, self.tokenizer.vocab_size)
        self._refused = refused
        self.num_under_way = self.most_under_way = 0

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, limits: Limits
    ) -> tuple[Generated, ...]:
        raise AssertionError("nobody asks it to go on")

    async def score(self, token_ids: Sequence[int], scoring: Scoring, seed: int) -> ScoredRows:
        self.num_under_way += 1
        self.most_under_way = max(self.most_under_way, self.num_under_way)
        await asyncio.sleep(0)  # Everybody else begins meanwhile.
        self.num_under_way -= 1
        if any(layer > NUM_LAYERS for layer in scoring.hidden_layers):
            raise InvalidRequest.of("hidden_layers", scoring.hidden_layers, f"0 to {NUM_LAYERS}")
        if self._refused in token_ids:
            raise InvalidRequest.of("token_ids", len(token_ids), f"no {self._refused}")
        return toy_rows(token_ids, scoring, seed, self.model.vocab_size)


def toy_rows(token_ids: Sequence[int], scoring: Scoring, seed: int, vocab_size: int) -> ScoredRows:
    first, kept = scoring.first_scored, scoring.format
    logits_RV = torch.from_numpy(toy_logits(token_ids, vocab_size)[first - 1 : -1])
    targets_R = torch.tensor(list(token_ids[first:]))
    uniforms_R = torch.tensor([uniform(seed, position) for position in range(first, len(token_ids))])
    found = summaries(ReferenceBackend(torch.float64), logits_RV, targets_R, uniforms_R.double(), kept)
    states_RD = (logits_RV.numpy()[:, :WIDTH] * 10).clip(-127, 127).astype(np.int8)
    scales_R = np.full(len(states_RD), 0.1, np.float32)
    return replace(
        to_records([found], first), hidden={layer: HiddenRows(states_RD, scales_R) for layer in scoring.hidden_layers}
    )
