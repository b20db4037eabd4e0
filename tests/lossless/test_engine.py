"""Whatever the engine does to go faster, the tokens are those of the plainest decoding there is.

Exact in float64: the oracle runs the whole sequence anew for every token, without cache or batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.engine import Engine

MakeEngine = Callable[..., Engine]


def test_the_cases_are_not_trivial(oracle: Any) -> None:
    streams = {tuple(stream) for stream in oracle.streams.values()}
    assert len(streams) == len(oracle.streams)
    assert max(len(set(stream)) for stream in streams) > 5
    assert len(oracle.scores) > 10


@given(
    num_blocks=st.integers(22, 100),
    block_size=st.sampled_from([4, 5, 16]),
    max_step_tokens=st.integers(1, 90),
    mixed_step_tokens=st.integers(1, 40),
    batch_step_tokens=st.integers(1, 40),
    batch_tokens_beside_interactive=st.integers(0, 20),
    max_running_sequences=st.integers(1, 8),
    prefix_cache=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batching_chunking_preemption_and_caching_gives_the_oracles_tokens(
    make_engine: MakeEngine, oracle: Any, seed: int, **fields: int
) -> None:
    oracle.check(make_engine(**fields, max_waiting_sequences=100), random.Random(seed))


def test_a_pool_too_small_for_all_preempts_and_still_gives_the_oracles_tokens(
    make_engine: MakeEngine, oracle: Any
) -> None:
    engine = make_engine(num_blocks=22, block_size=4, max_running_sequences=4, max_waiting_sequences=100)
    oracle.check(engine, random.Random(0))
    assert engine.load().preemptions > 0, "the case must exercise preemption"
