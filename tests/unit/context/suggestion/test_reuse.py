"""A completion answers a later request exactly when that one asks for the rest of its text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.suggestion.reuse import (
    MIN_CUT_CHARACTERS,
    agrees,
    gap_of,
    is_cut_short,
    remains,
    typed_between,
)
from zenray.engine.request import FinishReason, Limits, Sampling

texts = st.text(max_size=30) | st.text("ab\n\t\r(é€😀", max_size=30)


def asked(before: str, after: str, **fields: object) -> CompletionRequest:
    editor = EditorState("a.py", "python", before + after, len(before))
    request = CompletionRequest("r", editor, "s", limits=Limits(64), suggestion=FOR_EDITORS)
    return replace(request, **fields)  # type: ignore[arg-type]


@given(texts, texts, texts)
def test_typing_on_at_the_cursor_continues_and_nothing_else_is_lost(before: str, after: str, typed: str) -> None:
    older, newer = gap_of(asked(before, after)), gap_of(asked(before + typed, after))
    assert typed_between(older, newer) == typed
    if typed:
        assert typed_between(newer, older) is None


@given(texts, texts, texts, texts)
def test_only_typing_continues(before: str, after: str, other_before: str, other_after: str) -> None:
    typed = typed_between(gap_of(asked(before, after)), gap_of(asked(other_before, other_after)))
    assert (typed is not None) == (after == other_after and other_before.startswith(before))
    if typed is not None:
        assert before + typed == other_before


@given(texts, texts)
def test_typed_and_text_agree_while_either_begins_with_the_other(typed: str, text: str) -> None:
    assert agrees(typed, text) == all(a == b for a, b in zip(typed, text, strict=False))
    assert remains(typed, text, cut_short=False) == (text.startswith(typed) and bool(text[len(typed) :].strip()))


def test_of_a_text_that_was_cut_short_a_remainder_must_be_worth_it() -> None:
    text = "x" * (MIN_CUT_CHARACTERS + 1)
    assert remains("x", text, cut_short=True)
    assert not remains("xx", text, cut_short=True)
    assert remains("xx", text, cut_short=False)


@pytest.mark.parametrize(
    ("reason", "num_tokens", "cut_short"),
    [
        (FinishReason.LENGTH, 8, True),
        (FinishReason.LENGTH, 7, False),  # max_lines
        (FinishReason.DEADLINE, 1, True),
        (FinishReason.EOS, 8, False),
        (FinishReason.SCOPE_END, 3, False),
    ],
)
def test_a_text_is_cut_short_by_its_tokens_or_its_deadline(
    reason: FinishReason, num_tokens: int, cut_short: bool
) -> None:
    assert is_cut_short(reason, num_tokens, Limits(max_tokens=8)) is cut_short


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(temperature=0.5)},
        {"limits": Limits(65)},
        {"limits": Limits(64, max_lines=1)},
        {"model": "another"},
        {"suggestion": replace(FOR_EDITORS, single_line=True)},
    ],
)
def test_other_terms_ask_for_another_completion(fields: dict[str, object]) -> None:
    assert typed_between(gap_of(asked("a", "b")), gap_of(asked("ac", "b", **fields))) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(n=2)},
        {"sampling": Sampling(logprobs=0)},
        {"sampling": Sampling(prompt_logprobs=True)},
        {"suggestion": replace(FOR_EDITORS, reuse=False)},
    ],
)
def test_who_wants_a_completion_of_its_own_shares_none(fields: dict[str, object]) -> None:
    gap = gap_of(asked("a", "b", **fields))
    assert typed_between(gap, gap) is None


def test_a_deadline_is_each_requests_own() -> None:
    patient, hasty = Limits(64, deadline_ms=60_000), Limits(64, deadline_ms=5)
    assert typed_between(gap_of(asked("a", "", limits=patient)), gap_of(asked("ab", "", limits=hasty))) == "b"
