"""How many sequences a job keeps at the verifiers: enough that no place is idle, few enough that nobody queues.

An engine runs `max_running` sequences and queues some more of each priority; what waits only waits, and is lost with
its replica. So a job never fills its queue: it aims at a few waiting sequences per replica, which is what keeps
every place busy between two looks at the load.

Rule, of every client by itself: while no more wait than wanted, add our share of what is missing, at least one; while
more wait, keep our share of what is wanted. Small clients grow relatively faster than big ones and all shrink alike,
which is how several jobs come to similar shares (AIMD; Chiu and Jain, 1989). Editors' requests count as what is there:
the more of them, the less is left for jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FIRST_LIMIT = 2
_SMALLEST_WAITING = 2
_RUNNING_PER_WAITING = 8
_LARGEST_SHARE_OF_QUEUE = 4
"""One in so many of the queue's places may be wanted by jobs."""


@dataclass(frozen=True, slots=True)
class ReplicaLoad:
    """What one verifier said of itself a moment ago, in sequences of both priorities."""

    running: int
    waiting: int
    max_waiting: int


def wanted_waiting(load: ReplicaLoad) -> int:
    """How many sequences should wait at a replica: more where many run, since many end between two looks."""
    wanted = _SMALLEST_WAITING + load.running // _RUNNING_PER_WAITING
    return max(1, min(wanted, load.max_waiting // _LARGEST_SHARE_OF_QUEUE))


def next_limit(limit: int, in_flight: int, loads: Sequence[ReplicaLoad]) -> int:
    """How many sequences a client that has `in_flight` of them at the verifiers may have; at least one.

    Follows what is really used, so that a client without work does not save up. `limit` stays where nothing is known.
    """
    if not loads:
        return limit
    present = max(sum(load.running + load.waiting for load in loads), in_flight)
    wanted = sum(load.running + wanted_waiting(load) for load in loads)
    if present <= wanted:
        return in_flight + max(1, (wanted - present) * in_flight // max(1, present))
    return max(1, (2 * in_flight * wanted + present) // (2 * present))  # Rounded: a small share is not worn away.


def after_refusal(limit: int) -> int:
    """The limit once an engine's queue was found full."""
    return max(1, limit // 2)
