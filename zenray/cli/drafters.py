"""How drafters are shown: a table of what each did for a request, a line of what each does for a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zenray.cli.console import table

if TYPE_CHECKING:
    from rich.table import Table

    from zenray.engine.request import DrafterUsage

_NUMBERS = ("rounds", "drafted", "accepted", "acceptance", "tokens/round", "wasted")


def acceptance(accepted_tokens: int, drafted_tokens: int) -> float | None:
    """Share of the drafted tokens; None when nothing was drafted."""
    return accepted_tokens / drafted_tokens if drafted_tokens else None


def drafter_table(rounds: int, drafters: Iterable[DrafterUsage]) -> Table:
    """One row per drafter, and one for the rounds that had no draft. A round yields what was accepted and one
    token of the verifier's own."""
    drafters = tuple(drafters)
    made = table("drafter", *_NUMBERS, right=_NUMBERS)
    for drafter in drafters:
        drafted, accepted = drafter.drafted_tokens, drafter.accepted_tokens
        made.add_row(
            drafter.drafter,
            f"{drafter.rounds:,}",
            f"{drafted:,}",
            f"{accepted:,}",
            _percent(acceptance(accepted, drafted)),
            f"{accepted / drafter.rounds + 1:.2f}" if drafter.rounds else "-",
            f"{drafted - accepted:,}",
        )
    without = rounds - sum(drafter.rounds for drafter in drafters)
    if without > 0:
        made.add_row("no draft", f"{without:,}", "", "", "", "1.00", "", style="quiet")
    return made


def drafter_line(load: Mapping[str, Any]) -> str:
    """What a `DrafterLoad` says in words."""
    if not load["rounds"]:
        said = "no draft verified yet"
    else:
        share = _percent(acceptance(load["accepted_tokens"], load["drafted_tokens"]))
        per_round = load["accepted_tokens"] / load["rounds"] + 1
        said = f"{share} of {load['drafted_tokens']:,} tokens accepted, {per_round:.2f} tokens/round"
        said += f", {load['draft_ms'] / 1000:.1f} s drafting"
    if load["replicas"] or load["timeouts"]:
        said += f"; {load['replicas']} replicas, answers {load['queue_age_ms']:.0f} ms old, {load['timeouts']:,} late"
    return said


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
