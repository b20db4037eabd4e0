"""The compiled kernels give the same bits of records in whatever company, chunks and cache a prompt is scored."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.config import EngineSettings
from zenray.engine.engine import Engine
from zenray.engine.request import GenerateRequest, Limits, Priority, Sampling, Scored
from zenray.engine.scoring import ScoredRows, ScoreFormat, Scoring, join_rows
from zenray.model.load import LoadedModel, load_preset
from zenray.ops.build import KernelsUnavailable
from zenray.ops.native import kernels

PROMPT = tuple(b"def mean(values):\n    return sum(values) / len(values)\n\n\nclass Node:\n")
SCORING = Scoring(ScoreFormat(max_head=12, head_mass=0.5), first_scored=3, hidden_layers=(0, 1, 2))
SEED = 11


@pytest.fixture(scope="module", params=["tiny", "tiny-moe"])
def compiled_model(request: pytest.FixtureRequest) -> LoadedModel:
    try:
        kernels()
    except KernelsUnavailable as error:
        pytest.skip(str(error))
    return load_preset(request.param, dtype=torch.bfloat16, weight_format="mixed")


@pytest.fixture(scope="module")
def alone(compiled_model: LoadedModel) -> dict[str, bytes]:
    """The prompt's records, and nothing else in the engine."""
    return as_bytes(score(Engine(compiled_model, EngineSettings(kv_cache_mib=1, max_step_tokens=512)), Priority.BATCH))


def score(
    engine: Engine, priority: Priority, neighbours: tuple[GenerateRequest, ...] = (), after: int = 0
) -> ScoredRows:
    """Scores the prompt once its neighbours have had `after` steps."""
    for neighbour in neighbours:
        engine.add(neighbour)
    for _ in range(after):
        engine.step()
    handle = engine.add(GenerateRequest.to_score("r", PROMPT, SCORING, SEED, priority))
    parts = []
    while engine.has_work:
        parts += [event.rows for of, event in engine.step() if of == handle and isinstance(event, Scored)]
    engine.check_integrity()
    return join_rows(parts)


def as_bytes(rows: ScoredRows) -> dict[str, bytes]:
    arrays = {
        f.name: getattr(rows, f.name) for f in dataclasses.fields(rows) if f.name not in ("hidden", "first_position")
    }
    for layer, states in rows.hidden.items():
        arrays |= {f"values of {layer}": states.values_RD, f"scales of {layer}": states.scales_R}
    return {name: np.ascontiguousarray(array).tobytes() for name, array in arrays.items()}


def request(chance: random.Random) -> GenerateRequest:
    """Something else to do: text to write or to score, from the same beginning perhaps."""
    prompt = PROMPT[: chance.randint(0, 40)] + tuple(chance.randrange(256) for _ in range(chance.randint(2, 30)))
    priority = chance.choice(list(Priority))
    if chance.random() < 0.5:
        format = chance.choice((SCORING.format, ScoreFormat(max_head=3, head_mass=1.0, num_tail_samples=2)))
        return GenerateRequest.to_score(
            "s", prompt, Scoring(format, hidden_layers=(1,)), chance.randrange(99), priority
        )
    limits = Limits(max_tokens=chance.randint(1, 20), ignore_eos=True)
    return GenerateRequest("g", prompt, Sampling(temperature=1.0, seed=chance.randrange(99)), limits, priority)


@given(
    step_tokens=st.integers(1, 90),
    beside_interactive=st.integers(1, 20),
    block_size=st.sampled_from([4, 16]),
    prefix_cache=st.booleans(),
    num_neighbours=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_record_has_the_same_bits_whatever_is_beside_it(
    compiled_model: LoadedModel,
    alone: dict[str, bytes],
    step_tokens: int,
    beside_interactive: int,
    num_neighbours: int,
    seed: int,
    **fields: int,
) -> None:
    chance = random.Random(seed)
    engine_settings = EngineSettings(
        kv_cache_mib=1,
        max_step_tokens=step_tokens,
        batch_step_tokens=step_tokens,
        batch_tokens_beside_interactive=beside_interactive,
        **fields,
    )
    neighbours = tuple(request(chance) for _ in range(num_neighbours))
    rows = score(
        Engine(compiled_model, engine_settings), chance.choice(list(Priority)), neighbours, chance.randint(0, 5)
    )
    assert as_bytes(rows) == alone
