"""The draft pool as a `Drafter`: replicas draft ahead by themselves, the engine takes what has arrived.

The engine's thread reports commits and takes drafts; the thread of the links files answers into outcome
trees. Whatever replicas do, the engine waits no longer than the wait was expected to be worth.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

import torch

from zenray.api.convert_common import sampling_to_proto
from zenray.config import SpeculationSettings
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import NUM_CLASSES, Draft, Round
from zenray.serving.directory import watch
from zenray.serving.draft_link import Link, Links
from zenray.serving.draft_service import MAX_PATH_TOKENS, SERVICE_NAME
from zenray.serving.peers import Watch
from zenray.serving.routing import Candidate, affinity_key, choose_replica
from zenray.speculative.drafter import Ask, DraftCost, DrafterStatus
from zenray.speculative.outcome_tree import OutcomeTree, Waiting
from zenray.v1 import draft_pb2

NAME = "draft_pool"
MAX_NODES = 512
"""Predicted tokens kept per sequence."""
AFFINITY_SLACK = 4
FIRST_REST_S = 1.0
LAST_REST_S = 30.0
SILENCE_S = 5.0
SILENCE_S_PER_TOKEN = 0.005
"""A replica that has said nothing at all for so long since a prompt was sent to it is left alone: a slow one reads 200
tokens a second."""
_PATIENCE = 1.5
"""A wait may take this many times what it is expected to."""
_SMOOTHING = 0.2
_Clock = Callable[[], float]


@dataclass(eq=False, slots=True)
class _Replica:
    """What the engine knows of the replica behind a link.

    `owing_since_s` is when it was first asked for what it has not answered, None while it owes nothing; `heard_s` is
    when it last said anything, `rest_s` how long it is left alone next time.
    """

    link: Link
    followed: dict[int, _Followed] = field(default_factory=dict)  # by key
    token_ms: float = 0.0
    answer_ms: float = 0.0
    owing_since_s: float | None = None
    heard_s: float = 0.0
    rest_s: float = FIRST_REST_S
    resting_until_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Followed:
    """One sequence. `replica` knows it under `key`; `told` tokens of it are in the tree and on their way there.

    `asked_s` is when the tokens were committed that nobody had predicted, None while there are predictions;
    `has_answered`: the replica has read the prompt.
    """

    affinity: str
    key: int = 0
    replica: _Replica | None = None
    tree: OutcomeTree | None = None
    told: int = 0
    opened_s: float = 0.0
    asked_s: float | None = None
    has_answered: bool = False


class PoolDrafter:
    """See `zenray.speculative.drafter.Drafter`. Starts its thread at once; `shutdown` ends it.

    `watch_replicas` yields the replicas of the pool whenever they change.
    """

    name = NAME

    def __init__(
        self,
        settings: SpeculationSettings,
        vocab_size: int,
        watch_replicas: Watch = lambda: watch(SERVICE_NAME),
        clock: _Clock = time.monotonic,
    ) -> None:
        self._timeout_s = settings.draft_timeout_ms / 1000
        # While a draft is verified, the one behind it is made.
        gamma = settings.max_gamma if settings.gamma == "auto" else settings.gamma
        self._max_draft_tokens = max(1, min(2 * gamma, MAX_PATH_TOKENS))
        self._vocab_size = vocab_size
        self._clock = clock
        self._keys = itertools.count(1)
        self._followed: dict[Sequence, _Followed] = {}  # The engine thread's alone.
        self._changed = threading.Condition()  # Guards replicas and trees, and tells of answers.
        self._replicas: dict[Link, _Replica] = {}
        self._num_timeouts = 0
        self._queue_age_ms = 0.0
        self._links = Links(watch_replicas, vocab_size, self._began, self._ended, self._landed)

    def opened(self, sequence: Sequence) -> None:
        """The prompt is sent at once: the replica reads it while the verifier does."""
        request = sequence.request
        followed = _Followed(affinity_key(request.session_id, request.prompt_token_ids))
        self._followed[sequence] = followed
        with self._changed:
            self._assign(sequence, followed)
        self._flush()

    def cost(self, sequence: Sequence, batch_size: int) -> DraftCost | None:
        """None without a replica, and while the replica still reads the prompt."""
        with self._changed:
            followed = self._followed.get(sequence)
            if followed is None or followed.replica is None or not followed.has_answered:
                return None
            num_ready = len(self._best(followed).token_ids)
            return DraftCost(self._start_ms(followed), followed.replica.token_ms, num_ready)

    def offer(self, asks: Ordered[Ask]) -> list[Draft | None]:
        """What has arrived; waits for more while every ask can still hope to get it in its time."""
        begun_s = self._clock()
        with self._changed:
            followed_asks = [(ask, self._followed.get(ask.sequence)) for ask in asks]
            deadline_s = begun_s + max((self._patience_s(ask, one) for ask, one in followed_asks), default=0.0)
            while not all(self._is_answered(ask, one) for ask, one in followed_asks):
                remaining_s = deadline_s - self._clock()
                if remaining_s <= 0:
                    break
                self._changed.wait(remaining_s)
            drafts = [self._take(ask, one) for ask, one in followed_asks]
        self._flush()
        return drafts

    def observe(self, rounds: Ordered[Round], logits_RV: torch.Tensor) -> None:
        """Sends what was committed. A sequence whose replica is gone goes to another one."""
        now_s = self._clock()
        with self._changed:
            for round_ in rounds:
                followed = self._followed.get(round_.sequence)
                if followed is not None:
                    self._report(round_.sequence, followed, now_s)
        self._flush()

    def closed(self, sequence: Sequence) -> None:
        followed = self._followed.pop(sequence, None)
        if followed is not None:
            with self._changed:
                self._leave(followed)
            self._flush()

    def status(self) -> DrafterStatus:
        with self._changed:
            return DrafterStatus(self._num_timeouts, self._queue_age_ms, len(self._replicas))

    def shutdown(self) -> None:
        self._links.shutdown()

    # On the thread of the links.

    def _began(self, link: Link) -> None:
        with self._changed:
            self._replicas[link] = _Replica(link)

    def _ended(self, link: Link) -> None:
        with self._changed:
            replica = self._replicas.pop(link)
            for followed in replica.followed.values():
                followed.replica = None
            self._changed.notify_all()

    def _landed(self, link: Link, response: draft_pb2.DraftResponse) -> None:
        """Files an answer. Raises ValueError for one that makes no sense, which ends the link."""
        now_s = self._clock()
        for path in response.paths:
            check_path(path, self._vocab_size)
        with self._changed:
            replica = self._replicas[link]
            if response.paths:
                replica.heard_s = now_s
            for path in response.paths:
                followed = replica.followed.get(path.key)
                if followed is None or followed.tree is None:
                    continue
                if followed.tree.insert(path.base_length, path.token_ids, path.classes, now_s):
                    replica.token_ms = _smoothed(replica.token_ms, path.token_ms)
                    if followed.asked_s is not None and followed.has_answered:
                        replica.answer_ms = _smoothed(replica.answer_ms, (now_s - followed.asked_s) * 1000)
                    followed.asked_s = None
                    replica.owing_since_s, replica.rest_s = None, FIRST_REST_S
                followed.has_answered = True
            self._changed.notify_all()

    # With the lock held, on the engine's thread.

    def _assign(self, sequence: Sequence, followed: _Followed) -> None:
        """Opens the sequence on a replica, if there is one that is not left alone."""
        now_s = self._clock()
        usable = {
            replica.link.replica_id: replica
            for replica in self._replicas.values()
            if replica.link.is_open and replica.resting_until_s <= now_s
        }
        if not usable:
            return
        candidates = [Candidate(replica_id, len(replica.followed)) for replica_id, replica in usable.items()]
        replica = usable[choose_replica(candidates, followed.affinity, AFFINITY_SLACK)]
        followed.key, followed.replica, followed.told = next(self._keys), replica, len(sequence.token_ids)
        followed.tree = OutcomeTree(sequence.token_ids, MAX_NODES)
        followed.opened_s = followed.asked_s = now_s
        followed.has_answered = False
        replica.followed[followed.key] = followed
        replica.link.open_sequence(
            draft_pb2.DraftOpening(
                key=followed.key,
                token_ids=sequence.token_ids,
                num_prompt_tokens=sequence.num_prompt,
                sampling=sampling_to_proto(sequence.request.sampling),
                seed=sequence.seed,
                max_draft_tokens=self._max_draft_tokens,
            )
        )

    def _report(self, sequence: Sequence, followed: _Followed, now_s: float) -> None:
        if followed.replica is None or followed.tree is None:
            self._assign(sequence, followed)
            return
        silent_s = now_s - max(followed.opened_s, followed.replica.heard_s)
        if not followed.has_answered and silent_s > SILENCE_S + SILENCE_S_PER_TOKEN * followed.told:
            self._num_timeouts += 1
            self._rest(followed.replica, now_s)
            return
        token_ids = sequence.token_ids[followed.told :]
        if token_ids:
            followed.replica.link.commit(followed.key, followed.told, token_ids)
            followed.told += len(token_ids)
            followed.tree.commit(token_ids)
            followed.asked_s = None if followed.tree.num_nodes else now_s
            if followed.asked_s is not None and followed.replica.owing_since_s is None:
                followed.replica.owing_since_s = now_s

    def _leave(self, followed: _Followed) -> None:
        if followed.replica is not None:
            followed.replica.link.close_sequence(followed.key)
            del followed.replica.followed[followed.key]
            followed.replica = None

    def _best(self, followed: _Followed) -> Waiting:
        assert followed.tree is not None
        return followed.tree.best(self._max_draft_tokens)

    def _start_ms(self, followed: _Followed) -> float:
        """How long until the first token, from now, when none is there."""
        if followed.asked_s is None or followed.replica is None:
            return 0.0
        return max(0.0, followed.replica.answer_ms - (self._clock() - followed.asked_s) * 1000)

    def _patience_s(self, ask: Ask, followed: _Followed | None) -> float:
        if followed is None or followed.replica is None or not followed.has_answered:
            return 0.0
        num_missing = max(0, ask.max_tokens - len(self._best(followed).token_ids))
        expected_ms = self._start_ms(followed) + num_missing * followed.replica.token_ms
        return min(self._timeout_s, _PATIENCE * expected_ms / 1000)

    def _is_answered(self, ask: Ask, followed: _Followed | None) -> bool:
        """Nothing more is worth waiting for."""
        if followed is None or followed.replica is None or not followed.has_answered:
            return True
        classes = self._best(followed).classes[: ask.max_tokens]
        return len(classes) == ask.max_tokens or math.prod(map(ask.probability, classes)) < ask.min_survival

    def _take(self, ask: Ask, followed: _Followed | None) -> Draft | None:
        if followed is None or followed.replica is None or not followed.has_answered:
            return None
        waiting = self._best(followed)
        if not waiting.token_ids:
            self._miss(followed.replica)
            return None
        self._queue_age_ms = _smoothed(self._queue_age_ms, (self._clock() - waiting.arrival_s) * 1000)
        return Draft(NAME, waiting.token_ids[: ask.max_tokens], waiting.classes[: ask.max_tokens])

    def _miss(self, replica: _Replica) -> None:
        """A replica that misses deadlines for too long is left alone, and its sequences look for another."""
        self._num_timeouts += 1
        now_s = self._clock()
        if replica.owing_since_s is not None and now_s - replica.owing_since_s >= self._timeout_s:
            self._rest(replica, now_s)

    def _rest(self, replica: _Replica, now_s: float) -> None:
        """Leaves a replica alone for a while, longer each time."""
        replica.owing_since_s = None
        replica.resting_until_s = now_s + replica.rest_s
        replica.rest_s = min(2 * replica.rest_s, LAST_REST_S)
        for followed in list(replica.followed.values()):
            self._leave(followed)

    def _flush(self) -> None:
        with self._changed:
            links = list(self._replicas)
        for link in links:
            link.flush()


def check_path(path: draft_pb2.DraftedPath, vocab_size: int) -> None:
    """Raises ValueError for a path no honest replica sends."""
    num_tokens = len(path.token_ids)
    if not 0 < num_tokens <= MAX_PATH_TOKENS or len(path.classes) != num_tokens:
        raise ValueError(f"a draft of {num_tokens} tokens with {len(path.classes)} classes")
    if max(path.token_ids) >= vocab_size or max(path.classes) >= NUM_CLASSES or not path.token_ms >= 0:
        raise ValueError("a draft with token ids, classes or times that do not exist")


def _smoothed(value: float, sample: float) -> float:
    return sample if value == 0 else value + _SMOOTHING * (sample - value)
