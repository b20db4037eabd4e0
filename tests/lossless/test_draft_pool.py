"""The draft pool over real gRPC, honest, lying, silent or dying: still the oracle's tokens."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.config import SpeculationSettings
from zenray.engine.engine import Engine
from zenray.engine.speculation import NUM_CLASSES
from zenray.model.load import LoadedModel
from zenray.serving.draft_client import PoolDrafter
from zenray.serving.draft_harness import Answer, Replicas
from zenray.serving.harness import eventually
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.gamma_policy import GammaPolicy
from zenray.speculative.speculator import DraftingSpeculator
from zenray.speculative.step_cost import StepCost
from zenray.v1 import draft_pb2

MakeEngine = Callable[..., Engine]
KINDS = ("honest", "lying", "silent")


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    running = Replicas()
    yield running
    running.shutdown()


def liar(vocab_size: int, seed: int) -> Answer:
    """Well-formed nonsense: any tokens behind any length, of the sequence that moved or of another."""
    chance = random.Random(seed)
    keys: list[int] = []

    def path(base_length: int) -> draft_pb2.DraftedPath:
        count = chance.randint(1, 12)
        return draft_pb2.DraftedPath(
            key=chance.choice(keys),
            base_length=max(0, base_length - chance.randint(-3, 6)),
            token_ids=[chance.randrange(vocab_size) for _ in range(count)],
            classes=[chance.randrange(NUM_CLASSES) for _ in range(count)],
            token_ms=chance.random(),
        )

    def answer(message: draft_pb2.DraftRequest) -> list[draft_pb2.DraftedPath]:
        keys.extend(opening.key for opening in message.openings)
        lengths = [len(opening.token_ids) for opening in message.openings]
        lengths += [commit.base_length + len(commit.token_ids) for commit in message.commits]
        return [path(length) for length in lengths for _ in range(2)]

    return answer


def start(replicas: Replicas, name: str, model: LoadedModel, seed: int) -> None:
    vocab_size = model.config.vocab_size
    if name == "honest":
        replicas.start_real(name, lambda: DraftModel(model, 200, block_size=4))
    else:
        replicas.start_scripted(name, liar(vocab_size, seed) if name == "lying" else lambda _: [], vocab_size)


@given(
    names=st.sets(st.sampled_from(KINDS), min_size=1).map(sorted),
    dies=st.booleans(),
    gamma=st.sampled_from([1, 4, 32, "auto"]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_replica_changes_a_token(
    tiny_model: LoadedModel,
    make_engine: MakeEngine,
    replicas: Replicas,
    oracle: Any,
    names: list[str],
    dies: bool,
    gamma: int | str,
    seed: int,
) -> None:
    for name in names:
        start(replicas, name, tiny_model, seed)
    drafting = SpeculationSettings(draft_timeout_ms=5)
    drafter = PoolDrafter(drafting, tiny_model.config.vocab_size, replicas.watch)
    eventually(lambda: drafter.status().replicas == len(names), "the replicas are connected")
    policy = GammaPolicy(StepCost({1: {1: 100.0, 65: 101.0}}), gamma)
    engine = make_engine(num_blocks=60, max_waiting_sequences=100, speculator=DraftingSpeculator([drafter], policy))
    try:
        killer = threading.Thread(target=lambda: dies and replicas.kill(names[0]))
        killer.start()  # Its replica dies somewhere on the way.
        oracle.check(engine, random.Random(seed))
        killer.join()
    finally:
        engine.shutdown()
        for name in names[dies:]:
            replicas.kill(name)


def test_a_twin_in_the_pool_is_always_right(
    tiny_model: LoadedModel, make_engine: MakeEngine, replicas: Replicas, oracle: Any
) -> None:
    start(replicas, "honest", tiny_model, 0)
    drafter = PoolDrafter(SpeculationSettings(), tiny_model.config.vocab_size, replicas.watch)
    eventually(lambda: drafter.status().replicas == 1, "the replica is connected")
    policy = GammaPolicy(StepCost({1: {1: 100.0, 65: 101.0}}), 4)
    engine = make_engine(num_blocks=400, max_waiting_sequences=100, speculator=DraftingSpeculator([drafter], policy))

    def accepted_tokens() -> int:
        oracle.check(engine, random.Random(0))
        (load,) = engine.load().drafters
        assert load.accepted_tokens == load.drafted_tokens
        return load.accepted_tokens

    eventually(accepted_tokens, "the pool is used")
    engine.shutdown()
    replicas.kill("honest")
