from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.bench.prompts import (
    KINDS,
    PromptSizes,
    build_prompts,
    estimate_tokens,
    longest_prefix,
    make_set,
    read_jsonl,
    write_jsonl,
)


def test_the_same_interpreter_gives_the_same_prompts() -> None:
    first, second = build_prompts(), build_prompts()
    assert first == second
    assert {kind: len(first.of(kind)) for kind in KINDS} == dict.fromkeys(KINDS, 8)
    assert all(len({prompt.text for prompt in first.of(kind)}) == 8 for kind in KINDS)


def test_prompts_have_the_sizes_they_promise() -> None:
    prompts = build_prompts()
    assert all(55 <= estimate_tokens(prompt.text) <= 80 for prompt in prompts.of("short"))
    assert all(prompt.text.rstrip().endswith(":") for prompt in prompts.of("short"))
    assert all(abs(estimate_tokens(prompt.text) - 512) <= 1 for prompt in prompts.of("prefill"))
    assert all(1400 <= estimate_tokens(prompt.text) <= 1500 for prompt in prompts.of("long"))
    assert all(prompt.suffix for prompt in prompts.of("fim"))


def test_an_appended_prompt_is_the_long_one_and_one_line() -> None:
    for long, appended in build_prompts().pairs():
        assert appended.text.startswith(long.text)
        line = appended.text.removeprefix(long.text)
        assert line.strip() and line.endswith("\n") and line.count("\n") == 1


def test_a_small_context_gets_smaller_prompts() -> None:
    prompts = build_prompts(len, sizes=PromptSizes().within(400))
    assert all(len(prompt.text) <= 400 for prompt in (*prompts.of("prefill"), *prompts.of("long")))
    assert len(prompts.of("short")) == 8


def test_variants_differ_from_their_first_line_on() -> None:
    prompt = build_prompts().of("short")[0]
    assert prompt.variant(1).text.splitlines()[0] != prompt.variant(2).text.splitlines()[0]
    assert prompt.variant(1).text.endswith(prompt.text)


def test_a_file_of_prompts_comes_back_as_it_was(tmp_path: Path) -> None:
    prompts = build_prompts()
    write_jsonl(prompts, tmp_path / "prompts.jsonl")
    assert read_jsonl(tmp_path / "prompts.jsonl") == prompts


def test_any_file_with_prompts_will_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b", "suffix": "c"}\n')
    assert [(p.kind, p.text, p.suffix) for p in read_jsonl(path).prompts] == [("short", "a", None), ("fim", "b", "c")]


@pytest.mark.parametrize("line", ['{"text": "a"}', '{"prompt": 3}', '{"prompt": "a", "kind": "huge"}'])
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(f'{{"prompt": "fine"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"wrong\.jsonl:2"):
        read_jsonl(path)


def test_the_hash_knows_every_character() -> None:
    prompts = build_prompts()
    changed = (prompts.prompts[0].variant(0), *prompts.prompts[1:])
    assert make_set(changed).sha256 != prompts.sha256


@given(st.text(max_size=200), st.integers(0, 60))
def test_longest_prefix(text: str, limit: int) -> None:
    def count(part: str) -> int:
        return len(part) // 3

    prefix = longest_prefix(text, limit, count)
    assert text.startswith(prefix)
    assert count(prefix) <= limit
    assert prefix == text or count(text[: len(prefix) + 1]) > limit
