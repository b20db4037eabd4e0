"""Draft replicas are killed and stopped under real streams: no token changes, and those that come back are used."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice

import pytest

from zenray.api.client import Client
from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.request import Final, GenerateRequest, Limits, Sampling
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, is_idle, replica_processes, tiny_platform
from zenray.v1 import common_pb2, completion_pb2

NUM_TOKENS = 1000
NUM_REPLICAS = 2
PROMPT = tuple(b"def long(")
SAMPLING = Sampling(temperature=1.0, seed=11)
MODEL = ("model.context_length=4096", "model.num_threads=1")
POOL = (
    "draft.model=preset:tiny",  # the verifier's own weights: its drafts are right
    "draft.weight_format=float32",
    "draft.num_threads=1",
    f"draft.num_replicas={NUM_REPLICAS}",
    "speculation.drafters=[draft_pool]",
    "speculation.gamma=4",
)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    health = ("server.health_check_period_s=0.5", "server.health_check_timeout_s=1", "server.drain_timeout_s=5")
    with tiny_platform(*MODEL, *POOL, *health) as running:
        yield running
    assert not replica_processes("DraftPool")


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    """A client of a platform whose verifier has every replica of the pool, before and after."""
    with Client(platform.grpc_address) as connected:
        eventually(lambda: is_idle(connected) and is_whole(connected), "the platform is whole before the test")
        yield connected
        eventually(lambda: is_idle(connected) and is_whole(connected), "the platform heals after the test")


@pytest.fixture(scope="module")
def plain_text() -> str:
    """The completion without any drafter."""
    engine = build_engine(load_config("tiny", None, [*MODEL, "speculation.drafters=[]"]))
    engine.add(GenerateRequest("plain", PROMPT, SAMPLING, Limits(NUM_TOKENS, ignore_eos=True)))
    while engine.has_work:
        for _, event in engine.step():
            if isinstance(event, Final):
                return event.text
    raise AssertionError("the engine ended without a final event")


def pool_of(client: Client) -> common_pb2.DrafterLoad:
    """The counters of the draft pool, zero while the verifier says nothing of it."""
    found = [each for each in client.load().load.drafters if each.drafter == "draft_pool"]
    return found[0] if found else common_pb2.DrafterLoad()


def is_whole(client: Client) -> bool:
    return pool_of(client).replicas == NUM_REPLICAS


def complete(client: Client) -> Iterator[completion_pb2.CompleteEvent]:
    message = completion_pb2.CompleteRequest(prompt_token_ids=completion_pb2.TokenIds(ids=PROMPT))
    message.sampling.seed, message.sampling.temperature = SAMPLING.seed or 0, SAMPLING.temperature
    message.limits.max_tokens, message.limits.ignore_eos = NUM_TOKENS, True
    return client.complete(message)


def text_of(events: list[completion_pb2.CompleteEvent]) -> str:
    """The text of a stream that ended properly."""
    assert events[-1].HasField("final")
    assert events[-1].final.usage.completion_tokens == NUM_TOKENS
    text = "".join(event.delta.text for event in events if event.HasField("delta"))
    assert text == events[-1].final.text
    return text


def accepted(events: list[completion_pb2.CompleteEvent]) -> int:
    return sum(each.accepted_tokens for each in events[-1].final.usage.drafters if each.drafter == "draft_pool")


def is_used(client: Client, plain_text: str) -> bool:
    """Whether a whole completion, which is the plain one, had help from the pool."""
    events = list(complete(client))
    assert text_of(events) == plain_text
    return accepted(events) > 0


def test_with_the_pool_the_tokens_are_those_of_plain_decoding(client: Client, plain_text: str) -> None:
    eventually(lambda: is_used(client, plain_text), "the pool is used")


def test_a_stream_outlives_every_draft_replica_and_their_successors_are_used(client: Client, plain_text: str) -> None:
    stream = complete(client)
    head = list(islice(stream, 20))
    victims = replica_processes("DraftPool")
    assert len(victims) == NUM_REPLICAS
    for victim in victims:
        victim.kill()
    assert text_of([*head, *stream]) == plain_text
    eventually(lambda: is_whole(client), "the replicas come back")
    assert not {process.pid for process in replica_processes("DraftPool")} & {victim.pid for victim in victims}
    eventually(lambda: is_used(client, plain_text), "their successors are used")


def test_stopped_draft_replicas_hold_nobody(client: Client, plain_text: str) -> None:
    stream = complete(client)
    head = list(islice(stream, 20))
    victims = replica_processes("DraftPool")
    for victim in victims:
        os.kill(victim.pid, signal.SIGSTOP)
    assert text_of([*head, *stream]) == plain_text
    eventually(lambda: not any(victim.is_running() for victim in victims), "the stopped replicas are replaced")
