"""The real drafters under the real policy: still the oracle's tokens, and the verifier's own distribution."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.engine import Engine
from zenray.engine.request import Delta, GenerateRequest, Limits, Sampling
from zenray.model.load import LoadedModel, load_preset
from zenray.ops.batch import StepBatch
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.drafter import Drafter
from zenray.speculative.gamma_policy import GammaPolicy
from zenray.speculative.model_drafter import ModelDrafter
from zenray.speculative.recycling import RecyclingDrafter
from zenray.speculative.speculator import DraftingSpeculator
from zenray.speculative.step_cost import StepCost
from zenray.speculative.suffix import SuffixDrafter

MakeEngine = Callable[..., Engine]
DRAFTERS = ("twin", "stranger", "small", "suffix", "recycling")


@pytest.fixture(scope="module")
def stranger_model() -> LoadedModel:
    """Another model over the same vocabulary: its guesses are mostly wrong."""
    return load_preset("tiny", seed=1, dtype=torch.float64)


@pytest.fixture(scope="module")
def make_drafter(tiny_model: LoadedModel, stranger_model: LoadedModel) -> Callable[[str], Drafter]:
    """By name: a draft model that is the verifier's twin, one that is a stranger, one without enough blocks for
    all sequences, and those without a model."""

    def make(name: str) -> Drafter:
        if name == "suffix":
            return SuffixDrafter(session_tokens=200, max_sessions=2, fim=None)
        if name == "recycling":
            return RecyclingDrafter()
        model, num_blocks = {
            "twin": (tiny_model, 200),
            "stranger": (stranger_model, 200),
            "small": (tiny_model, 30),
        }[name]
        return ModelDrafter(DraftModel(model, num_blocks, block_size=4, chunk_tokens=16), tiny_model)

    return make


def speculator(drafters: Ordered[Drafter], gamma: int | str) -> DraftingSpeculator:
    """Verifying is nearly free here, so that `auto` drafts."""
    return DraftingSpeculator(drafters, GammaPolicy(StepCost({1: {1: 100.0, 65: 101.0}}), gamma))


@given(
    names=st.one_of(
        st.sampled_from(DRAFTERS).map(lambda name: (name,)),
        st.sampled_from([("twin", "suffix", "recycling"), ("small", "recycling"), ("stranger", "suffix")]),
    ),
    gamma=st.sampled_from([1, 2, 4, 8, 32, "auto"]),
    num_blocks=st.integers(22, 100),
    block_size=st.sampled_from([4, 5, 16]),
    max_step_tokens=st.integers(1, 90),
    mixed_step_tokens=st.integers(8, 40),
    batch_step_tokens=st.integers(8, 40),
    batch_tokens_beside_interactive=st.integers(0, 20),
    max_running_sequences=st.integers(1, 8),
    prefix_cache=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_drafter_changes_a_token(
    make_engine: MakeEngine,
    make_drafter: Callable[[str], Drafter],
    oracle: Any,
    names: Ordered[str],
    gamma: int | str,
    seed: int,
    **fields: int,
) -> None:
    drafting = speculator([make_drafter(name) for name in names], gamma)
    engine = make_engine(**fields, max_waiting_sequences=100, speculator=drafting)
    oracle.check(engine, random.Random(seed))
    engine.shutdown()


@pytest.mark.parametrize("gamma", [4, "auto"])
def test_a_twin_is_always_right(
    make_engine: MakeEngine, make_drafter: Callable[[str], Drafter], oracle: Any, gamma: int | str
) -> None:
    """Greedy or sampled: with the verifier's weights and the verifier's noise a drafter never guesses wrong."""
    engine = make_engine(
        num_blocks=400, max_waiting_sequences=100, speculator=speculator([make_drafter("twin")], gamma)
    )
    oracle.check(engine, random.Random(0))
    (load,) = engine.load().drafters
    assert load.accepted_tokens == load.drafted_tokens > engine.load().generated_tokens / 2


class Failing:
    """Works until its `lives` calls are used up, then every call raises."""

    def __init__(self, inner: Drafter, lives: int) -> None:
        self.name = inner.name
        self._inner, self._lives = inner, lives

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._inner, attribute)

        def call(*args: Any) -> Any:
            self._lives -= 1
            if self._lives < 0:
                raise RuntimeError("this drafter has died")
            return found(*args)

        return call


@pytest.mark.parametrize("lives", [0, 1, 10, 40, 100])
def test_a_drafter_that_dies_costs_nobody_a_token(
    make_engine: MakeEngine, make_drafter: Callable[[str], Drafter], oracle: Any, lives: int
) -> None:
    failing = Failing(make_drafter("suffix"), lives)
    drafting = speculator([failing, make_drafter("recycling")], "auto")
    engine = make_engine(max_waiting_sequences=100, speculator=drafting)
    oracle.check(engine, random.Random(lives))
    assert [load.drafter for load in engine.load().drafters] == ["recycling"]


PROMPT = tuple(b"for i in")
TOP_K, LENGTH, NUM_SEEDS = 3, 4, 1500


def exact_distribution(model: LoadedModel) -> dict[tuple[int, ...], float]:
    """The probability of every continuation of LENGTH tokens: each one of the TOP_K likeliest at its place."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(LENGTH):
        longer: dict[tuple[int, ...], float] = {}
        for tokens, mass in found.items():
            token_ids = [*PROMPT, *tokens]
            count = len(token_ids)
            batch = StepBatch(
                torch.tensor(token_ids), torch.arange(count), torch.tensor([0, count], dtype=torch.int32),
                torch.tensor([count], dtype=torch.int32), torch.tensor([[0]], dtype=torch.int32), torch.arange(count),
                torch.tensor([count - 1]), [0, count], [count],
            )  # fmt: skip
            logits_V = model.decoder.forward(batch, model.decoder.new_caches(1, count))[0]
            top, ids = torch.topk(logits_V, TOP_K)
            for token, share in zip(ids.tolist(), torch.softmax(top, 0).tolist(), strict=True):
                longer[*tokens, token] = mass * share
        found = longer
    return found


@pytest.mark.parametrize("name", DRAFTERS)
def test_sampled_text_has_the_verifiers_distribution(
    make_engine: MakeEngine, make_drafter: Callable[[str], Drafter], tiny_model: LoadedModel, name: str
) -> None:
    """Chi-squared over all continuations, one request per seed, at the level 0.001 (the seeds are fixed)."""
    expected = exact_distribution(tiny_model)
    engine = make_engine(max_waiting_sequences=64, speculator=speculator([make_drafter(name)], 4))
    streams: dict[int, list[int]] = {}
    for first_seed in range(0, NUM_SEEDS, 12):
        for seed in range(first_seed, first_seed + 12):
            sampling = Sampling(temperature=1.0, top_k=TOP_K, seed=seed)
            limits = Limits(max_tokens=LENGTH, ignore_eos=True)
            streams[engine.add(GenerateRequest("r", PROMPT, sampling, limits, session_id="s"))] = []
        while engine.has_work:
            for handle, event in engine.step():
                if isinstance(event, Delta):
                    streams[handle] += event.token_ids
    observed = Counter(tuple(stream) for stream in streams.values())
    assert set(observed) <= set(expected)
    rare = {tokens for tokens, mass in expected.items() if NUM_SEEDS * mass < 5}
    cells = [(observed[tokens], mass) for tokens, mass in expected.items() if tokens not in rare]
    cells.append((sum(observed[tokens] for tokens in rare), sum(expected[tokens] for tokens in rare)))
    chi_squared = sum((count - NUM_SEEDS * mass) ** 2 / (NUM_SEEDS * mass) for count, mass in cells if mass)
    degrees = len(cells) - 1
    assert degrees > 20, "the distribution must be spread for this to say anything"
    # Wilson and Hilferty's cube-root approximation of the chi-squared quantile, at z = 3.09.
    limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3
    assert chi_squared < limit
    assert engine.load().drafters[0].drafted_tokens > 0
