"""The choice of a token is a function of (logits, parameters, own tokens, seed, position), with the right law."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.engine.noise import choice_seed, gumbel, ids_with_noise_above
from zenray.engine.request import Sampling
from zenray.engine.sampler import apply_penalties, best_tokens, choose_token, token_logprobs

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def draws(sampling: Sampling, count: int = 4000) -> Counter[int]:
    return Counter(choose_token(LOGITS, sampling, seed=7, position=p) for p in range(count))


def test_the_noise_depends_on_the_token_and_not_on_its_company() -> None:
    ids = torch.tensor([5, 70_000, 3])
    everything = gumbel(11, 4, torch.arange(100_000))
    assert torch.equal(gumbel(11, 4, ids), everything[ids])
    assert not torch.equal(gumbel(11, 5, ids), everything[ids])
    assert not torch.equal(gumbel(12, 4, ids), everything[ids])


def test_the_noise_has_the_gumbel_mean_and_variance() -> None:
    noise = torch.cat([gumbel(seed, 9, torch.arange(50_000)) for seed in range(4)])
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    assert torch.isfinite(noise).all()


def test_neighbouring_seeds_and_positions_are_uncorrelated() -> None:
    ids = torch.arange(20_000)
    base = gumbel(1, 1, ids)
    for other in (gumbel(2, 1, ids), gumbel(1, 2, ids), gumbel(1, 1, ids + 1)):
        assert abs(torch.corrcoef(torch.stack([base, other]))[0, 1].item()) < 0.03


def test_choice_zero_keeps_the_seed_and_the_others_differ() -> None:
    assert choice_seed(2**64 - 1, 0) == 2**64 - 1
    assert len({choice_seed(5, index) for index in range(100)}) == 100


def test_sampling_follows_the_softmax() -> None:
    counts = draws(Sampling(temperature=1.0))
    for token, probability in enumerate(LOGITS.softmax(0).tolist()):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_temperature_sharpens_the_softmax() -> None:
    counts = draws(Sampling(temperature=0.5))
    for token, probability in enumerate((LOGITS / 0.5).softmax(0).tolist()):
        assert counts[token] / 4000 == pytest.approx(probability, abs=0.03)


def test_top_k_and_top_p_keep_the_most_likely() -> None:
    assert set(draws(Sampling(temperature=2.0, top_k=2))) == {0, 1}
    # Masses are .56, .21, .13, ...: two tokens reach .75 (the second one crosses it), three reach .85.
    assert set(draws(Sampling(temperature=1.0, top_p=0.75))) == {0, 1}
    assert set(draws(Sampling(temperature=1.0, top_p=0.85))) == {0, 1, 2}
    assert set(draws(Sampling(temperature=1.0, top_p=1e-9))) == {0}


def test_top_p_over_a_flat_vocabulary_falls_back_to_the_whole_of_it() -> None:
    flat = torch.zeros(5000)
    seen = {choose_token(flat, Sampling(temperature=1.0, top_p=0.9), 3, p) for p in range(300)}
    assert len(seen) > 200


@given(st.floats(0.05, 3), st.integers(0, 6), st.floats(0.01, 1), st.integers(0, 2**64 - 1), st.integers(0, 2**20))
def test_truncation_never_changes_a_choice_it_keeps(
    temperature: float, top_k: int, top_p: float, seed: int, position: int
) -> None:
    free = choose_token(LOGITS, Sampling(temperature=temperature), seed, position)
    cut = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    chosen = choose_token(LOGITS, cut, seed, position)
    scaled = LOGITS.double() / temperature
    kept = torch.topk(scaled, top_k or 6).indices.tolist()
    mass = torch.softmax(scaled[kept], 0).cumsum(0)
    kept = kept[: int((mass < top_p).sum()) + 1]
    assert chosen in kept
    if free in kept:
        assert chosen == free


def torch_gumbel(seed: int, position: int, vocab_size: int) -> torch.Tensor:
    """The noise by its definition, a second time: SplitMix64 in torch's wrapping int64 arithmetic."""

    def signed(x: int) -> int:
        return (x + (1 << 63)) % (1 << 64) - (1 << 63)

    def shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
        return (x >> bits) & ((1 << (64 - bits)) - 1)

    def finalised(x: torch.Tensor) -> torch.Tensor:
        x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
        x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
        return x ^ shifted(x, 31)

    golden = signed(0x9E3779B97F4A7C15)
    state = finalised(finalised(torch.tensor(signed(seed))) + signed(position * golden))
    uniform = shifted(finalised(state + (torch.arange(vocab_size) + 1) * golden), 11).double() + 0.5
    return -torch.log(-torch.log(uniform * 2.0**-53))


def choice_by_definition(logits_V: torch.Tensor, sampling: Sampling, seed: int, position: int) -> list[int]:
    """Every token's score, best first, with no short cut; tokens left out by top-k or top-p do not appear."""
    scaled, order = torch.sort(logits_V.double() / sampling.temperature, descending=True)
    kept = sampling.top_k or len(order)
    if sampling.top_p < 1:
        mass = torch.softmax(scaled[:kept], 0).cumsum(0)
        kept = min(kept, int((mass < sampling.top_p).sum()) + 1)
    scores = scaled[:kept] + torch_gumbel(seed, position, len(order))[order[:kept]]
    return order[scores.argsort(descending=True)].tolist()


@settings(max_examples=200, deadline=None)
@given(
    vocab_size=st.one_of(st.integers(1, 400), st.integers(400, 40_000)),
    spread=st.floats(0.01, 12),
    impossible=st.floats(0, 0.9),
    temperature=st.floats(0.05, 3),
    top_k=st.one_of(st.just(0), st.integers(1, 300)),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    seed=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**20),
)
def test_the_short_cuts_choose_what_the_definition_does(
    vocab_size: int,
    spread: float,
    impossible: float,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    position: int,
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**63)
    logits_V = torch.randn(vocab_size, generator=generator) * spread
    logits_V[1:][torch.rand(vocab_size - 1, generator=generator) < impossible] = -torch.inf
    num_possible = int(logits_V.isfinite().sum())
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    expected = choice_by_definition(logits_V, sampling, seed, position)[: min(5, num_possible)]
    assert choose_token(logits_V, sampling, seed, position) == expected[0]
    assert best_tokens(logits_V, sampling, seed, position, len(expected)) == expected


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1e-308),
        Sampling(temperature=1.0, repetition_penalty=1e-40),
        Sampling(temperature=1e-308, top_p=0.9),
        Sampling(temperature=1e-308, top_k=40),
    ],
)
def test_logits_that_overflow_still_give_a_likely_token(sampling: Sampling) -> None:
    logits_V = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 10
    penalised_V = apply_penalties(logits_V, sampling, seen_ids=range(500), output_counts={})
    assert logits_V[choose_token(penalised_V, sampling, 1, 1)] > 0


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**20), st.floats(-8, 12))
def test_loud_tokens_are_found_without_their_noise(seed: int, position: int, floor: float) -> None:
    noise = gumbel(seed, position, torch.arange(50_000))
    found = ids_with_noise_above(seed, position, 50_000, floor)
    loud = (noise >= floor).nonzero()[:, 0].tolist()
    assert set(loud) <= set(found.tolist())
    assert len(found) <= len(loud) + 1, "hardly others"


def test_penalties_follow_their_definitions() -> None:
    sampling = Sampling(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    penalised = apply_penalties(LOGITS, sampling, seen_ids=[0, 4], output_counts={4: 3, 1: 1})
    expected = [1.0, 1.0 - 0.75, 0.5, 0.0, -2.0 - 0.5 - 0.75, -3.0]
    assert penalised.tolist() == pytest.approx(expected)
    assert LOGITS[0] == 2.0, "the row itself is left alone"


def test_logprobs_are_the_models_own() -> None:
    (entry,) = token_logprobs(LOGITS[None], [2], num_top=3)
    reference = LOGITS.log_softmax(0)
    assert entry.logprob == pytest.approx(reference[2].item())
    assert [token for token, _ in entry.top] == [0, 1, 2]
    assert [value for _, value in entry.top] == pytest.approx(reference[:3].tolist())
