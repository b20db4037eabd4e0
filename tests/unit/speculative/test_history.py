from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zenray.model.tokenizer import FimTokens
from zenray.speculative.history import SEPARATOR, SessionHistory, TokenText, reading_order

FIM = FimTokens(prefix=100, suffix=101, middle=102)
TOKENS = st.lists(st.integers(0, 99), max_size=40)


@given(st.lists(TOKENS, max_size=8))
def test_a_text_is_what_was_added_behind_a_separator(parts: list[list[int]]) -> None:
    text = TokenText(parts[0] if parts else [])
    for part in parts[1:]:
        before = text.ids_N
        held = before.tolist()
        text.extend(part * 100)
        assert before.tolist() == held  # who holds an older view keeps it
    whole = [token_id for number, part in enumerate(parts) for token_id in part * (100 if number else 1)]
    assert text.ids_N.tolist() == [SEPARATOR, *whole]
    assert len(text) == len(whole) + 1


@given(TOKENS, TOKENS, TOKENS)
def test_an_infill_is_read_suffix_first_so_that_the_end_of_its_prefix_comes_last(
    head: list[int], prefix: list[int], suffix: list[int]
) -> None:
    prompt = [*head, FIM.prefix, *prefix, FIM.suffix, *suffix, FIM.middle]
    assert reading_order(prompt, FIM) == [*suffix, SEPARATOR, *head, FIM.prefix, *prefix]


@given(TOKENS)
def test_other_prompts_are_read_as_they_are(prompt: list[int]) -> None:
    assert reading_order(prompt, FIM) == prompt
    assert reading_order([*prompt, FIM.middle], FIM) == [*prompt, FIM.middle]
    infill = [FIM.prefix, *prompt, FIM.suffix, FIM.middle]
    assert reading_order(infill, None) == infill


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), TOKENS, st.booleans()), max_size=40),
    st.integers(0, 50),
    st.integers(1, 3),
)
def test_memory_stays_bounded_whatever_happens(
    steps: list[tuple[str, list[int], bool]], session_tokens: int, max_sessions: int
) -> None:
    history = SessionHistory(session_tokens, max_sessions)
    said: dict[str, list[int]] = {}
    used: list[str] = []
    for session_id, token_ids, only_looks in steps:
        recalled = history.recall(session_id).tolist()
        if only_looks:
            if session_id in used:
                used = [*(other for other in used if other != session_id), session_id]
        elif session_id and session_tokens:
            history.remember(session_id, TokenText(token_ids).ids_N)
            said[session_id] = [*said.get(session_id, [SEPARATOR]), *token_ids, SEPARATOR]
            used = [*(other for other in used if other != session_id), session_id][-max_sessions:]
            said = {known: text for known, text in said.items() if known in used}
        for known in used:
            newest = said[known][-session_tokens:]
            assert newest[1:] == history._texts[known].tolist()[1:]
        assert recalled[0] == SEPARATOR
        assert history.num_tokens <= session_tokens * max_sessions
    assert set(history._texts) == set(used)


def test_what_was_recalled_does_not_change_later() -> None:
    history = SessionHistory(session_tokens=8, max_sessions=1)
    history.remember("a", TokenText([1, 2, 3]).ids_N)
    recalled = history.recall("a")
    history.remember("a", TokenText([4, 5, 6, 7]).ids_N)
    history.remember("b", TokenText([8]).ids_N)
    assert recalled.tolist() == [SEPARATOR, 1, 2, 3, SEPARATOR]
    assert history.recall("a").tolist() == [SEPARATOR]
    assert recalled.dtype == np.int32
