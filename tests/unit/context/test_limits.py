"""Sizes and shape of prompts as a configuration states them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zenray.config import ContextSettings, SnippetSource
from zenray.context.budget import PromptLimits, deadline_budget
from zenray.context.pieces import ContextSource
from zenray.model.catalog import trained_order


def test_shares_budget_and_weights_are_those_configured() -> None:
    settings = ContextSettings(
        max_prompt_tokens=512, suffix_share=0.1, snippet_share=0.3, source_weights={"CLIPBOARD": 0.0}
    )
    limits = PromptLimits.of(settings, 4096)
    assert (limits.context_length, limits.max_prompt_tokens) == (4096, 512)
    assert (limits.suffix_share, limits.snippet_share) == (0.1, 0.3)
    assert limits.weights.sources[ContextSource.CLIPBOARD] == 0.0
    assert limits.weights.sources[ContextSource.DEFINITION] > 1


def test_the_order_is_the_models_unless_configured() -> None:
    assert PromptLimits.of(ContextSettings(), 4096).order == "psm"
    assert PromptLimits.of(ContextSettings(), 4096, "spm").order == "spm"
    assert PromptLimits.of(ContextSettings(layout="psm"), 4096, "spm").order == "psm"
    assert trained_order("qwen2.5-coder-1.5b") == trained_order("preset:anything") == "psm"


def test_sources_that_are_none_and_negative_weights_are_refused() -> None:
    for weights in ({"PREFIX": 1.0}, {"CLIPBOARD": -1.0}):
        with pytest.raises(ValidationError, match="source_weights"):
            ContextSettings.model_validate({"source_weights": weights})
    assert {ContextSource(name) for name in SnippetSource.__args__} < set(ContextSource)


@settings(deadline=None)
@given(st.integers(8, 32_768), st.integers(1, 600_000), st.floats(0.1, 1e6))
def test_a_deadline_never_grows_a_budget_nor_takes_the_last_of_it(budget: int, deadline_ms: int, rate: float) -> None:
    shrunk = deadline_budget(budget, deadline_ms, rate)
    assert min(budget, 128) <= shrunk <= budget
    assert shrunk <= max(128, deadline_ms / 1000 * rate)
    assert deadline_budget(budget, None, rate) == deadline_budget(budget, deadline_ms, None) == budget


def test_a_wavering_rate_gives_one_budget() -> None:
    """Of another size a prompt would be another one for the prefix cache."""
    budgets = {deadline_budget(4096, 1000, 2 * (900 + wavering)) for wavering in range(0, 90, 5)}
    assert len(budgets) == 1
