"""A draft model's chains choose what a fresh forward over the same tokens would, whatever happened to them before."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.request import Sampling
from zenray.engine.sampler import apply_penalties, choose_token, has_penalties
from zenray.model.load import LoadedModel
from zenray.ops.batch import StepBatch
from zenray.speculative.chains import Chain, common_prefix
from zenray.speculative.draft_model import DraftModel, confidence_class

BLOCK_SIZE = 4
SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.8),
    Sampling(temperature=1.3, top_k=20, top_p=0.9),
    Sampling(temperature=0.7, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2),
    Sampling(repetition_penalty=1.2),
)


def fresh_token(model: LoadedModel, chain: Chain) -> int:
    """The next token by one forward over everything, past every cache and chain."""
    ids, count = chain.token_ids, len(chain.token_ids)
    batch = StepBatch(
        token_ids_T=torch.tensor(ids),
        positions_T=torch.arange(count),
        query_starts=torch.tensor([0, count], dtype=torch.int32),
        context_lens_S=torch.tensor([count], dtype=torch.int32),
        block_tables_SB=torch.zeros((1, 1), dtype=torch.int32),
        slots_T=torch.arange(count),
        logit_rows_R=torch.tensor([count - 1]),
        query_starts_list=[0, count],
        context_lens_list=[count],
    )
    logits_V = model.decoder.forward(batch, model.decoder.new_caches(1, count))[0]
    if has_penalties(chain.sampling):
        logits_V = apply_penalties(logits_V, chain.sampling, ids, Counter(ids[chain.num_prompt :]))
    return choose_token(logits_V, chain.sampling, chain.seed, count)


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_history_gives_the_tokens_of_a_fresh_forward(tiny_model: LoadedModel, data: st.DataObject) -> None:
    draft = DraftModel(
        tiny_model,
        num_blocks=data.draw(st.integers(2, 40), label="num_blocks"),
        block_size=BLOCK_SIZE,
        chunk_tokens=data.draw(st.sampled_from([1, 3, 8, 256]), label="chunk_tokens"),
    )
    documents = [tokens(40, seed) for seed in range(2)]  # few, so that chains share prefixes
    chains: list[Chain] = []
    for step in range(data.draw(st.integers(1, 14), label="steps")):
        action = data.draw(st.sampled_from(["open", "extend", "extend", "sync", "fork", "catch_up", "close"]))
        if action == "open" or not chains:
            document = data.draw(st.sampled_from(documents))
            prompt = document[: data.draw(st.integers(1, len(document)))]
            chains.append(draft.open(prompt, data.draw(st.sampled_from(SAMPLINGS)), seed=step))
        elif action == "extend":
            chosen = data.draw(st.lists(st.sampled_from(chains), min_size=1, unique_by=id))
            expected = [fresh_token(tiny_model, chain) for chain in chosen]
            lengths = [len(chain.token_ids) for chain in chosen]
            guesses = draft.extend(chosen, num_runners_up=data.draw(st.sampled_from([0, 3])))
            for chain, token, length, guess in zip(chosen, expected, lengths, guesses, strict=True):
                assert chain.token_ids[length:] == ([] if guess is None else [token])
                assert guess is None or (guess.token_id == token and token not in guess.runners_up)
        else:
            chain = data.draw(st.sampled_from(chains))
            kept = chain.token_ids[: data.draw(st.integers(0, len(chain.token_ids)))]
            other = kept + tokens(data.draw(st.integers(not kept, 9)), seed=100 + step)
            if action == "sync":
                draft.sync(chain, other)
                assert chain.token_ids == other
            elif action == "fork":
                chains.append(draft.fork(chain, other))
                assert chains[-1].token_ids == other
            elif action == "catch_up":
                draft.catch_up(chain, data.draw(st.integers(1, 20)))
            else:
                draft.close(chain)
                chains.remove(chain)
        draft.check_integrity()
    for chain in chains:
        draft.close(chain)
    draft.check_integrity()


def test_a_rejection_computes_only_what_changed(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=32, block_size=BLOCK_SIZE)
    prompt = tokens(21, seed=1)
    chain = draft.open(prompt)
    for _ in range(4):
        draft.extend([chain])
    drafted = chain.token_ids[21:]
    draft.sync(chain, [*prompt, *drafted[:2], 7])
    assert chain.num_pending == 1
    draft.sync(chain, [*prompt, *drafted[:2], 7, 8])
    assert chain.num_pending == 2


def test_full_acceptance_leaves_the_last_draft_token_and_the_bonus_to_read(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=32, block_size=BLOCK_SIZE)
    chain = draft.open(tokens(10, seed=1))
    for _ in range(3):
        draft.extend([chain])
    draft.sync(chain, [*chain.token_ids, 5])
    assert chain.num_pending == 2


def test_a_second_chain_finds_the_committed_blocks_of_the_first(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=32, block_size=BLOCK_SIZE)
    prompt = tokens(22, seed=1)
    first = draft.open(prompt)
    draft.extend([first])
    draft.close(first)
    second = draft.open([*prompt, 3])
    assert draft.catch_up(second, max_tokens=1) == 1, "20 of 23 tokens were found, one was computed"


def test_speculative_tokens_are_not_published(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=32, block_size=BLOCK_SIZE)
    chain = draft.open(tokens(3, seed=1))
    for _ in range(8):
        draft.extend([chain])
    guessed = list(chain.token_ids)
    draft.close(chain)
    again = draft.open(guessed)
    assert draft.catch_up(again, max_tokens=1) == len(guessed) - 2


def test_branches_share_blocks_until_one_writes(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=32, block_size=BLOCK_SIZE)
    chain = draft.open(tokens(14, seed=1))
    draft.extend([chain])
    branch = draft.fork(chain, [*chain.token_ids[:14], 9])
    assert branch.block_ids == chain.block_ids
    draft.extend([branch])
    assert branch.block_ids[:3] == chain.block_ids[:3]
    assert branch.block_ids[3] != chain.block_ids[3]
    draft.check_integrity()


def test_the_least_recently_used_chain_gives_way_and_reads_again(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=8, block_size=BLOCK_SIZE)
    old, kept, new = (draft.open(tokens(12, seed)) for seed in range(3))
    for chain in (old, kept, new):
        assert draft.extend([chain]) != [None]
    assert not old.block_ids
    assert kept.block_ids
    expected = fresh_token(tiny_model, old)
    [guess] = draft.extend([old])
    assert guess is not None
    assert guess.token_id == expected


def test_a_chain_that_cannot_fit_drafts_nothing_and_harms_nobody(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=4, block_size=BLOCK_SIZE)
    small, large = draft.open(tokens(5, seed=0)), draft.open(tokens(17, seed=1))
    guesses = draft.extend([small, large])
    assert guesses[0] is not None
    assert guesses[1] is None
    assert len(large.token_ids) == 17
    draft.check_integrity()


def test_probabilities_are_those_of_the_softmax(tiny_model: LoadedModel) -> None:
    draft = DraftModel(tiny_model, num_blocks=32, block_size=BLOCK_SIZE)
    prompt = tokens(9, seed=2)
    [likeliest] = draft.extend([draft.open(prompt)])
    assert likeliest is not None
    counts: Counter[int] = Counter()
    for seed in range(300):
        [guess] = draft.extend([draft.open(prompt, Sampling(temperature=1.0), seed)])
        assert guess is not None
        counts[guess.token_id] += 1
        if guess.token_id == likeliest.token_id:
            assert guess.probability == pytest.approx(likeliest.probability)
    assert counts[likeliest.token_id] / 300 == pytest.approx(likeliest.probability, abs=0.1)


def test_confidence_classes_rise_with_the_probability() -> None:
    classes = [confidence_class(thousandth / 1000) for thousandth in range(1001)]
    assert classes == sorted(classes)
    assert set(classes) == set(range(16))


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), max_size=30))
def test_the_common_prefix_is_the_longest_one(left: list[int], right: list[int]) -> None:
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]
