from __future__ import annotations

import pytest

from zenray.bench.speculative_prompts import (
    MAX_TOKENS,
    SPECULATIVE_KINDS,
    SpeculativeKind,
    speculative_prompts,
)
from zenray.model.tokenizer import ByteTokenizer, Tokenizer

TOKENIZER = ByteTokenizer()


class ChatTokenizer(ByteTokenizer):
    """One that knows the tokens of a chat, as Qwen's does."""

    CONTROL_TOKENS = (*ByteTokenizer.CONTROL_TOKENS, "<|im_start|>")

    def __init__(self) -> None:
        super().__init__(vocab_size=265)


class PlainTokenizer(Tokenizer):
    """One without any control tokens."""

    def __init__(self) -> None:
        super().__init__(256, {}, eos_token_ids=())

    def _encode(self, text: str, data: bytes) -> list[int]:
        return list(data)

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id,))


@pytest.mark.parametrize("kind", SPECULATIVE_KINDS)
def test_prompts_are_different_and_the_same_every_time(kind: SpeculativeKind) -> None:
    tokenizer = PlainTokenizer() if kind == "edit" else TOKENIZER
    count = 3 if kind == "edit" else 20
    prompts = speculative_prompts(tokenizer, kind, count)
    assert len({prompt.name for prompt in prompts}) == len({prompt.token_ids for prompt in prompts}) == count
    assert prompts == speculative_prompts(tokenizer, kind, count)
    assert prompts[: count - 1] == speculative_prompts(tokenizer, kind, count - 1)
    assert prompts != speculative_prompts(tokenizer, kind, count, seed=1)
    assert {prompt.max_tokens for prompt in prompts} == {MAX_TOKENS[kind]}


def test_all_of_humaneval_is_fresh_code_and_no_more() -> None:
    prompts = speculative_prompts(TOKENIZER, "fresh", 164)
    assert all("def " in TOKENIZER.decode(prompt.token_ids) for prompt in prompts)
    with pytest.raises(ValueError, match="only 164 prompts of kind fresh, 165 wanted"):
        speculative_prompts(TOKENIZER, "fresh", 165)


def test_an_infill_prompt_has_text_on_both_sides_of_its_hole() -> None:
    fim = TOKENIZER.fim
    assert fim is not None
    for prompt in speculative_prompts(TOKENIZER, "infill", 20):
        ids = prompt.token_ids
        assert (ids[0], ids[-1]) == (fim.prefix, fim.middle)
        cut = ids.index(fim.suffix)
        assert len(ids[1:cut]) > 300
        assert TOKENIZER.decode(ids[cut + 1 : -1]).startswith("\n")


def test_about_half_of_the_holes_start_in_mid_line() -> None:
    fim = TOKENIZER.fim
    assert fim is not None
    prompts = speculative_prompts(TOKENIZER, "infill", 40)
    befores = [TOKENIZER.decode(prompt.token_ids[: prompt.token_ids.index(fim.suffix)]) for prompt in prompts]
    assert 10 <= sum(bool(before.rsplit("\n", 1)[-1].strip()) for before in befores) <= 30


def test_without_infill_tokens_the_prompt_ends_at_the_cursor() -> None:
    plain = PlainTokenizer()
    with_suffix, without = speculative_prompts(TOKENIZER, "infill", 1), speculative_prompts(plain, "infill", 1)
    assert TOKENIZER.decode(with_suffix[0].token_ids).startswith(plain.decode(without[0].token_ids))


def test_an_edit_asks_for_code_that_stands_in_the_prompt() -> None:
    tokenizer = ChatTokenizer()
    (prompt,) = speculative_prompts(tokenizer, "edit", 1)
    text = tokenizer.decode(prompt.token_ids)
    code = text.split("```python\n")[1].split("\n```")[0]
    named = text.split("`")[1]  # what the instruction speaks of
    assert named.removeprefix("if ").split(" ")[0] in code
    assert [tokenizer.control_token_text(i) for i in prompt.token_ids if i >= 256] == [
        "<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>",
    ]  # fmt: skip
    assert text.endswith("assistant\n```python\n")
