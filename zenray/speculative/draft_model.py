"""A model that drafts: its own weights, its own paged KV cache, many chains in one forward.

It chooses tokens by the verifier's rule, with the verifier's noise, from its own logits. So a draft model equal
to its verifier is always right, and a similar one mostly.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from zenray.config import DraftSettings, ModelSettings, ZenrayConfig
from zenray.engine.blocks import BlockPool
from zenray.engine.request import Sampling
from zenray.engine.sampler import apply_penalties, best_tokens, has_penalties, is_plain_greedy
from zenray.engine.speculation import NUM_CLASSES
from zenray.errors import ConfigError
from zenray.model.build import build_model
from zenray.model.catalog import Catalog
from zenray.model.load import PRESET_PREFIX, LoadedModel, load_tokenizer
from zenray.model.tokenizer import Tokenizer
from zenray.ops.batch import Span, lay_out
from zenray.speculative.chains import GREEDY, Chain, Chains
from zenray.speculative.head_trim import TrimmedModel, trim_head
from zenray.speculative.vocabulary import check_same_vocabulary

_CLASS_FLOORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.985, 0.995, 0.999)
assert len(_CLASS_FLOORS) == NUM_CLASSES - 1


def confidence_class(probability: float) -> int:
    """The class of a token the draft gives this probability; finer where drafts are mostly right."""
    return bisect_right(_CLASS_FLOORS, probability)


@dataclass(frozen=True, slots=True)
class Guess:
    """A chain's next token, its probability under the draft (of the distribution it was drawn from, before
    top-k and top-p), and the tokens that would have come next by the same rule, best first."""

    token_id: int
    probability: float
    runners_up: tuple[int, ...] = ()

    @property
    def confidence(self) -> int:
        return confidence_class(self.probability)


class DraftModel:
    """Chains over one model. Used by one thread.

    `chunk_tokens` bounds the tokens of one forward; longer catch-ups take several.
    """

    def __init__(self, model: LoadedModel, num_blocks: int, block_size: int = 16, chunk_tokens: int = 256) -> None:
        self.model = model
        self.chunk_tokens = chunk_tokens
        self._decoder = model.decoder
        self._head_ids_R = model.head_ids_R.cpu().numpy() if isinstance(model, TrimmedModel) else None
        self._pool = BlockPool(num_blocks, block_size)
        self._caches = model.decoder.new_caches(num_blocks, block_size)
        self._chains = Chains(self._pool, self._copy_block)
        self.max_tokens = min(model.config.max_position_embeddings, num_blocks * block_size)
        """Longest chain that can be extended."""

    @classmethod
    def from_settings(cls, model: LoadedModel, settings: DraftSettings, block_size: int = 16) -> DraftModel:
        """With `settings.kv_cache_mib` of blocks."""
        config = model.config
        token_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * model.decoder.dtype.itemsize
        return cls(model, max(1, round(settings.kv_cache_mib * 2**20) // (token_bytes * block_size)), block_size)

    def open(
        self, token_ids: Sequence[int], sampling: Sampling = GREEDY, seed: int = 0, num_prompt: int | None = None
    ) -> Chain:
        """A chain of committed tokens, at least one. Nothing is computed yet.

        `num_prompt` of the tokens are the prompt (None: all); `seed` is the sequence's own.
        """
        chain = Chain(token_ids, sampling, seed, len(token_ids) if num_prompt is None else num_prompt)
        self._chains.open(chain)
        return chain

    def sync(self, chain: Chain, token_ids: Sequence[int]) -> None:
        """The chain's tokens become `token_ids`, all committed. What was computed of the common prefix stays."""
        self._chains.sync(chain, token_ids)

    def fork(self, chain: Chain, token_ids: Sequence[int]) -> Chain:
        """A branch with `token_ids` of which only the prefix in common with `chain` counts as committed or
        computed. Shares blocks; the first to write into a shared one copies it."""
        return self._chains.fork(chain, token_ids)

    def close(self, chain: Chain) -> None:
        """Releases a chain; its committed blocks stay findable while there is space."""
        self._chains.close(chain)

    def count_pending(self, chain: Chain) -> int:
        """Tokens the next `extend` has to read, once the prefix cache has given what it holds; at least 1."""
        if chain.num_pending > self._pool.block_size:
            self._chains.find_cached(chain)
        return chain.num_pending

    def catch_up(self, chain: Chain, max_tokens: int) -> int:
        """Computes up to `max_tokens` pending tokens, all but the last; returns how many are left besides it.

        0 also when the chain cannot fit.
        """
        self._chains.touch(chain)
        self.count_pending(chain)
        while (num_tokens := min(chain.num_pending - 1, max_tokens, self.chunk_tokens)) > 0:
            if len(chain.token_ids) > self.max_tokens or not self._chains.make_room(chain, num_tokens, ()):
                return 0
            self._forward([(chain, num_tokens)])
            max_tokens -= num_tokens
        return chain.num_pending - 1

    def extend(self, chains: Sequence[Chain], num_runners_up: int = 0) -> list[Guess | None]:
        """Chooses and appends the next token of each chain; None, and nothing appended, where it cannot fit.

        One forward, unless more than `chunk_tokens` are pending. Each chain at most once.
        """
        guesses: dict[int, Guess] = {}
        todo = [chain for chain in chains if self._make_ready(chain, chains)]
        while todo:
            plan: list[tuple[Chain, int]] = []
            budget = self.chunk_tokens
            for chain in todo:
                num_tokens = min(chain.num_pending, budget)
                plan.append((chain, num_tokens))
                budget -= num_tokens
                if budget == 0:
                    break
            finished = [chain for chain, num_tokens in plan if num_tokens == chain.num_pending]
            logits_RV = self._forward(plan)
            for chain, logits_V in zip(finished, logits_RV, strict=True):
                guess = guesses[id(chain)] = self._choose(chain, logits_V, num_runners_up)
                chain.token_ids.append(guess.token_id)
            todo = todo[len(finished) :]
        return [guesses.get(id(chain)) for chain in chains]

    def clear_cache(self) -> None:
        """Forgets the blocks of closed chains."""
        self._pool.clear_cache()

    def check_integrity(self) -> None:
        """Asserts that blocks and chains agree; without chains every block is free or cached."""
        self._chains.check_integrity()
        assert len(self._chains) or self._pool.num_available == self._pool.num_blocks

    def _make_ready(self, chain: Chain, beside: Sequence[Chain]) -> bool:
        self._chains.touch(chain)
        fits = len(chain.token_ids) <= self.max_tokens
        return fits and self._chains.make_room(chain, self.count_pending(chain), beside)

    def _forward(self, plan: list[tuple[Chain, int]]) -> torch.Tensor:
        """Computes pending tokens; logits of the chains it leaves with none pending, in order."""
        spans, rows, num_rows = [], [], 0
        for chain, num_tokens in plan:
            start = chain.num_computed
            spans.append(Span(chain.token_ids[start : start + num_tokens], start, chain.block_ids))
            num_rows += num_tokens
            if num_tokens == chain.num_pending:
                rows.append(num_rows - 1)
        batch = lay_out(spans, rows, self._pool.block_size, self._decoder.device)
        logits_RV = self._decoder.forward(batch, self._caches)
        for chain, num_tokens in plan:
            chain.num_computed += num_tokens
            self._chains.publish(chain)
        return logits_RV

    def _choose(self, chain: Chain, logits_R: torch.Tensor, num_runners_up: int) -> Guess:
        """By the verifier's rule at the position after the chain's last token. R is V, unless the head is trimmed."""
        sampling = chain.sampling
        if is_plain_greedy(sampling):
            # One row in one thread: torch would wake its pool for each operation over a vocabulary.
            row_R = logits_R.cpu().numpy()
            best = _largest(row_R, 1 + num_runners_up)
            ids = best if self._head_ids_R is None else self._head_ids_R[best].tolist()
            return Guess(ids[0], _softmax_at(row_R, best[0]), tuple(ids[1:]))
        logits_V = self._over_vocabulary(logits_R)
        if has_penalties(sampling):
            counts = Counter(chain.token_ids[chain.num_prompt :])
            logits_V = apply_penalties(logits_V, sampling, chain.token_ids, counts)
        ranked = best_tokens(logits_V, sampling, chain.seed, len(chain.token_ids), 1 + num_runners_up)
        probability = _softmax_at(logits_V.cpu().numpy(), ranked[0], sampling.temperature or 1.0)
        return Guess(ranked[0], probability, tuple(ranked[1:]))

    def _over_vocabulary(self, logits_R: torch.Tensor) -> torch.Tensor:
        """The row by token id: penalties and noise belong to ids. Tokens of a trimmed head's rest are impossible."""
        if self._head_ids_R is None:
            return logits_R
        row_R = logits_R.cpu().numpy()
        row_V = np.full(self.model.config.vocab_size, -math.inf, dtype=row_R.dtype)
        row_V[self._head_ids_R] = row_R
        return torch.from_numpy(row_V)

    def _copy_block(self, source: int, target: int) -> None:
        for cache in self._caches:
            cache.keys[target] = cache.keys[source]
            cache.values[target] = cache.values[source]


def _largest(row_R: np.ndarray, count: int) -> list[int]:
    """Indices of the few largest, best first; of equals the first. `row_R` is written to and restored."""
    indices: list[int] = []
    values = []
    for _ in range(min(count, len(row_R))):
        indices.append(int(row_R.argmax()))
        values.append(row_R[indices[-1]])
        row_R[indices[-1]] = -math.inf
    row_R[indices] = values
    return indices


def _softmax_at(logits_V: np.ndarray, index: int, temperature: float = 1.0) -> float:
    """softmax(logits / temperature)[index]."""
    above_V = logits_V - logits_V[index]
    if temperature != 1.0:
        above_V /= temperature
    with np.errstate(over="ignore"):
        return float(1.0 / np.exp(above_V, out=above_V).sum())


def load_draft_model(config: ZenrayConfig, verifier_tokenizer: Tokenizer | None = None) -> LoadedModel:
    """The configured draft model on the verifier's device, in its own weight format, its head trimmed as configured.

    `verifier_tokenizer` None reads the one of the configured verifier, without its weights.

    Raises:
        ConfigError: no draft model is configured, or its vocabulary is not the verifier's.
        NotFound, ModelFileError: as `build_model`.
    """
    if config.draft.model is None:
        raise ConfigError("draft.model is not set, but speculation.drafters asks for a draft model")
    settings = config.model.model_copy(
        update={"name": config.draft.model, "weight_format": config.draft.weight_format, "preset_overrides": {}}
    )
    model = build_model(settings)
    verifier = verifier_tokenizer or _verifier_tokenizer(config.model)
    check_same_vocabulary(model.tokenizer, verifier, config.draft.model, config.model.name)
    return trim_head(model, config.draft.head_tokens)


def _verifier_tokenizer(settings: ModelSettings) -> Tokenizer:
    is_preset = settings.name.startswith(PRESET_PREFIX)
    source = settings.name if is_preset else Catalog.load().resolve(settings.name)
    return load_tokenizer(source, settings.preset_overrides)
