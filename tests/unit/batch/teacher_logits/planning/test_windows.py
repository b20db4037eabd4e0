"""A plain document: windows that overlap, each of its tokens scored once."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.batch.teacher_logits.planning.planning_examples import TEXTS, TOKENIZERS, by_path, documents_of
from zenray.batch.teacher_logits.model import Mode
from zenray.batch.teacher_logits.planning.cut import windows
from zenray.batch.teacher_logits.planning.plan import plan_sequences
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.errors import ConfigError
from zenray.model.tokenizer import Tokenizer

SIZES = st.integers(16, 80).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window // 2)))


@given(st.integers(1, 500), SIZES)
def test_windows_score_every_token_once_and_give_the_context_they_promise(num_tokens: int, sizes: tuple) -> None:
    window_tokens, overlap_tokens = sizes
    made = list(windows(num_tokens, window_tokens, overlap_tokens))
    assert [token for each in made for token in range(each.first_scored, each.end)] == list(range(num_tokens))
    assert all(each.first_scored - each.begin == overlap_tokens for each in made[1:])
    assert all(each.end - each.begin == window_tokens for each in made[:-1])
    assert 0 < made[-1].end - made[-1].begin <= window_tokens


@given(TEXTS, SIZES, st.sampled_from(TOKENIZERS), st.integers(0, 3))
def test_a_planned_document_is_its_tokens_and_the_end_of_text(
    text: str, sizes: tuple, tokenizer: Tokenizer, seed: int
) -> None:
    """Put together from what each window scores; the rest of a window repeats what came before."""
    window_tokens, overlap_tokens = sizes
    settings = PlanSettings(window_tokens, overlap_tokens, fim_rate=0, min_document_tokens=1)
    plan = plan_sequences(documents_of([text]), tokenizer, settings, seed, say=lambda _: None)
    assume(not plan.account.windows_left_out)  # Of two equal windows one is planned.
    segments = by_path(plan.sequences)["0.py"]
    num_bos = int(tokenizer.add_bos)
    found: list[int] = []
    for segment in segments:
        assert segment.mode is Mode.PLAIN and len(segment.token_ids) <= window_tokens
        assert list(segment.token_ids[:num_bos]) == [tokenizer.bos_token_id] * num_bos
        # The first of all has nothing before it, unless a BOS token is.
        first_new = segment.first_scored if found else num_bos
        assert len(found) == 0 or segment.first_scored - num_bos >= overlap_tokens
        assert list(segment.token_ids[num_bos:first_new]) == found[len(found) - (first_new - num_bos) :]
        found += segment.token_ids[first_new:]
    assert found == [*tokenizer.encode(text), 256]
    assert segments[0].first_scored == 1


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("window_tokens", 15, "16 and more"),
        ("overlap_tokens", 0, "1 to 2048, half of window_tokens"),
        ("overlap_tokens", 2049, "1 to 2048, half of window_tokens"),
        ("fim_rate", 1.1, "0 to 1"),
        ("spm_share", -0.1, "0 to 1"),
        ("max_tokens", 0, "1 and more, or none"),
        ("min_document_tokens", 0, "1 and more"),
    ],
)
def test_settings_say_what_they_allow(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is {value}; allowed: {allowed}"):
        PlanSettings(**{field: value})  # type: ignore[arg-type]
