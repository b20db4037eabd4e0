"""What speculation may lose. The estimates decide what is worth drafting; this bounds what they can cost when wrong.

The unit is the plain step: the time the batch would take for one token each without drafts. It makes the bound
relative by itself: 200 plain steps are 200 tokens of every sequence, on any machine, at any batch size.
"""

from __future__ import annotations

DRAFT_START_STEPS, VERIFY_START_STEPS = 4.0, 2.0
EARN_PER_STEP = 0.0075
"""Of each of two accounts: drafting and verifying that is always wrong costs at most 4 + 2 + 2 * 0.0075 * 200 = 9 of
200 plain steps: 4.5 %."""

MOST_STEPS = 40.0
"""What was saved may be lost again, up to this: it lets a good drafter live through bad luck and pays for long
prompts that a draft model has to read, and it bounds what follows when a good drafter turns bad."""

PROBE_SHARE = 0.01
"""Part of the time spent on asking drafters that are not expected to pay."""
MOST_HOPEFUL_PROBES = 8
"""Probes in a row, one after another, while all are accepted: enough to move the estimates."""


class Allowance:
    """One account, for making drafts or for verifying them; all drafters share it, so several bad ones cost no more
    than one.

    Nothing may be risked that the balance does not cover. A drafter that pays keeps it full. The two accounts are
    apart because drafts that cost nothing to make must not wait until a draft model has earned back a long prompt;
    what they save counts in both. What a pause of the machine took beyond all expectation is forgiven: it says
    nothing of a drafter, and would silence a good one.
    """

    def __init__(self, start_steps: float) -> None:
        self._start_steps = start_steps
        self.balance_steps = start_steps

    def settle(self, saved_steps: float) -> None:
        """A step is over. `saved_steps`: plain steps its accepted tokens were worth less what this account's part
        of it took; negative for a loss."""
        balance_steps = min(MOST_STEPS, self.balance_steps + EARN_PER_STEP + saved_steps)
        self.balance_steps = max(-self._start_steps, balance_steps)


class ProbeBudget:
    """When to ask a drafter again that is not expected to pay: it may have become good.

    Probes together get `PROBE_SHARE` of the time. One that was accepted in full may be followed by others at once,
    on credit, so a drafter that is good again is found in a few steps.
    """

    def __init__(self) -> None:
        self._balance_steps = 0.0
        self._num_hopeful: dict[str, int] = {}

    def affords(self, drafter: str, cost_steps: float) -> bool:
        return self._balance_steps >= cost_steps or 0 < self._num_hopeful.get(drafter, 0) < MOST_HOPEFUL_PROBES

    def spend(self, cost_steps: float) -> None:
        self._balance_steps -= cost_steps

    def judge(self, drafter: str, is_accepted: bool) -> None:
        """A probe was checked; `is_accepted`: every token of it."""
        self._num_hopeful[drafter] = self._num_hopeful.get(drafter, 0) + 1 if is_accepted else 0

    def end_step(self) -> None:
        """Unspent time is kept, for probes that start with reading a long prompt."""
        self._balance_steps = min(MOST_STEPS, self._balance_steps + PROBE_SHARE)
