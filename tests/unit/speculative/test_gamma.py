"""Draft lengths: the exact best of every choice, and nothing where nothing pays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.speculative.draft_plan import Prospect, plan_drafts
from zenray.speculative.gamma import (
    accepted_share_speedup,
    choose_lengths,
    draft_gain,
    mean_accepted,
)

PROBABILITIES = st.floats(0.01, 0.99)
DRAFTS = st.lists(st.lists(PROBABILITIES, max_size=4), min_size=1, max_size=4)
"""Conditional probabilities of the tokens of each sequence's draft."""
STEP_INCREMENTS_MS = st.lists(st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]), min_size=21, max_size=21)


def survivals_of(probabilities: Sequence[float]) -> list[float]:
    return list(itertools.accumulate(probabilities, lambda survival, probability: survival * probability))


class StepOf:
    """A cost that starts at 10 ms and grows by arbitrary increments: flat stretches and cliffs."""

    def __init__(self, increments_ms: Sequence[float]) -> None:
        self._ms = list(itertools.accumulate(increments_ms, initial=10.0))

    def __call__(self, rows: int) -> float:
        return self._ms[rows]


def rate(survivals: Sequence[Sequence[float]], lengths: Sequence[int], step: StepOf, spent_ms: float = 0.0) -> float:
    tokens = sum(1 + sum(own[:length]) for own, length in zip(survivals, lengths, strict=True))
    return tokens / (spent_ms + step(len(survivals) + sum(lengths)))


@given(DRAFTS, STEP_INCREMENTS_MS, st.integers(0, 20), st.sampled_from([0.0, 7.0]))
def test_no_choice_of_lengths_is_faster(
    drafts: list[list[float]], increments_ms: list[float], room: int, spent_ms: float
) -> None:
    survivals, step = [survivals_of(draft) for draft in drafts], StepOf(increments_ms)
    chosen = choose_lengths(survivals, step, room, spent_ms)
    assert sum(chosen) <= room
    assert all(0 <= length <= len(own) for length, own in zip(chosen, survivals, strict=True))
    every_choice = itertools.product(*(range(len(own) + 1) for own in survivals))
    best = max(rate(survivals, lengths, step, spent_ms) for lengths in every_choice if sum(lengths) <= room)
    assert rate(survivals, chosen, step, spent_ms) == pytest.approx(best)


@given(DRAFTS, st.integers(0, 20))
def test_everything_is_verified_where_rows_cost_nothing(drafts: list[list[float]], room: int) -> None:
    survivals = [survivals_of(draft) for draft in drafts]
    chosen = choose_lengths(survivals, lambda rows: 10.0, room)
    assert sum(chosen) == min(room, sum(map(len, survivals)))


def test_worthless_tokens_are_not_verified() -> None:
    assert choose_lengths([[0.01, 0.001], []], lambda rows: 10.0 + rows, room=8) == [0, 0]
    assert choose_lengths([[0.0, 0.0]], lambda rows: 10.0, room=8) == [0]
    assert choose_lengths([], lambda rows: 10.0, room=8) == []


def test_equal_tokens_fill_the_room_in_order() -> None:
    assert choose_lengths([[1.0, 1.0], [1.0, 1.0], [0.5]], lambda rows: 10.0, room=3) == [2, 1, 0]


def test_a_long_copy_crosses_a_cliff_of_the_cost_that_stops_a_short_draft() -> None:
    def step_ms(rows: int) -> float:
        return 30.0 if rows <= 8 else 60.0

    assert choose_lengths([[0.98**length for length in range(1, 65)]], step_ms, room=64) == [64]
    assert choose_lengths([[0.9**length for length in range(1, 65)]], step_ms, room=64) == [7]


@given(st.lists(PROBABILITIES, max_size=6), STEP_INCREMENTS_MS)
def test_a_draft_gains_exactly_when_verifying_some_of_it_is_faster(
    draft: list[float], increments_ms: list[float]
) -> None:
    survivals, step = survivals_of(draft), StepOf(increments_ms)
    fastest = max(rate([survivals], [length], step) for length in range(len(draft) + 1))
    gain = draft_gain(survivals, step, 1)
    assert (gain > 1e-9) == (fastest > rate([survivals], [0], step) * (1 + 1e-10)) or gain < 1e-6


PROSPECTS = st.lists(
    st.builds(
        Prospect,
        acceptance=PROBABILITIES,
        max_tokens=st.integers(0, 5),
        start_ms=st.sampled_from([0.0, 3.0, 40.0]),
        lasting_tokens=st.sampled_from([1.0, 20.0, 400.0]),
        other_survivals=st.lists(PROBABILITIES, max_size=2).map(survivals_of),
    ),
    min_size=1,
    max_size=3,
)


@given(PROSPECTS, st.sampled_from([0.5, 3.0, 12.0]), STEP_INCREMENTS_MS, st.integers(0, 20), st.floats(0, 100))
def test_a_plan_keeps_its_limits_and_beats_the_round_without_it(
    prospects: list[Prospect], token_ms: float, increments_ms: list[float], room: int, affordable_ms: float
) -> None:
    step = StepOf(increments_ms)
    plan = plan_drafts(prospects, token_ms, step, room, affordable_ms)
    others = choose_lengths([prospect.other_survivals for prospect in prospects], step, room)
    without = rate([prospect.other_survivals for prospect in prospects], others, step)
    if plan is None:
        return
    assert plan.tokens_per_ms > without
    assert 0 < plan.min_survival <= 1
    rows = len(prospects)
    for asked, prospect, other in zip(plan.max_tokens, prospects, others, strict=True):
        assert asked <= prospect.max_tokens
        rows += asked or other
    start_ms = sum(prospect.start_ms for prospect, asked in zip(prospects, plan.max_tokens, strict=True) if asked > 0)
    assert rows - len(prospects) <= room
    assert start_ms + max(plan.max_tokens) * token_ms + step(rows) - step(len(prospects)) <= affordable_ms + 1e-9


def steep(rows: int) -> float:
    return 29.0 + rows


def prospect(acceptance: float, max_tokens: int = 32, start_ms: float = 0.0, lasting_tokens: float = 100.0) -> Prospect:
    return Prospect(acceptance, max_tokens, start_ms, lasting_tokens)


def test_a_surer_drafter_is_asked_for_more_and_a_slow_one_for_less() -> None:
    asked = [
        plan.max_tokens[0] if plan else 0
        for acceptance in (0.3, 0.5, 0.7, 0.9, 0.97)
        if (plan := plan_drafts([prospect(acceptance)], 9.0, steep, room=64)) or True
    ]
    assert asked == sorted(asked)
    assert asked[0] == 0 < asked[1] < asked[-1]
    slow = plan_drafts([prospect(0.9)], 20.0, steep, room=64)
    assert slow is not None
    assert slow.max_tokens[0] < asked[3]
    assert plan_drafts([prospect(0.9)], 31.0, steep, room=64) is None


def test_reading_a_prompt_is_paid_only_where_it_is_earned_back() -> None:
    assert plan_drafts([prospect(0.8, start_ms=600, lasting_tokens=400)], 9.0, steep, room=64) is not None
    assert plan_drafts([prospect(0.8, start_ms=600, lasting_tokens=20)], 9.0, steep, room=64) is None


def test_a_shared_drafter_leaves_out_those_it_cannot_help() -> None:
    plan = plan_drafts([prospect(0.9), prospect(0.02), prospect(0.8)], 9.0, lambda rows: 30.0 + 3 * rows, room=64)
    assert plan is not None
    assert plan.max_tokens[1] == 0 < min(plan.max_tokens[0], plan.max_tokens[2])


def test_a_good_free_draft_makes_the_costly_drafter_superfluous() -> None:
    copied = [0.98**length for length in range(1, 33)]
    assert plan_drafts([Prospect(0.8, 32, 0.0, 100.0, copied)], 9.0, steep, room=64) is None


def test_the_models_of_the_literature() -> None:
    assert accepted_share_speedup(8, 1.0) == 9
    assert accepted_share_speedup(8, 0.0) == 1
    assert accepted_share_speedup(8, 0.75) == pytest.approx(3)
    assert mean_accepted(3, 1.0) == 3
