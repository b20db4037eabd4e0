"""Finished completions are kept within bounds, and what is found continues what was asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.suggestion.model import CompletionStarted
from zenray.context.suggestion.reuse import Gap, gap_of
from zenray.engine.request import Delta, Final, FinishReason, Limits, Timings, Usage
from zenray.serving.finished import MAX_AGE_S, Finished, FinishedCompletions

MAX_PER_SESSION, MAX_SESSIONS, MAX_CHARACTERS = 3, 2, 60

short = st.text("ab ", max_size=6)
actions = st.lists(
    st.tuples(
        st.sampled_from(["keep", "keep", "find", "end"]), st.sampled_from("xyz"), st.sampled_from("pq"), short, short
    ),
    max_size=60,
)


def gap(before: str, after: str = "") -> Gap:
    editor = EditorState("p", "python", before + after, len(before))
    return gap_of(CompletionRequest("r", editor, "s", limits=Limits(9), suggestion=FOR_EDITORS))


def finished(path: str, before: str, text: str, num_unused: int = 0) -> Finished:
    final = Final(0, text, FinishReason.EOS, Usage(5, len(text), 0), Timings(0, 0, 0))
    return Finished(path, gap(before), CompletionStarted(5, 0, (), (), True), final, False, num_unused)


@given(actions)
def test_no_more_is_kept_than_allowed_and_what_is_found_fits(actions: list[tuple[str, str, str, str, str]]) -> None:
    unused: list[int] = []
    kept = FinishedCompletions(MAX_PER_SESSION, MAX_SESSIONS, unused.append, MAX_CHARACTERS)
    num_given = 0
    for action, session_id, path, before, text in actions:
        if action == "keep":
            kept.keep(session_id, finished(path, before, text, num_unused=1))
            num_given += 1
        elif action == "end":
            kept.end_session(session_id)
            assert kept.find(session_id, path, gap(before)) is None
        elif (found := kept.find(session_id, path, gap(before))) is not None:
            completion, typed = found
            assert completion.path == path
            assert completion.gap.before + typed == before
            rest = [event for event in completion.rest(typed) if isinstance(event, Delta | Final)]
            assert {typed + event.text for event in rest} == {completion.final.text}
            assert rest[-1].text.strip()
        assert len(kept) <= MAX_PER_SESSION * MAX_SESSIONS
        assert 0 <= kept.num_characters <= MAX_CHARACTERS
        assert len(kept) + len(unused) == num_given  # nobody used any, so each that is gone was told of
    for session_id in "xyz":
        kept.end_session(session_id)
    assert (len(kept), kept.num_characters, len(unused)) == (0, 0, num_given)


def test_the_longest_unused_session_goes_first() -> None:
    kept = FinishedCompletions(MAX_PER_SESSION, MAX_SESSIONS, lambda num_tokens: None)
    kept.keep("x", finished("p", "a", "text"))
    kept.keep("y", finished("p", "a", "text"))
    assert kept.find("x", "p", gap("at")) is not None
    kept.keep("z", finished("p", "a", "text"))
    assert kept.find("y", "p", gap("at")) is None
    assert kept.find("x", "p", gap("at")) is not None


def test_one_larger_than_everything_is_not_kept() -> None:
    kept = FinishedCompletions(MAX_PER_SESSION, MAX_SESSIONS, lambda num_tokens: None, MAX_CHARACTERS)
    kept.keep("x", finished("p", "a" * (MAX_CHARACTERS + 1), "text"))
    assert len(kept) == 0


def test_after_a_while_the_model_is_asked_again() -> None:
    now_s = [100.0]
    kept = FinishedCompletions(MAX_PER_SESSION, MAX_SESSIONS, lambda num_tokens: None, clock=lambda: now_s[0])
    kept.keep("x", finished("p", "a", "text"))
    now_s[0] += MAX_AGE_S
    assert kept.find("x", "p", gap("at")) is not None
    now_s[0] += 1
    assert kept.find("x", "p", gap("at")) is None
    kept.keep("x", finished("p", "a", "text"))
    assert len(kept) == 1
    assert kept.find("x", "p", gap("at")) is not None
