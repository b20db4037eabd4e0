"""Sums over the choices of a request and over the replicas of a service; drafters are merged by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from zenray.engine.request import DrafterLoad, DrafterUsage, EngineLoad, Usage

_SUMMED = tuple(field.name for field in fields(EngineLoad) if field.name != "drafters")


def total_usage(choices: Iterable[Usage]) -> Usage:
    """Over the choices of one prompt, which all of them share: it is counted once."""
    total = Usage(0, 0, 0)
    for usage in choices:
        total = Usage(
            prompt_tokens=max(total.prompt_tokens, usage.prompt_tokens),
            completion_tokens=total.completion_tokens + usage.completion_tokens,
            cached_tokens=max(total.cached_tokens, usage.cached_tokens),
            rounds=total.rounds + usage.rounds,
            drafters=total_drafter_usage((*total.drafters, *usage.drafters)),
        )
    return total


def total_drafter_usage(entries: Iterable[DrafterUsage]) -> tuple[DrafterUsage, ...]:
    """One entry per drafter, in the order of first appearance."""
    totals: dict[str, DrafterUsage] = {}
    for entry in entries:
        known = totals.get(entry.drafter, DrafterUsage(entry.drafter, 0, 0, 0))
        totals[entry.drafter] = DrafterUsage(
            entry.drafter,
            known.rounds + entry.rounds,
            known.drafted_tokens + entry.drafted_tokens,
            known.accepted_tokens + entry.accepted_tokens,
        )
    return tuple(totals.values())


def total_load(replicas: Iterable[EngineLoad]) -> EngineLoad:
    """Over the replicas of a service."""
    loads = tuple(replicas)
    drafters = total_drafter_load(drafter for load in loads for drafter in load.drafters)
    return EngineLoad(**{name: sum(getattr(load, name) for load in loads) for name in _SUMMED}, drafters=drafters)


def total_drafter_load(entries: Iterable[DrafterLoad]) -> tuple[DrafterLoad, ...]:
    """One entry per drafter, in the order of first appearance; the queue age is that of the slowest."""
    totals: dict[str, DrafterLoad] = {}
    for entry in entries:
        known = totals.get(entry.drafter, DrafterLoad(entry.drafter))
        totals[entry.drafter] = DrafterLoad(
            entry.drafter,
            rounds=known.rounds + entry.rounds,
            drafted_tokens=known.drafted_tokens + entry.drafted_tokens,
            accepted_tokens=known.accepted_tokens + entry.accepted_tokens,
            timeouts=known.timeouts + entry.timeouts,
            draft_ms=known.draft_ms + entry.draft_ms,
            queue_age_ms=max(known.queue_age_ms, entry.queue_age_ms),
            replicas=known.replicas + entry.replicas,
        )
    return tuple(totals.values())
