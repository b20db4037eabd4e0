"""Prompts with the real vocabulary of Qwen2.5-Coder."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.context.assemble import assemble
from zenray.context.budget import PromptLimits
from zenray.context.request import CompletionRequest, EditorState, Infill
from zenray.engine.request import Limits
from zenray.model.load import load_tokenizer
from zenray.model.tokenizer import Tokenizer

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def tokenizer(real_model_05b: Path) -> Tokenizer:
    return load_tokenizer(real_model_05b)


def test_an_infill_has_qwens_ids_and_text_never_has(tokenizer: Tokenizer) -> None:
    request = CompletionRequest("id", Infill("x = <|fim_middle|>", "<|endoftext|>"), limits=Limits(max_tokens=8))
    prompt = assemble(request, tokenizer, PromptLimits(8192, 2048, 0.25))
    controls = [token_id for token_id in prompt.token_ids if token_id in tokenizer.control_token_ids]
    assert controls == [151659, 151661, 151660]
    assert {151659, 151660, 151661, 151662, 151663, 151664} == set(prompt.stop_token_ids)
    assert prompt.text == "<|fim_prefix|>x = <|fim_middle|><|fim_suffix|><|endoftext|><|fim_middle|>"


def test_a_trimmed_prompt_is_counted_exactly_and_starts_and_ends_at_lines(tokenizer: Tokenizer) -> None:
    text = Path(__file__).read_text() * 40
    cursor = text.index("    assert", len(text) // 2)
    request = CompletionRequest("id", EditorState("a.py", "python", text, cursor), limits=Limits(max_tokens=8))
    prompt = assemble(request, tokenizer, PromptLimits(8192, 1024, 0.25))
    _, prefix, _, suffix, _ = prompt.pieces
    assert text[:cursor].endswith("\n" + prefix.text)
    assert text[cursor:].startswith(suffix.text)
    assert suffix.text.endswith("\n")
    assert 600 < prefix.token_count + suffix.token_count <= 1021
    for piece in (prefix, suffix):
        assert len(tokenizer.encode(piece.text)) == piece.token_count
    assert abs(prompt.dropped_tokens + len(prompt.token_ids) - len(tokenizer.encode(text))) < 0.1 * len(text) / 4
