"""Speculation never changes a token: whoever drafts, however well, late, long or wrong.

The drafts of these tests come from somebody who knows the right answer and lies as told, so that every
accepted length, every wrong token and every stale draft occurs. Exact in float64.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.engine import Engine
from zenray.engine.request import Delta, FinishReason, GenerateRequest, Limits, Sampling, TextStops
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft
from zenray.engine.stopping import TextEnd

MakeEngine = Callable[..., Engine]


@given(
    gamma=st.sampled_from([1, 2, 4, 8, 32]),
    lie_rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    num_blocks=st.integers(22, 100),
    block_size=st.sampled_from([4, 5, 16]),
    max_step_tokens=st.integers(1, 90),
    mixed_step_tokens=st.integers(1, 40),
    batch_step_tokens=st.integers(8, 40),
    batch_tokens_beside_interactive=st.integers(0, 20),
    max_running_sequences=st.integers(1, 8),
    prefix_cache=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_draft_changes_a_token(
    make_engine: MakeEngine, oracle: Any, liar_class: Any, gamma: int, lie_rate: float, seed: int, **fields: int
) -> None:
    chance = random.Random(seed)
    liar = liar_class(oracle, gamma, lie_rate, chance)
    engine = make_engine(**fields, max_waiting_sequences=100, speculator=liar)
    oracle.check(engine, chance)
    engine.shutdown()


def test_a_drafter_that_knows_the_truth_saves_rounds(make_engine: MakeEngine, oracle: Any, liar_class: Any) -> None:
    """The case above is no proof if drafts were never verified: with the truth, all of a draft is accepted.

    Batch sequences get no drafts beside interactive ones, and many of the cases stand beside some."""
    liar = liar_class(oracle, 8, 0.0, random.Random(1))
    engine = make_engine(num_blocks=400, max_waiting_sequences=100, max_step_tokens=400, speculator=liar)
    oracle.check(engine, random.Random(0), num_repeats=3)
    load = engine.load()
    assert load.rounds < load.generated_tokens * 2 / 3
    assert 8 in liar.accepted_lengths


def test_a_round_ends_where_a_stop_rule_does(make_engine: MakeEngine, oracle: Any, liar_class: Any) -> None:
    """The truth goes on behind the stop token; nothing of it may be committed, shown or counted."""
    prompt, sampling = tuple(b"x"), Sampling()
    truth = oracle.truth(prompt, sampling)
    liar = liar_class(oracle, 32, 0.0, random.Random(5))
    engine = make_engine(speculator=liar)
    stop = next(token for token in truth if truth.index(token) >= 3)
    engine.add(GenerateRequest("r", prompt, sampling, Limits(max_tokens=16, stop_token_ids=(stop,), ignore_eos=True)))
    events = []
    while engine.has_work:
        events += [event for _, event in engine.step()]
        engine.check_integrity()
    final = events[-1]
    assert final.finish_reason.value == "STOP"
    assert final.usage.completion_tokens == truth.index(stop) + 1


class EndsBefore:
    """A text rule that ends a text before a given character, once that has come."""

    def __init__(self, at: int) -> None:
        self._at = at

    def find_end(self, text: str, searched: int) -> TextEnd | None:
        return TextEnd(self._at, FinishReason.SCOPE_END) if len(text) > self._at else None

    def held_back(self, text: str) -> int:
        return 0


@pytest.mark.parametrize("gamma", [0, 1, 4, 32])
@pytest.mark.parametrize("at", [0, 1, 7, 12])
def test_a_text_rule_ends_the_same_text_whoever_drafts(
    make_engine: MakeEngine, oracle: Any, liar_class: Any, gamma: int, at: int
) -> None:
    prompt, sampling = tuple(b"y = th"), Sampling()
    truth = make_engine().model.tokenizer.decode(oracle.truth(prompt, sampling))[len("is_") :]
    engine = make_engine(
        speculator=liar_class(oracle, gamma, 0.2, random.Random(5)) if gamma else None,
        make_text_rule=lambda stops: EndsBefore(len(stops.before)),
    )
    engine.add(
        GenerateRequest(
            "r",
            prompt,
            sampling,
            Limits(max_tokens=16, ignore_eos=True),
            text_stops=TextStops(before="." * at),
            forced_prefix=b"is_",
        )
    )
    events = []
    while engine.has_work:
        events += [event for _, event in engine.step()]
        engine.check_integrity()
    final = events[-1]
    if len(truth) <= at:
        assert final.finish_reason is FinishReason.LENGTH
        assert final.usage.saved_tokens == 0
    else:
        assert final.finish_reason is FinishReason.SCOPE_END
        assert final.text == truth[:at] == "".join(event.text for event in events if isinstance(event, Delta))
        assert final.usage.saved_tokens == 16 - final.usage.completion_tokens


@pytest.mark.parametrize("gamma", [1, 8])
def test_logprobs_are_those_of_plain_decoding(
    make_engine: MakeEngine, oracle: Any, liar_class: Any, gamma: int
) -> None:
    prompt = tuple(b"import os\n" * 7)

    def logprobs(**fields: Any) -> list[Any]:
        engine = make_engine(**fields)
        limits = Limits(max_tokens=16, ignore_eos=True)
        engine.add(GenerateRequest("r", prompt, Sampling(logprobs=3), limits))
        found: list[Any] = []
        while engine.has_work:
            found += [entry for _, event in engine.step() for entry in getattr(event, "logprobs", ())]
        return found

    sampling = Sampling()

    class Truthful(liar_class):
        def _draft(self, sequence: Sequence, longest: int) -> Draft | None:
            truth = self._oracle.truth(prompt, sampling)[sequence.num_output :][:longest]
            return Draft("truth", tuple(truth), (0,) * len(truth)) if truth else None

    plain = logprobs()
    fast = logprobs(speculator=Truthful(oracle, gamma, 0.0, random.Random(0)))
    assert [entry.token_id for entry in fast] == [entry.token_id for entry in plain]
    for one, other in zip(fast, plain, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-12)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
