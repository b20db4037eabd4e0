"""What speculation may lose. The estimates decide what is worth drafting; this bounds what they can cost when wrong.

The unit is the plain step: the time the batch would take for one token each without drafts. It makes the bound
relative by itself: 200 plain steps are 200 tokens of every sequence, on any machine, at any batch size.
"""

from __future__ import annotations

START_STEPS = 5.0
EARN_PER_STEP = 0.015
"""A drafter that is always wrong costs at most 5 + 0.015 * 200 = 8 of 200 plain steps: 4 %."""

MOST_STEPS = 40.0
"""What was saved may be lost again, up to this: it lets a good drafter live through bad luck and pays for long
prompts that a draft model has to read, and it bounds what follows when a good drafter turns bad."""

PROBE_SHARE = 0.01
"""Part of the time spent on asking a drafter that is not expected to pay."""


class Allowance:
    """One account for all drafters, so that several bad ones cost no more than one.

    Nothing may be risked that the balance does not cover. A drafter that pays keeps it full.
    """

    def __init__(self) -> None:
        self.balance_steps = START_STEPS

    def settle(self, saved_steps: float) -> None:
        """A step is over. `saved_steps`: plain steps its accepted tokens were worth less what drafting and
        verifying them took; negative for a loss."""
        self.balance_steps = min(MOST_STEPS, self.balance_steps + EARN_PER_STEP + saved_steps)


class ProbeSchedule:
    """When to ask a drafter again that is not expected to pay: it may have become good.

    A probe that costs c plain steps waits until c is at most `PROBE_SHARE` of the time since the last draft. A probe
    that was accepted in full is followed by another at once, so a drafter that is good again is found in a few
    steps.
    """

    def __init__(self) -> None:
        self._step = 0
        self._last_step: dict[str, int] = {}
        self._is_hopeful: dict[str, bool] = {}

    def is_due(self, drafter: str, cost_steps: float) -> bool:
        waited = self._step - self._last_step.get(drafter, 0)
        return self._is_hopeful.get(drafter, False) or cost_steps <= PROBE_SHARE * waited

    def tried(self, drafter: str, is_accepted: bool) -> None:
        """The drafter's draft was checked in this step; `is_accepted`: every token of it."""
        self._last_step[drafter] = self._step
        self._is_hopeful[drafter] = is_accepted

    def end_step(self) -> None:
        self._step += 1
