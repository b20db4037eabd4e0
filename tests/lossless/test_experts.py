"""Wherever the experts are, and whoever of them dies when, the tokens are those of one process.

Exact in float64: the oracle keeps all experts in its own process and runs the whole sequence for every token. The
shards of these tests die at drawn moments; upkeep runs between steps of the engine, on the test's own thread.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.config import EngineSettings, ExpertSettings
from zenray.engine.engine import Engine, Events
from zenray.engine.request import Delta, Failed, Final, FinishReason, GenerateRequest, Limits, Sampling
from zenray.engine.speculation import Speculator
from zenray.errors import Unavailable
from zenray.experts import fleet
from zenray.experts.build import connect_experts
from zenray.experts.in_process import InProcessHost
from zenray.experts.link import ShardLost
from zenray.experts.sharded import ShardedExperts
from zenray.model.config import ModelConfig
from zenray.model.load import LoadedModel, load_preset
from zenray.model.weights import WeightProvider
from zenray.ops.backend import Backend

SHAPE = {"num_layers": 3, "num_experts": 8, "num_experts_per_token": 3}
EXPERTS_IN_ALL = 3 * 8
EXPERT_MIB = 3 * 64 * 64 * 8 / 2**20

MakeOracle = Callable[[LoadedModel], Any]


@pytest.fixture(scope="session")
def moe_oracle(make_oracle: MakeOracle) -> Any:
    return make_oracle(load_preset("tiny-moe", SHAPE, dtype=torch.float64))


@pytest.fixture(scope="module", autouse=True)
def nobody_waits() -> Iterator[None]:
    """Shards come back when the test looks after them, not while a step waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "POSTPONE_S", 0.0)
        yield


class Misfortune:
    """Kills shards at drawn moments: asked for rows, answering, loading, dropping, reporting, starting."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        self._chance, self.rate = chance, rate
        self.deaths: dict[str, int] = {}

    def __call__(self, shard: int, operation: str, call: object) -> None:
        if self._chance.random() < self.rate:
            self.deaths[operation] = self.deaths.get(operation, 0) + 1
            raise ShardLost(shard, f"died on {operation}")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Sharded:
    """The toy with its experts shared out, and an engine around it."""

    def __init__(
        self,
        num_shards: int,
        *,
        capacity: int | None = None,
        misfortune: Misfortune | None = None,
        speculator: Speculator | None = None,
        engine: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        self.clock = Clock()
        memory_mib = 0.0 if capacity is None else capacity * EXPERT_MIB
        self.settings = ExpertSettings(num_shards=num_shards, shard_memory_mib=memory_mib, **fields)

        def connect(config: ModelConfig, weights: WeightProvider, ops: Backend) -> ShardedExperts:
            rate = 0.0
            if misfortune is not None:
                rate, misfortune.rate = misfortune.rate, 0.0  # the first start is not what is tested here
            interfere = {} if misfortune is None else {"interfere": misfortune}
            self.host = InProcessHost(weights, ops, capacity=capacity, **interfere)
            experts = connect_experts(config, weights, ops, self.settings, self.host, clock_s=self.clock)
            if misfortune is not None:
                misfortune.rate = rate
            self.experts = experts
            return experts

        model = load_preset("tiny-moe", SHAPE, dtype=torch.float64, experts=connect)
        engine_settings = EngineSettings.model_validate({"block_size": 4, **(engine or {})})
        self.engine = Engine(model, engine_settings, speculator=speculator)


def with_upkeep(sharded: Sharded, chance: random.Random) -> Engine:
    """The engine, between whose steps the fleet is looked after and moved about at drawn moments."""
    engine, step = sharded.engine, sharded.engine.step

    def looked_after() -> Events:
        if chance.random() < 0.2:
            sharded.clock.now_s += chance.choice((0.1, 3.0, 100.0))
            sharded.experts.upkeep.look()
        return step()

    engine.step = looked_after  # type: ignore[method-assign]
    return engine


@given(
    num_shards=st.sampled_from([1, 2, 3, 4]),
    redundant_experts=st.sampled_from([0, 3, 8, 24]),
    room=st.sampled_from([1.0, 1.5, None]),
    death_rate=st.sampled_from([0.0, 0.001, 0.01, 0.05]),
    lie_rate=st.sampled_from([None, 0.1, 1.0]),
    max_step_tokens=st.integers(1, 60),
    num_blocks=st.integers(22, 100),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_placement_and_any_death_give_the_oracles_tokens(
    moe_oracle: Any,
    liar_class: Any,
    num_shards: int,
    redundant_experts: int,
    room: float | None,
    death_rate: float,
    lie_rate: float | None,
    seed: int,
    **fields: int,
) -> None:
    chance = random.Random(seed)
    misfortune = Misfortune(chance, death_rate)
    block_mib = 2 * 3 * 16 * 4 * 8 / 2**20
    sharded = Sharded(
        num_shards,
        capacity=None if room is None else math.ceil(room * EXPERTS_IN_ALL / num_shards),
        misfortune=misfortune,
        speculator=None if lie_rate is None else liar_class(moe_oracle, 4, lie_rate, chance),
        redundant_experts=redundant_experts,
        rebalance_period_s=10,
        recovery_timeout_s=1e9,
        engine={
            "max_step_tokens": fields["max_step_tokens"],
            "kv_cache_mib": fields["num_blocks"] * block_mib,
            "max_waiting_sequences": 100,
        },
    )
    engine = with_upkeep(sharded, chance)
    try:
        moe_oracle.check(engine, chance)
        if death_rate == 0.0:
            assert sharded.experts.num_aborts == 0
    finally:
        engine.shutdown()


def test_the_cases_abort_steps_and_move_experts(moe_oracle: Any) -> None:
    """The property above would be empty if nobody died in mid-step or nothing moved."""
    chance = random.Random(4)
    misfortune = Misfortune(chance, 0.02)
    sharded = Sharded(3, misfortune=misfortune, redundant_experts=2, rebalance_period_s=10)
    try:
        moe_oracle.check(with_upkeep(sharded, chance), chance, num_repeats=3)
        status = sharded.experts.status()
        assert sharded.experts.num_aborts > 5
        assert status.recoveries > 5
        assert misfortune.deaths.keys() >= {"send", "receive", "load"}
        assert status.placement.epoch > 10
        assert not status.placement.missing
    finally:
        sharded.engine.shutdown()


def request(max_tokens: int = 12) -> GenerateRequest:
    return GenerateRequest("r", tuple(b"def add(a, b):\n"), Sampling(), Limits(max_tokens=max_tokens, ignore_eos=True))


def kill(sharded: Sharded, shard: int) -> None:
    sharded.host.links[shard].kill()


def test_without_room_on_survivors_steps_wait_until_the_shard_is_back() -> None:
    """Capacity for exactly half the experts each: nobody can take over, a replacement can."""
    sharded = Sharded(2, capacity=EXPERTS_IN_ALL // 2)
    engine = sharded.engine
    handle = engine.add(request())
    events = [event for _ in range(4) for event in engine.step()]
    kill(sharded, 1)
    assert [event for _ in range(3) for event in engine.step()] == []
    assert engine.unavailable is not None
    engine.check_integrity()
    while engine.unavailable is not None:
        sharded.experts.upkeep.look()
        events += engine.step()
    while engine.has_work:
        events += engine.step()
    assert token_ids(events, handle) == undisturbed_tokens()
    engine.check_integrity()
    engine.shutdown()


def test_requests_fail_with_a_time_to_retry_when_nobody_comes_back_and_the_next_ones_are_served() -> None:
    misfortune = Misfortune(random.Random(0), 0.0)
    sharded = Sharded(2, capacity=EXPERTS_IN_ALL // 2, misfortune=misfortune, recovery_timeout_s=5)
    engine = sharded.engine
    handles = [engine.add(request()), engine.add(request())]
    engine.step()
    misfortune.rate = 1.0
    assert engine.step() == []
    sharded.clock.now_s = 5.1
    failures = engine.step()
    assert [handle for handle, _ in failures] == handles
    for _, failed in failures:
        assert isinstance(failed, Failed) and isinstance(failed.error, Unavailable)
        assert failed.error.retry_after_ms > 0
    assert not engine.has_work
    engine.check_integrity()
    misfortune.rate = 0.0
    while engine.unavailable is not None:
        sharded.clock.now_s += 1
        sharded.experts.upkeep.look()
    handle = engine.add(request())
    events: Events = []
    while engine.has_work:
        events += engine.step()
    assert token_ids(events, handle) == undisturbed_tokens()
    engine.shutdown()


def test_who_ends_in_the_step_that_fails_the_others_ends_once() -> None:
    misfortune = Misfortune(random.Random(0), 0.0)
    sharded = Sharded(2, capacity=EXPERTS_IN_ALL // 2, misfortune=misfortune, recovery_timeout_s=5)
    engine = sharded.engine
    cancelled, failing = engine.add(request()), engine.add(replace(request(), sampling=Sampling(n=3)))
    engine.step()
    misfortune.rate = 1.0
    assert engine.step() == []
    sharded.clock.now_s = 5.1
    engine.cancel(cancelled)
    ends = [(handle, type(event)) for handle, event in engine.step() if isinstance(event, Final | Failed)]
    assert ends == [(cancelled, Final), (failing, Failed)]
    engine.check_integrity()
    engine.shutdown()


def test_a_deadline_counts_while_experts_have_no_place() -> None:
    misfortune = Misfortune(random.Random(0), 0.0)
    sharded = Sharded(2, capacity=EXPERTS_IN_ALL // 2, misfortune=misfortune)
    moments = iter(range(100))
    engine = Engine(sharded.engine.model, EngineSettings(block_size=4), clock=lambda: next(moments))
    misfortune.rate = 1.0
    hurried = replace(request(), limits=Limits(max_tokens=12, deadline_ms=10_000))
    handle = engine.add(hurried)
    events: Events = []
    while engine.has_work:
        events += engine.step()
    (final,) = (event for _, event in events if isinstance(event, Final))
    assert final.finish_reason is FinishReason.DEADLINE and events[-1][0] == handle
    engine.check_integrity()
    engine.shutdown()


def undisturbed_tokens() -> list[int]:
    sharded = Sharded(1)
    handle = sharded.engine.add(request())
    events: Events = []
    while sharded.engine.has_work:
        events += sharded.engine.step()
    sharded.engine.shutdown()
    return token_ids(events, handle)


def token_ids(events: Events, handle: int) -> list[int]:
    return [token for of, event in events if of == handle and isinstance(event, Delta) for token in event.token_ids]
