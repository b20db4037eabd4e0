"""Whatever the engine does to go faster, the tokens are those of the plainest decoding there is.

Exact in float64: the oracle runs the whole sequence anew for every token, without cache or batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.engine import Engine
from zenray.engine.noise import choice_seed
from zenray.engine.request import Delta, GenerateRequest, Limits, Priority, Sampling
from zenray.engine.sampler import apply_penalties, choose_token
from zenray.model.load import LoadedModel
from zenray.ops.batch import StepBatch

MakeEngine = Callable[..., Engine]
PROMPTS = [
    tuple(b"def add(a, b):\n    return a + b\n\n"),
    tuple(b"def add(a, b):\n    return a - b"),
    tuple(b"x"),
    tuple(b"import os\n" * 7),
]
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.8, top_k=20, top_p=0.9, seed=2),
    Sampling(temperature=1.3, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.3, seed=3),
]
LENGTH = 16


def oracle(model: LoadedModel, prompt: tuple[int, ...], sampling: Sampling, length: int) -> list[int]:
    token_ids = list(prompt)
    for _ in range(length):
        count = len(token_ids)
        batch = StepBatch(
            token_ids_T=torch.tensor(token_ids),
            positions_T=torch.arange(count),
            query_starts=torch.tensor([0, count], dtype=torch.int32),
            context_lens_S=torch.tensor([count], dtype=torch.int32),
            block_tables_SB=torch.tensor([[0]], dtype=torch.int32),
            slots_T=torch.arange(count),
            logit_rows_R=torch.tensor([count - 1]),
            query_starts_list=[0, count],
            context_lens_list=[count],
        )
        logits_V = model.decoder.forward(batch, model.decoder.new_caches(1, count))[0]
        output = token_ids[len(prompt) :]
        counts = {token: output.count(token) for token in output}
        penalised_V = apply_penalties(logits_V, sampling, token_ids, counts)
        token_ids.append(choose_token(penalised_V, sampling, choice_seed(sampling.seed or 0, 0), count))
    return token_ids[len(prompt) :]


@pytest.fixture(scope="module")
def expected(tiny_model: LoadedModel) -> dict[tuple[int, int], list[int]]:
    return {
        (p, s): oracle(tiny_model, prompt, sampling, LENGTH)
        for p, prompt in enumerate(PROMPTS)
        for s, sampling in enumerate(SAMPLINGS)
    }


def test_the_cases_are_not_trivial(expected: dict[tuple[int, int], list[int]]) -> None:
    streams = {tuple(stream) for stream in expected.values()}
    assert len(streams) == len(expected)
    assert max(len(set(stream)) for stream in streams) > 5


@given(
    num_blocks=st.integers(22, 100),
    block_size=st.sampled_from([4, 5, 16]),
    max_step_tokens=st.integers(1, 90),
    mixed_step_tokens=st.integers(1, 40),
    max_running_sequences=st.integers(1, 8),
    prefix_cache=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batching_chunking_preemption_and_caching_gives_the_oracles_tokens(
    make_engine: MakeEngine, expected: dict[tuple[int, int], list[int]], seed: int, **fields: int
) -> None:
    """Requests of all kinds arrive at random moments; some are cancelled; every survivor is exact."""
    engine = make_engine(**fields, max_waiting_sequences=100)
    chance = random.Random(seed)
    cases = [(p, s) for p in range(len(PROMPTS)) for s in range(len(SAMPLINGS))]
    chance.shuffle(cases)
    running: dict[int, tuple[int, int]] = {}
    streams: dict[int, list[int]] = {}
    while cases or engine.has_work:
        while cases and chance.random() < 0.4:
            p, s = cases.pop()
            limits = Limits(max_tokens=LENGTH, ignore_eos=True)
            handle = engine.add(GenerateRequest("r", PROMPTS[p], SAMPLINGS[s], limits, chance.choice(list(Priority))))
            running[handle], streams[handle] = (p, s), []
        if running and chance.random() < 0.02:
            handle = chance.choice(list(running))
            engine.cancel(handle)
            del running[handle]
        for handle, event in engine.step():
            if isinstance(event, Delta):
                streams[handle] += event.token_ids
        engine.check_integrity()
    for handle, case in running.items():
        assert streams[handle] == expected[case], f"case {case}"


def test_a_pool_too_small_for_all_preempts_and_still_gives_the_oracles_tokens(
    make_engine: MakeEngine, expected: dict[tuple[int, int], list[int]]
) -> None:
    engine = make_engine(num_blocks=22, block_size=4, max_running_sequences=4)
    limits = Limits(max_tokens=LENGTH, ignore_eos=True)
    handles = {engine.add(GenerateRequest("r", PROMPTS[p], SAMPLINGS[0], limits)): p for p in range(4)}
    streams: dict[int, list[int]] = {handle: [] for handle in handles}
    while engine.has_work:
        for handle, event in engine.step():
            if isinstance(event, Delta):
                streams[handle] += event.token_ids
    assert engine.load().preemptions > 0, "the case must exercise preemption"
    assert streams == {handle: expected[p, 0] for handle, p in handles.items()}
