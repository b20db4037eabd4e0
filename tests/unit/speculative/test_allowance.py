"""The account of what speculation may lose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zenray.speculative.allowance import (
    DRAFT_START_STEPS,
    MOST_STEPS,
    PROBE_SHARE,
    VERIFY_START_STEPS,
    Allowance,
    ProbeBudget,
)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=200, max_size=200))
def test_what_is_covered_never_sums_to_five_per_cent(wanted_steps: list[tuple[float, float]]) -> None:
    """A drafter that always loses what it risks, in drafting and in verifying, and risks all it may."""
    accounts = Allowance(DRAFT_START_STEPS), Allowance(VERIFY_START_STEPS)
    lost_steps = 0.0
    for wanted in wanted_steps:
        for account, risked in zip(accounts, wanted, strict=True):
            loss = min(risked, account.balance_steps)
            lost_steps += loss
            account.settle(-loss)
            assert account.balance_steps >= 0
    assert lost_steps <= 0.05 * len(wanted_steps)


def test_savings_are_kept_up_to_a_limit() -> None:
    allowance = Allowance(4.0)
    for _ in range(1000):
        allowance.settle(3.0)
    assert allowance.balance_steps == MOST_STEPS


@given(st.floats(0.05, 20.0))
def test_probes_take_their_share_of_the_time_and_no_more(cost_steps: float) -> None:
    probes, spent_steps, num_steps = ProbeBudget(), 0.0, 3000
    for _ in range(num_steps):
        if probes.affords("draft_model", cost_steps):
            probes.spend(cost_steps)
            probes.judge("draft_model", is_accepted=False)
            spent_steps += cost_steps
        probes.end_step()
    assert PROBE_SHARE * (num_steps - 2) - cost_steps <= spent_steps
    assert spent_steps <= PROBE_SHARE * num_steps + 1e-6


def test_an_accepted_probe_is_followed_by_others_at_once_but_not_for_ever() -> None:
    probes, probed_at = ProbeBudget(), []
    for step in range(200):
        if probes.affords("draft_model", 0.3):
            probes.spend(0.3)
            probes.judge("draft_model", is_accepted=True)
            probed_at.append(step)
        probes.end_step()
    first = probed_at[0]
    assert 25 <= first <= 35
    assert probed_at == list(range(first, first + 8))


def test_a_pause_of_the_machine_is_forgiven() -> None:
    """A stall that no drafter caused would otherwise take a hundred steps to earn back."""
    allowance = Allowance(4.0)
    allowance.settle(-1000.0)
    for _ in range(20):
        allowance.settle(1.0)
    assert allowance.balance_steps > 0
