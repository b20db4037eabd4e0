"""The engine's side of the draft pool: it takes what waits, and no replica can hurt or hold it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from zenray.config import SpeculationSettings
from zenray.engine.request import GenerateRequest, Limits, Sampling
from zenray.engine.sequence import Sequence
from zenray.engine.speculation import Draft, Round
from zenray.model.load import LoadedModel
from zenray.serving import draft_link
from zenray.serving.draft_client import SILENCE_S, SILENCE_S_PER_TOKEN, PoolDrafter
from zenray.serving.draft_harness import Answer, Replicas, ScriptedDrafts
from zenray.serving.harness import WAIT_S, eventually
from zenray.speculative.draft_model import DraftModel
from zenray.speculative.drafter import Ask
from zenray.v1 import draft_pb2

VOCAB = 264
PROMPT = tuple(range(1, 20))
MakeDrafter = Callable[..., PoolDrafter]


def a_sequence(sampling: Sampling = Sampling(), handle: int = 1) -> Sequence:  # noqa: B008 - frozen
    request = GenerateRequest("r", PROMPT, sampling, Limits(max_tokens=64))
    return Sequence(handle, 0, request, seed=11, arrival_s=0.0, arrival_number=handle)


def an_ask(sequence: Sequence, max_tokens: int = 4, min_survival: float = 0.0) -> Ask:
    return Ask(sequence, max_tokens, min_survival, probability=lambda confidence: 0.5)


def commit(drafter: PoolDrafter, sequence: Sequence, token_ids: list[int]) -> None:
    for token_id in token_ids:
        sequence.append_token(token_id, 0.0)
    drafter.observe([Round(sequence, None, 0, len(token_ids), 0)], torch.empty(0))


def paths(*token_ids: int, base_length: int = len(PROMPT), opened_only: bool = True) -> Answer:
    """The same path for every sequence: when it is opened, or at every commit too."""

    def answer(message: draft_pb2.DraftRequest) -> list[draft_pb2.DraftedPath]:
        keys = [opening.key for opening in message.openings]
        if not opened_only:
            keys += [commit.key for commit in message.commits]
        classes = [5] * len(token_ids)
        return [
            draft_pb2.DraftedPath(key=key, base_length=base_length, token_ids=token_ids, classes=classes, token_ms=1)
            for key in keys
        ]

    return answer


@pytest.fixture
def make_drafter(replicas: Replicas) -> Iterator[MakeDrafter]:
    made: list[PoolDrafter] = []

    def make(
        draft_timeout_ms: float = 30, num_replicas: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> PoolDrafter:
        settings = SpeculationSettings(draft_timeout_ms=draft_timeout_ms)
        made.append(PoolDrafter(settings, VOCAB, replicas.watch, clock))
        eventually(lambda: made[-1].status().replicas == num_replicas, "the replicas are connected", WAIT_S)
        return made[-1]

    yield make
    for drafter in made:
        drafter.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zenray-draft-link")]


def num_ready(drafter: PoolDrafter, sequence: Sequence) -> int:
    cost = drafter.cost(sequence, 1)
    return 0 if cost is None else cost.num_ready


def wait_for(drafter: PoolDrafter, sequence: Sequence, count: int = 1) -> Draft:
    """The draft once `count` tokens have arrived."""
    eventually(lambda: num_ready(drafter, sequence) >= count, "drafts arrive", WAIT_S)
    (draft,) = drafter.offer([an_ask(sequence, count)])
    assert draft is not None and len(draft.token_ids) == len(draft.classes) == count
    return draft


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), Sampling(presence_penalty=1.5)])
def test_drafts_are_the_choices_of_a_model_at_the_verifiers_seed(
    replicas: Replicas, make_drafter: MakeDrafter, draft_weights: LoadedModel, sampling: Sampling
) -> None:
    replicas.start_real("a", lambda: DraftModel(draft_weights, 256))
    drafter, sequence = make_drafter(), a_sequence(sampling)
    drafter.opened(sequence)
    own = DraftModel(draft_weights, 256)
    for _ in range(5):
        chain = own.open(sequence.token_ids, sampling, sequence.seed, sequence.num_prompt)
        (guess,) = own.extend([chain])
        assert guess is not None
        draft = wait_for(drafter, sequence)
        assert draft.drafter == "draft_pool"
        assert draft.token_ids == (guess.token_id,)
        commit(drafter, sequence, [guess.token_id, 200])
    drafter.closed(sequence)


def test_without_a_replica_it_has_nothing_and_does_not_wait(make_drafter: MakeDrafter) -> None:
    drafter, sequence = make_drafter(draft_timeout_ms=60_000, num_replicas=0), a_sequence()
    drafter.opened(sequence)
    assert drafter.cost(sequence, 1) is None
    assert drafter.offer([an_ask(sequence)]) == [None]
    commit(drafter, sequence, [5])
    drafter.closed(sequence)
    assert drafter.status().timeouts == 0


def test_a_sequence_outlives_its_replica_and_uses_the_one_that_comes_back(
    replicas: Replicas, make_drafter: MakeDrafter
) -> None:
    replicas.start_scripted("a", paths(7, 8), VOCAB)
    drafter, sequence = make_drafter(draft_timeout_ms=60_000), a_sequence()
    drafter.opened(sequence)
    assert wait_for(drafter, sequence, 2).token_ids == (7, 8)
    replicas.kill("a")
    eventually(lambda: drafter.status().replicas == 0, "the death is noticed", WAIT_S)
    assert drafter.cost(sequence, 1) is None
    assert drafter.offer([an_ask(sequence)]) == [None]
    commit(drafter, sequence, [7])
    successor = replicas.start_scripted("b", paths(9, base_length=len(PROMPT) + 2), VOCAB)
    eventually(lambda: drafter.status().replicas == 1, "the successor is found", WAIT_S)
    commit(drafter, sequence, [8])
    assert wait_for(drafter, sequence).token_ids == (9,)
    assert list(successor.heard[0].openings[0].token_ids) == [*PROMPT, 7, 8]
    assert successor.heard[0].openings[0].num_prompt_tokens == len(PROMPT)


def test_a_death_in_the_middle_of_a_wait_ends_the_wait(replicas: Replicas, make_drafter: MakeDrafter) -> None:
    """The replica answers slowly by its own account, so the drafter is patient: only the death can end this."""
    slow = paths(7)
    replicas.start_scripted("a", lambda message: [_with_token_ms(path, 1e6) for path in slow(message)], VOCAB)
    drafter, sequence = make_drafter(draft_timeout_ms=600_000), a_sequence()
    drafter.opened(sequence)
    wait_for(drafter, sequence)
    offered: list[Draft | None] = []
    waiting = threading.Thread(target=lambda: offered.extend(drafter.offer([an_ask(sequence, 4)])))
    waiting.start()
    replicas.kill("a")
    waiting.join(WAIT_S)
    assert not waiting.is_alive()
    assert offered == [None]


def test_a_replica_that_stays_silent_is_left_alone_and_its_sequences_go_to_another(
    replicas: Replicas, make_drafter: MakeDrafter
) -> None:
    replicas.start_scripted("silent", paths(7), VOCAB)
    drafter, sequence = make_drafter(), a_sequence()
    drafter.opened(sequence)
    wait_for(drafter, sequence)

    def is_left_alone() -> bool:
        commit(drafter, sequence, [100])
        assert drafter.offer([an_ask(sequence)]) == [None]
        return drafter.cost(sequence, 1) is None

    eventually(is_left_alone, "the silent one is left alone", WAIT_S)
    assert drafter.status().timeouts > 0
    other = replicas.start_scripted("other", paths(9, base_length=len(sequence.token_ids) + 1), VOCAB)
    eventually(lambda: drafter.status().replicas == 2, "the other one is found", WAIT_S)
    commit(drafter, sequence, [100])
    assert wait_for(drafter, sequence).token_ids == (9,)
    assert other.heard


def test_a_replica_that_never_says_anything_keeps_no_sequence(replicas: Replicas, make_drafter: MakeDrafter) -> None:
    """It may take its time over a prompt, but not for ever."""
    replicas.start_scripted("mute", lambda message: [], VOCAB)
    now = [100.0]
    drafter, sequence = make_drafter(clock=lambda: now[0]), a_sequence()
    drafter.opened(sequence)
    now[0] += SILENCE_S
    commit(drafter, sequence, [100])
    assert drafter.status().timeouts == 0
    other = replicas.start_scripted("other", paths(9, base_length=len(PROMPT) + 3), VOCAB)
    eventually(lambda: drafter.status().replicas == 2, "the other one is found", WAIT_S)
    now[0] += SILENCE_S_PER_TOKEN * (len(PROMPT) + 2)
    commit(drafter, sequence, [100])
    assert drafter.status().timeouts == 1
    commit(drafter, sequence, [100])
    eventually(lambda: other.heard, "the sequence goes to the other one", WAIT_S)
    assert wait_for(drafter, sequence).token_ids == (9,)


LIES = {
    "ids beyond the vocabulary": draft_pb2.DraftedPath(base_length=len(PROMPT), token_ids=[VOCAB], classes=[1]),
    "no tokens": draft_pb2.DraftedPath(base_length=len(PROMPT)),
    "too many tokens": draft_pb2.DraftedPath(base_length=len(PROMPT), token_ids=[1] * 999, classes=[1] * 999),
    "classes that are missing": draft_pb2.DraftedPath(base_length=len(PROMPT), token_ids=[1, 2], classes=[1]),
    "classes that do not exist": draft_pb2.DraftedPath(base_length=len(PROMPT), token_ids=[1], classes=[16]),
    "a time that is no number": draft_pb2.DraftedPath(
        base_length=len(PROMPT), token_ids=[1], classes=[1], token_ms=float("nan")
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_replica_that_lies_is_dropped_and_the_engine_does_not_notice(
    replicas: Replicas, make_drafter: MakeDrafter, lie: str
) -> None:
    def answer(message: draft_pb2.DraftRequest) -> list[draft_pb2.DraftedPath]:
        said = [draft_pb2.DraftedPath() for _ in message.openings]
        for path, opening in zip(said, message.openings, strict=True):
            path.CopyFrom(LIES[lie])
            path.key = opening.key
        return said

    liar = replicas.start_scripted("liar", answer, VOCAB)
    drafter, sequence = make_drafter(), a_sequence()
    drafter.opened(sequence)
    eventually(lambda: liar.heard and drafter.cost(sequence, 1) is None, "the liar is dropped", WAIT_S)
    assert drafter.offer([an_ask(sequence)]) == [None]
    commit(drafter, sequence, [5])
    drafter.closed(sequence)


def test_stale_answers_and_answers_to_nobody_are_no_drafts(replicas: Replicas, make_drafter: MakeDrafter) -> None:
    def answer(message: draft_pb2.DraftRequest) -> list[draft_pb2.DraftedPath]:
        stale = paths(6, 6, 6, opened_only=False)(message)
        return [*stale, *paths(6)(draft_pb2.DraftRequest(openings=[draft_pb2.DraftOpening(key=10**9)]))]

    replica = replicas.start_scripted("a", answer, VOCAB)
    drafter, sequence = make_drafter(), a_sequence()
    drafter.opened(sequence)
    wait_for(drafter, sequence, 3)
    commit(drafter, sequence, [5])
    eventually(lambda: len(replica.heard) == 2, "the commit is heard", WAIT_S)
    assert drafter.offer([an_ask(sequence)]) == [None]
    assert drafter.status().replicas == 1


class Deaf(ScriptedDrafts):
    """Accepts streams and never reads them."""

    num_streams = 0

    async def Draft(self, messages: Any, context: Any) -> None:  # type: ignore[override]
        self.num_streams += 1
        await asyncio.Event().wait()


def test_a_replica_that_does_not_read_is_cut_off_before_it_costs_memory(
    replicas: Replicas, make_drafter: MakeDrafter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_link, "MAX_UNSENT_TOKENS", 400_000)
    deaf = replicas.start("deaf", lambda: Deaf(VOCAB, paths()))
    drafter, sequence = make_drafter(), a_sequence()
    drafter.opened(sequence)

    def is_cut_off() -> bool:
        commit(drafter, sequence, [VOCAB - 1] * 100_000)
        return bool(deaf.num_streams > 1)

    eventually(is_cut_off, "the deaf one is cut off and tried again", WAIT_S)
    drafter.closed(sequence)


def test_a_replica_of_another_vocabulary_is_never_asked(replicas: Replicas, make_drafter: MakeDrafter) -> None:
    stranger = replicas.start_scripted("stranger", paths(7), vocab_size=VOCAB + 1)
    replicas.start_scripted("a", paths(8), VOCAB)
    drafter, sequence = make_drafter(), a_sequence()
    drafter.opened(sequence)
    assert wait_for(drafter, sequence).token_ids == (8,)
    assert not stranger.heard


def test_sequences_are_spread_and_told_apart(replicas: Replicas, make_drafter: MakeDrafter) -> None:
    servicers = [replicas.start_scripted(name, paths(token), VOCAB) for name, token in (("a", 7), ("b", 8))]
    drafter = make_drafter(num_replicas=2)
    sequences = [a_sequence(handle=handle) for handle in range(1, 17)]
    for sequence in sequences:
        drafter.opened(sequence)
    for sequence in sequences:
        assert wait_for(drafter, sequence).token_ids in ((7,), (8,))
    opened = [sum(len(message.openings) for message in servicer.heard) for servicer in servicers]
    assert sum(opened) == len(sequences)
    assert min(opened) > 0
    for sequence in sequences:
        drafter.closed(sequence)
    eventually(
        lambda: sum(len(m.closed_keys) for s in servicers for m in s.heard) == len(sequences), "all are closed", WAIT_S
    )


def test_a_wait_ends_when_what_has_come_is_not_worth_more(replicas: Replicas, make_drafter: MakeDrafter) -> None:
    slow = paths(7, 8)
    replicas.start_scripted("a", lambda message: [_with_token_ms(path, 1e6) for path in slow(message)], VOCAB)
    drafter, sequence = make_drafter(draft_timeout_ms=600_000), a_sequence()
    drafter.opened(sequence)
    wait_for(drafter, sequence, 2)
    (draft,) = drafter.offer([an_ask(sequence, max_tokens=8, min_survival=0.3)])
    assert draft is not None
    assert draft.token_ids == (7, 8)


def _with_token_ms(path: draft_pb2.DraftedPath, token_ms: float) -> draft_pb2.DraftedPath:
    path.token_ms = token_ms
    return path
