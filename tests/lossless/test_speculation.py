"""Speculation never changes a token: whoever drafts, however well, late, long or wrong.

The drafts of these tests come from somebody who knows the right answer and lies as told, so that every
accepted length, every wrong token and every stale draft occurs. Exact in float64.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.engine.engine import Engine
from zenray.engine.request import DrafterLoad, GenerateRequest, Limits, Sampling
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round

MakeEngine = Callable[..., Engine]


class Liar:
    """Proposes the truth with `lie_rate` wrong tokens, at most `gamma` of them, now and then nothing or an
    answer to an older state of the sequence. Checks that it hears of everything exactly once."""

    def __init__(self, oracle: Any, gamma: int, lie_rate: float, chance: random.Random) -> None:
        self._oracle, self._gamma, self._lie_rate, self._chance = oracle, gamma, lie_rate, chance
        self._open: set[Sequence] = set()
        self._stale: dict[Sequence, Draft] = {}
        self.accepted_lengths: set[int] = set()

    def opened(self, sequence: Sequence) -> None:
        assert sequence not in self._open
        self._open.add(sequence)

    def propose(self, sequences: Ordered[Sequence], room: int) -> None:
        for sequence in sequences:
            assert sequence in self._open and sequence.is_decoding
            sequence.draft = self._draft(sequence, min(room, sequence.max_draft, self._gamma))
            room -= 0 if sequence.draft is None else len(sequence.draft.token_ids)

    def _draft(self, sequence: Sequence, longest: int) -> Draft | None:
        if longest == 0 or self._chance.random() < 0.1:
            return None
        stale = self._stale.get(sequence)
        truth = self._oracle.truth(sequence.request.prompt_token_ids, sequence.request.sampling)
        coming = truth[sequence.num_output : sequence.num_output + self._chance.randint(1, longest)]
        token_ids = tuple(
            token if self._chance.random() >= self._lie_rate else self._chance.randrange(256) for token in coming
        )
        draft = Draft("liar", token_ids, (0,) * len(token_ids))
        self._stale[sequence] = draft
        if stale is not None and len(stale.token_ids) <= longest and self._chance.random() < 0.1:
            return stale
        return draft or None

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor, step_ms: float, is_pure_decode: bool) -> None:
        for done in rounds:
            assert done.sequence in self._open
            if done.draft is not None:
                assert 0 <= done.num_accepted <= len(done.draft.token_ids)
                self.accepted_lengths.add(done.num_accepted)
            last_rows = logits_RV[done.first_row : done.first_row + done.num_committed]
            assert len(last_rows) == done.num_committed

    def closed(self, sequence: Sequence) -> None:
        self._open.remove(sequence)

    def load(self) -> tuple[DrafterLoad, ...]:
        return ()

    def shutdown(self) -> None:
        assert not self._open


@given(
    gamma=st.sampled_from([1, 2, 4, 8, 32]),
    lie_rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    num_blocks=st.integers(22, 100),
    block_size=st.sampled_from([4, 5, 16]),
    max_step_tokens=st.integers(1, 90),
    mixed_step_tokens=st.integers(1, 40),
    max_running_sequences=st.integers(1, 8),
    prefix_cache=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_draft_changes_a_token(
    make_engine: MakeEngine, oracle: Any, gamma: int, lie_rate: float, seed: int, **fields: int
) -> None:
    chance = random.Random(seed)
    liar = Liar(oracle, gamma, lie_rate, chance)
    engine = make_engine(**fields, max_waiting_sequences=100, speculator=liar)
    oracle.check(engine, chance)
    engine.shutdown()


def test_a_drafter_that_knows_the_truth_saves_rounds(make_engine: MakeEngine, oracle: Any) -> None:
    """The case above is no proof if drafts were never verified: with the truth, all of a draft is accepted."""
    liar = Liar(oracle, 8, 0.0, random.Random(1))
    engine = make_engine(num_blocks=400, max_waiting_sequences=100, max_step_tokens=400, speculator=liar)
    oracle.check(engine, random.Random(0))
    load = engine.load()
    assert load.rounds < load.generated_tokens / 2
    assert 8 in liar.accepted_lengths


def test_a_round_ends_where_a_stop_rule_does(make_engine: MakeEngine, oracle: Any) -> None:
    """The truth goes on behind the stop token; nothing of it may be committed, shown or counted."""
    prompt, sampling = tuple(b"x"), Sampling()
    truth = oracle.truth(prompt, sampling)
    liar = Liar(oracle, 32, 0.0, random.Random(5))
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


@pytest.mark.parametrize("gamma", [1, 8])
def test_logprobs_are_those_of_plain_decoding(make_engine: MakeEngine, oracle: Any, gamma: int) -> None:
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

    class Truthful(Liar):
        def _draft(self, sequence: Sequence, longest: int) -> Draft | None:
            truth = self._oracle.truth(prompt, sampling)[sequence.num_output :][:longest]
            return Draft("truth", tuple(truth), (0,) * len(truth)) if truth else None

    plain = logprobs()
    fast = logprobs(speculator=Truthful(oracle, gamma, 0.0, random.Random(0)))
    assert [entry.token_id for entry in fast] == [entry.token_id for entry in plain]
    for one, other in zip(fast, plain, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-12)
        assert [token for token, _ in one.top] == [token for token, _ in other.top]
