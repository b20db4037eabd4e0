"""Which verifier replica takes a request: a pure policy over what is known of the replicas.

Rule: a session keeps its replica, because that replica's prefix cache holds the session's prompt; it moves
only when its replica is `slack` requests busier than the least busy one. A key always prefers the same
replica (highest random weight, Thaler and Ravishankar 1998), so aggregators agree without talking, and a
replica that leaves moves only its own keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

PREFIX_TOKENS = 256
"""Leading tokens that make a key for requests without a session: about one file header and what follows it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that could take the request, and how many requests it has."""

    replica_id: str
    load: int


def choose_replica(candidates: Sequence[Candidate], key: str, slack: int) -> str:
    """The replica for `key`; `candidates` is not empty."""
    least = min(candidate.load for candidate in candidates)
    preferred = max(candidates, key=lambda candidate: _weight(key, candidate.replica_id))
    if preferred.load <= least + slack:
        return preferred.replica_id
    idle = [candidate for candidate in candidates if candidate.load == least]
    return max(idle, key=lambda candidate: _weight(key, candidate.replica_id)).replica_id


def affinity_key(session_id: str, prompt_token_ids: Sequence[int]) -> str:
    """What ties requests together that share a prefix: the session, else how the prompt begins."""
    if session_id:
        return session_id
    head = b"".join(token_id.to_bytes(4, "little") for token_id in prompt_token_ids[:PREFIX_TOKENS])
    return blake2b(head, digest_size=16).hexdigest()


def _weight(key: str, replica_id: str) -> bytes:
    return blake2b(f"{key}\0{replica_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
