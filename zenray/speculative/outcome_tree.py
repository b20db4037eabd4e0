"""What a remote drafter has said of one sequence: a trie of predicted tokens behind the committed ones.

The drafter works ahead over several outcomes of the verifier's next rounds, so its answers branch. A commit
descends the trie; what it passes by is stale and dropped, and so is an answer that no longer fits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from zenray.engine.speculation import NUM_CLASSES

MEMORY_TOKENS = 512
"""Committed tokens remembered, to check answers that were on their way when the tokens were committed."""


@dataclass(slots=True)
class _Node:
    """A predicted token's place: how sure the drafter was of it, when it was said, and what may follow."""

    confidence: int = 0
    arrival_s: float = 0.0
    children: dict[int, _Node] = field(default_factory=dict)

    def best(self) -> tuple[int, _Node]:
        """The likeliest next token: of the surest class, the first that was said."""
        return max(self.children.items(), key=lambda item: item[1].confidence)

    def size(self) -> int:
        """Nodes below this one."""
        size, level = 0, [self]
        while level:
            level = [child for node in level for child in node.children.values()]
            size += len(level)
        return size


@dataclass(frozen=True, slots=True)
class Waiting:
    """The best continuation that has been said. `arrival_s` is when its last token was."""

    token_ids: tuple[int, ...] = ()
    classes: tuple[int, ...] = ()
    arrival_s: float = 0.0


NOTHING = Waiting()


class OutcomeTree:
    """At most `max_nodes` predicted tokens behind the first `length` tokens of a sequence.

    `token_ids` are those committed so far.
    """

    def __init__(self, token_ids: Sequence[int], max_nodes: int) -> None:
        assert max_nodes > 0
        self.length = len(token_ids)
        self.num_nodes = 0
        self._max_nodes = max_nodes
        self._committed = deque(token_ids[-MEMORY_TOKENS:], MEMORY_TOKENS)
        self._root = _Node()

    def insert(self, base_length: int, token_ids: Sequence[int], classes: Sequence[int], now_s: float) -> int:
        """Adds a path that follows the first `base_length` committed tokens; how many new tokens it brought.

        0 when it is stale: it contradicts what was committed since, or does not reach beyond it, or begins
        further back than is remembered. What `max_nodes` has no room for is cut off.
        """
        assert len(token_ids) == len(classes) and all(0 <= each < NUM_CLASSES for each in classes)
        num_passed = self.length - base_length
        if not 0 <= num_passed <= min(len(self._committed), len(token_ids)):
            return 0
        first = len(self._committed) - num_passed
        if any(self._committed[first + i] != token_ids[i] for i in range(num_passed)):
            return 0
        node, num_new = self._root, 0
        for token_id, confidence in zip(token_ids[num_passed:], classes[num_passed:], strict=True):
            child = node.children.get(token_id)
            if child is None:
                if self.num_nodes == self._max_nodes:
                    break
                child = node.children[token_id] = _Node(confidence, now_s)
                self.num_nodes += 1
                num_new += 1
            node = child
        return num_new

    def commit(self, token_ids: Sequence[int]) -> bool:
        """Moves behind newly committed tokens. False when somebody committed what nobody had predicted."""
        self.length += len(token_ids)
        self._committed.extend(token_ids)
        node: _Node | None = self._root
        for token_id in token_ids:
            node = node.children.get(token_id) if node is not None else None
        self._root = node or _Node()
        self.num_nodes = self._root.size()
        return node is not None

    def best(self, max_tokens: int) -> Waiting:
        """The likeliest continuation, of at most `max_tokens` tokens."""
        node = self._root
        token_ids: list[int] = []
        classes: list[int] = []
        while node.children and len(token_ids) < max_tokens:
            token_id, node = node.best()
            token_ids.append(token_id)
            classes.append(node.confidence)
        return Waiting(tuple(token_ids), tuple(classes), node.arrival_s) if token_ids else NOTHING
