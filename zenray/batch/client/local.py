"""`Generator` over an engine of this process: the same tokens without a cluster, for measurements and tests."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from zenray.batch.client.gate import Gate
from zenray.batch.job import Generated, ModelIdentity
from zenray.engine.async_engine import AsyncEngine
from zenray.engine.engine import Engine
from zenray.engine.request import Delta, Final, GenerateRequest, Limits, Priority, Sampling, Scored
from zenray.engine.scoring import ScoredRows, Scoring, join_rows
from zenray.model.tokenizer import Tokenizer

_SHUTDOWN_S = 10.0


class LocalGenerator:
    """Asks `engine`, never more at once than it decodes at once. Use `running`, which owns the engine's thread."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine, self._model = engine, engine.engine.model
        self._gate = Gate(engine.engine.settings.max_running_sequences)
        self._numbers = itertools.count()

    @classmethod
    @asynccontextmanager
    async def running(cls, engine: Engine) -> AsyncIterator[LocalGenerator]:
        """A generator whose engine runs until the block ends."""
        started = AsyncEngine(engine)
        await started.start()
        try:
            yield cls(started)
        finally:
            await started.shutdown(_SHUTDOWN_S)

    @property
    def model(self) -> ModelIdentity:
        info = self._model.info
        return ModelIdentity(
            info.name,
            info.sha256,
            info.weight_format,
            self._engine.engine.max_sequence_tokens,
            self._model.config.vocab_size,
        )

    @property
    def tokenizer(self) -> Tokenizer:
        return self._model.tokenizer

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, limits: Limits
    ) -> tuple[Generated, ...]:
        """See `zenray.batch.job.Generator`."""
        name = f"local-{next(self._numbers)}"
        request = GenerateRequest(name, tuple(prompt_token_ids), sampling, limits, Priority.BATCH)
        token_ids: dict[int, list[int]] = {index: [] for index in range(sampling.n)}
        done: dict[int, Generated] = {}
        async with self._gate.places(sampling.n):
            async for event in self._engine.generate(request):
                if isinstance(event, Delta):
                    token_ids[event.index] += event.token_ids
                elif isinstance(event, Final):
                    done[event.index] = Generated(event.text, tuple(token_ids[event.index]), event.finish_reason)
        return tuple(done[index] for index in range(sampling.n))

    async def score(self, token_ids: Sequence[int], scoring: Scoring, seed: int) -> ScoredRows:
        """See `zenray.batch.job.Generator`."""
        name = f"local-{next(self._numbers)}"
        request = GenerateRequest.to_score(name, token_ids, scoring, seed, Priority.BATCH)
        async with self._gate.places(1):
            return join_rows([event.rows async for event in self._engine.score(request) if isinstance(event, Scored)])
