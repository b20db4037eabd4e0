"""A stream that broke and was run again: nothing lost, nothing twice, nothing spliced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.engine.request import (
    Delta,
    Final,
    FinishReason,
    GenerateEvent,
    Started,
    Timings,
    TokenLogprob,
    Usage,
)
from zenray.errors import Unavailable
from zenray.serving.replay import Replay

WORDS = ["a", "", "bc", "é", "\n", "def", "", "xyz"]


def run_of(tokens: dict[int, list[int]], sizes: list[int], with_logprobs: bool = True) -> list[GenerateEvent]:
    """A whole run; `sizes` says how many tokens each delta takes, so that two runs may be cut differently."""
    events: list[GenerateEvent] = [Started(5, 0)]
    left = {index: list(ids) for index, ids in tokens.items()}
    turn = 0
    while any(left.values()):
        for index, ids in left.items():
            count = sizes[turn % len(sizes)]
            turn += 1
            taken, left[index] = ids[:count], ids[count:]
            if taken:
                text = "".join(WORDS[token % len(WORDS)] for token in taken)
                logprobs = tuple(TokenLogprob(token, -float(token)) for token in taken) if with_logprobs else ()
                events.append(Delta(index, text, tuple(taken), logprobs))
    for index, ids in tokens.items():
        text = "".join(WORDS[token % len(WORDS)] for token in ids)
        events.append(Final(index, text, FinishReason.LENGTH, Usage(5, len(ids), 0), Timings(1, 2, 3)))
    return events


def received(events: list[GenerateEvent], index: int) -> tuple[str, list[int], list[TokenLogprob]]:
    deltas = [event for event in events if isinstance(event, Delta) and event.index == index]
    return (
        "".join(delta.text for delta in deltas),
        [token for delta in deltas for token in delta.token_ids],
        [logprob for delta in deltas for logprob in delta.logprobs],
    )


def passed_on(replay: Replay, events: list[GenerateEvent]) -> list[GenerateEvent]:
    return [fresh for event in events if (fresh := replay.pass_on(event, 1.0)) is not None]


TOKENS = st.dictionaries(st.integers(0, 3), st.lists(st.integers(0, 200), max_size=12), min_size=1, max_size=3)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(TOKENS, st.lists(st.tuples(SIZES, st.integers(0, 30)), max_size=3), SIZES)
def test_the_client_gets_one_run_whatever_breaks(
    tokens: dict[int, list[int]], broken: list[tuple[list[int], int]], last: list[int]
) -> None:
    replay = Replay()
    client: list[GenerateEvent] = []
    for sizes, broken_after in broken:
        client += passed_on(replay, run_of(tokens, sizes)[:broken_after])
        replay.rerun(10.0)
    client += passed_on(replay, run_of(tokens, last))

    assert [type(event) for event in client].count(Started) == 1
    whole = run_of(tokens, [1])
    for index in tokens:
        assert received(client, index) == received(whole, index)
        finals = [event for event in client if isinstance(event, Final) and event.index == index]
        assert len(finals) == 1
        assert finals[0].text == received(client, index)[0]


def test_a_rerun_that_says_something_else_is_refused() -> None:
    replay = Replay()
    for event in run_of({0: [5, 2, 7]}, [1])[:3]:
        replay.pass_on(event, 0.0)
    replay.rerun(1.0)
    replay.pass_on(Started(5, 0), 1.0)
    replay.pass_on(Delta(0, "def", (5,)), 1.0)
    with pytest.raises(Unavailable, match="continues differently"):
        replay.pass_on(Delta(0, "xyz", (7,)), 1.0)


def test_times_are_those_of_the_request_not_of_its_last_run() -> None:
    replay = Replay()
    replay.pass_on(Started(5, 0), 1.0)
    replay.pass_on(Delta(0, "a", (0,)), 4.0)
    replay.rerun(100.0)
    replay.pass_on(Started(5, 5), 101.0)
    final = replay.pass_on(Final(0, "a", FinishReason.EOS, Usage(5, 1, 5), Timings(1.0, 2.0, 3.0)), 104.0)
    assert isinstance(final, Final)
    assert final.timings == Timings(101.0, 4.0, 103.0)


def test_a_stream_cut_at_its_deadline_ends_with_what_the_client_has() -> None:
    replay = Replay()
    replay.pass_on(Started(5, 2), 1.0)
    assert not replay.produced
    replay.pass_on(Delta(1, "ab", (0, 9)), 4.0)
    assert replay.produced
    finals = replay.cut(2, FinishReason.DEADLINE, 50.0)
    assert [(final.index, final.text, final.usage) for final in finals] == [
        (0, "", Usage(5, 0, 2)),
        (1, "ab", Usage(5, 2, 2)),
    ]
    assert {final.finish_reason for final in finals} == {FinishReason.DEADLINE}


def test_a_second_run_that_meets_the_deadline_before_it_has_caught_up_ends_with_what_the_client_has() -> None:
    replay = Replay()
    first = run_of({0: [0, 2, 5]}, [1])
    passed_on(replay, first[:-1])
    replay.rerun(10.0)
    second = [Started(5, 5), *run_of({0: [0, 2]}, [1])[1:-1]]
    late = Final(0, "abc", FinishReason.DEADLINE, Usage(5, 2, 5), Timings(1, 2, 3))
    (final,) = passed_on(replay, [*second, late])
    assert isinstance(final, Final)
    assert (final.text, final.finish_reason) == ("abcdef", FinishReason.DEADLINE)
    assert final.usage.completion_tokens == 3
