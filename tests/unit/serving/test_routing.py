"""Who takes a request: sessions stay where their prefix is, unless that is much busier."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zenray.serving.routing import Candidate, affinity_key, choose_replica

REPLICAS = st.lists(
    st.builds(Candidate, replica_id=st.sampled_from("abcdefgh"), load=st.integers(0, 50)),
    min_size=1,
    unique_by=lambda candidate: candidate.replica_id,
)


@given(REPLICAS, st.text(), st.integers(0, 8))
def test_never_chooses_a_replica_more_than_slack_busier_than_the_least(
    candidates: list[Candidate], key: str, slack: int
) -> None:
    chosen = choose_replica(candidates, key, slack)
    loads = {candidate.replica_id: candidate.load for candidate in candidates}
    assert loads[chosen] <= min(loads.values()) + slack


@given(REPLICAS, st.text(), st.randoms(use_true_random=False))
def test_does_not_depend_on_the_order_of_candidates(candidates: list[Candidate], key: str, random) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert choose_replica(candidates, key, 4) == choose_replica(shuffled, key, 4)


def test_a_session_stays_and_only_the_sessions_of_a_lost_replica_move() -> None:
    before = [Candidate(name, 0) for name in "abc"]
    sessions = [f"session-{i}" for i in range(300)]
    homes = {session: choose_replica(before, session, 0) for session in sessions}
    assert {home: list(homes.values()).count(home) > 60 for home in "abc"} == {"a": True, "b": True, "c": True}
    after = {session: choose_replica(before[:2], session, 0) for session in sessions}
    assert all(after[session] == home for session, home in homes.items() if home != "c")


def test_the_key_is_the_session_else_the_head_of_the_prompt() -> None:
    assert affinity_key("editor-1", (1, 2)) == "editor-1"
    prompt = tuple(range(1000))
    assert affinity_key("", prompt) == affinity_key("", (*prompt, 7))
    assert affinity_key("", prompt) != affinity_key("", (9, *prompt))
