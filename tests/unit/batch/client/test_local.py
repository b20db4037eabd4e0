"""An engine of this process answers a job as the verifiers do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from zenray.batch.client.generator import VerifierGenerator
from zenray.batch.client.local import LocalGenerator
from zenray.batch.client.settings import ClientSettings
from zenray.batch.job import Generator
from zenray.engine.async_engine import AsyncEngine
from zenray.engine.request import Limits, Sampling
from zenray.engine.scoring import ScoreFormat, Scoring
from zenray.serving.verifier_harness import VerifierFleet
from zenray.v1 import common_pb2

TOKENS = [(7 * i * i + 3 * i) % 256 for i in range(90)]


async def answers(generator: Generator) -> list[Any]:
    """To several requests at once: whatever shares their steps."""
    scored = [
        generator.score(TOKENS[i:], Scoring(ScoreFormat(12, 0.9, 4), 1 + i, hidden_layers=(2,)), seed=i)
        for i in range(5)
    ]
    generated = generator.generate(TOKENS, Sampling(temperature=1.0, seed=3, n=2), Limits(max_tokens=8))
    *rows, choices = await asyncio.gather(*scored, generated)
    arrays = [
        [each.gold_logprobs_R, each.head_ids_N, each.head_logprobs_N, each.tail_ids_RS, each.hidden[2].values_RD]
        for each in rows
    ]
    return [*[[array.tobytes() for array in each] for each in arrays], choices]


async def test_the_same_tokens_and_records_with_and_without_a_verifier(make_engine: Callable[..., Any]) -> None:
    async with LocalGenerator.running(make_engine(max_running_sequences=2)) as generator:
        local = await answers(generator)
    counts: list[int] = []
    engine = AsyncEngine(make_engine(max_step_tokens=24, max_running_sequences=8))
    await engine.start()
    async with VerifierFleet(common_pb2.ModelInfo(name="tiny")) as fleet:
        await fleet.add("a", engine)
        tokenizer = engine.engine.model.tokenizer
        generator = VerifierGenerator(
            fleet.client, common_pb2.ModelInfo(name="tiny"), tokenizer, ClientSettings(), counts.append
        )
        assert await answers(generator) == local
    await engine.shutdown(0)
    assert sum(counts) == sum(len(TOKENS) - 1 - 2 * i for i in range(5)) + 2 * 8
    assert np.frombuffer(local[0][0], np.float32).max() <= 0
