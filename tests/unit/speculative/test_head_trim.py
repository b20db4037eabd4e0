"""A trimmed head gives the same logits for fewer tokens, and the ids, noise and penalties stay those of the tokens."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.engine.request import Sampling
from zenray.model.load import LoadedModel, load_preset, load_tokenizer
from zenray.model.tokenizer import ByteTokenizer
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.head_trim import TrimmedModel, head_token_ids, ranked_tokens, trim_head

PROMPT = list(b"def add(a, b):\n    return a")
SAMPLINGS = (Sampling(), Sampling(temperature=0.9), Sampling(temperature=0.9, top_k=30, repetition_penalty=1.3))


def continuation(model: LoadedModel, sampling: Sampling, count: int = 12) -> list[int]:
    draft = DraftModel(model, num_blocks=32, block_size=4)
    chain = draft.open(PROMPT, sampling, seed=5)
    for _ in range(count):
        draft.extend([chain])
    return chain.token_ids


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_head_of_all_tokens_drafts_as_the_untrimmed_one(tiny_model: LoadedModel, sampling: Sampling) -> None:
    assert trim_head(tiny_model, 0) is tiny_model
    assert trim_head(tiny_model, tiny_model.config.vocab_size) is tiny_model
    # Every token but the last id, which is then only missing from the choice.
    nearly_all = trim_head(tiny_model, tiny_model.config.vocab_size - 1)
    assert isinstance(nearly_all, TrimmedModel)
    whole = continuation(tiny_model, sampling)
    assert not set(whole) - set(nearly_all.head_ids_R.tolist()), "the story needs a text without the missing token"
    assert continuation(nearly_all, sampling) == whole


@pytest.mark.parametrize("weight_format", [None, "int8", "int4"])
def test_the_kept_logits_are_bit_for_bit_those_of_the_full_head(weight_format: str | None) -> None:
    model = load_preset("tiny", seed=1, dtype=torch.bfloat16, weight_format=weight_format)  # type: ignore[arg-type]
    trimmed = trim_head(model, 77)
    assert isinstance(trimmed, TrimmedModel)
    x_TD = torch.randn(3, model.config.hidden_size, generator=torch.Generator().manual_seed(0)).bfloat16()
    ops, full, cut = model.decoder.ops, model.decoder.weights.head, trimmed.decoder.weights.head
    expected = ops.linear(x_TD, full, torch.float32)[:, trimmed.head_ids_R]
    assert torch.equal(ops.linear(x_TD, cut, torch.float32), expected)
    assert cut.num_bytes < full.num_bytes / 3
    assert trimmed.decoder.weights.embed is model.decoder.weights.embed


@settings(max_examples=50, deadline=None)
@given(st.integers(16, 263), st.integers(0, 2**32), st.sampled_from([0.0, 0.7, 1.5]))
def test_the_choice_is_the_verifiers_among_the_kept_tokens(
    tiny_model: LoadedModel, num_tokens: int, seed: int, temperature: float
) -> None:
    trimmed = trim_head(tiny_model, num_tokens)
    assert isinstance(trimmed, TrimmedModel)
    sampling = Sampling(temperature=temperature)
    draft = DraftModel(trimmed, num_blocks=8)
    [guess] = draft.extend([draft.open(PROMPT, sampling, seed)])
    full = DraftModel(tiny_model, num_blocks=8)
    [ranked] = full.extend([full.open(PROMPT, sampling, seed)], num_runners_up=tiny_model.config.vocab_size - 1)
    assert guess is not None
    assert ranked is not None
    kept = set(trimmed.head_ids_R.tolist())
    assert guess.token_id == next(token for token in (ranked.token_id, *ranked.runners_up) if token in kept)


def test_the_ends_of_a_text_are_always_kept() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.eos_token_ids <= set(head_token_ids(tokenizer, 3))


def test_without_a_ranking_the_lowest_ids_are_kept_and_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert head_token_ids(ByteTokenizer(), 5) == [0, 1, 2, 256, 257]
    assert "no token ranking" in caplog.text


@pytest.mark.real_model
def test_the_ranking_of_qwen_puts_code_first(real_model_05b: Path) -> None:
    tokenizer = load_tokenizer(real_model_05b)
    ranking = ranked_tokens(tokenizer)
    assert ranking is not None
    assert len(set(ranking)) == len(ranking)
    assert max(ranking) < tokenizer.vocab_size
    text = "\n\ndef main() -> None:\n    for index, item in enumerate(items):\n        print(index, item)\n"
    assert set(tokenizer.encode(text)) <= set(head_token_ids(tokenizer, 32_768))
