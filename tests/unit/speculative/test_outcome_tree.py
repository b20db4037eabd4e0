"""Answers about a sequence that moves on: what fits is found, what does not is gone, memory is bounded."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from zenray.speculative.outcome_tree import MEMORY_TOKENS, NOTHING, OutcomeTree

PROMPT = [7, 7, 7]
MAX_NODES = 40

tokens = st.integers(0, 2)
paths = st.lists(st.tuples(tokens, st.integers(0, 15)), max_size=8)
events = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 12), paths),
        st.tuples(st.just("commit"), st.lists(tokens, min_size=1, max_size=4)),
    ),
    max_size=25,
)


@dataclass
class Record:
    """The plain truth: everything committed, and every path ever said, whole."""

    committed: list[int] = field(default_factory=lambda: list(PROMPT))
    said: list[list[int]] = field(default_factory=list)

    def say(self, base_length: int, path: list[int]) -> None:
        self.said.append([*self.committed[:base_length], *path])

    def continues(self, continuation: list[int]) -> bool:
        whole = [*self.committed, *continuation]
        return any(path[: len(whole)] == whole for path in self.said)


def play(record: Record, tree: OutcomeTree, story: list[tuple]) -> None:  # type: ignore[type-arg]
    for what, *details in story:
        if what == "commit":
            record.committed += details[0]
            tree.commit(details[0])
        else:
            base_length = max(len(PROMPT), len(record.committed) - details[0])
            path = [token for token, _ in details[1]]
            record.say(base_length, path)
            tree.insert(base_length, path, [confidence for _, confidence in details[1]], 0.0)


@given(events)
def test_it_never_offers_what_was_not_said_behind_exactly_these_tokens(story: list[tuple]) -> None:  # type: ignore[type-arg]
    record, tree = Record(), OutcomeTree(PROMPT, MAX_NODES)
    play(record, tree, story)
    best = tree.best(64)
    assert tree.length == len(record.committed)
    assert not best.token_ids or record.continues(list(best.token_ids))
    assert len(best.token_ids) == len(best.classes)
    assert tree.best(2).token_ids == best.token_ids[:2]


@given(events)
def test_with_room_for_everything_whatever_fits_is_offered(story: list[tuple]) -> None:  # type: ignore[type-arg]
    record, tree = Record(), OutcomeTree(PROMPT, 10_000)
    play(record, tree, story)
    fitting = [path for path in record.said if path[: tree.length] == record.committed and len(path) > tree.length]
    assert bool(tree.best(1).token_ids) == bool(fitting)
    prefixes = {tuple(path[:end]) for path in fitting for end in range(tree.length + 1, len(path) + 1)}
    assert tree.num_nodes == len(prefixes)


@given(events, st.integers(1, 6))
def test_it_holds_no_more_than_its_bound(story: list[tuple], max_nodes: int) -> None:  # type: ignore[type-arg]
    tree = OutcomeTree(PROMPT, max_nodes)
    play(Record(), tree, story)
    assert 0 <= tree.num_nodes <= max_nodes
    assert len(tree.best(64).token_ids) <= max_nodes


def test_the_surer_branch_is_best_and_a_commit_takes_the_other_one_up() -> None:
    tree = OutcomeTree(PROMPT, MAX_NODES)
    assert tree.insert(3, [1, 2, 3], [9, 4, 9], now_s=1.0) == 3
    assert tree.insert(3, [1, 5, 6], [9, 3, 9], now_s=2.0) == 2
    assert tree.best(8).token_ids == (1, 2, 3)
    assert tree.best(8).arrival_s == 1.0
    assert tree.commit([1, 5])
    assert tree.best(8).token_ids == (6,)
    assert tree.best(8).arrival_s == 2.0
    assert not tree.commit([1])
    assert tree.best(8) is NOTHING


def test_an_answer_from_the_future_or_from_before_memory_is_dropped() -> None:
    tree = OutcomeTree(PROMPT, MAX_NODES)
    assert tree.insert(4, [1], [0], now_s=0.0) == 0
    tree.commit([1] * (MEMORY_TOKENS + 1))
    long = [1] * (MEMORY_TOKENS + 8)
    assert tree.insert(3, long, [0] * len(long), now_s=0.0) == 0
    assert tree.insert(4, long, [0] * len(long), now_s=0.0) == 8
