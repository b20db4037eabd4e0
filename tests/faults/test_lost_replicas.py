"""Real processes are killed and stopped under real streams: nothing is lost, nothing is silently cut."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from itertools import islice

import grpc
import psutil
import pytest
from google.protobuf.message import Message

from zenray.api.client import CallFailed, Client
from zenray.batch.client.generator import connected
from zenray.batch.client.settings import ClientSettings
from zenray.batch.client.verifiers import all_verifiers
from zenray.engine.scoring import ScoreFormat, Scoring
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, replica_processes, request
from zenray.v1 import completion_pb2, verifier_pb2, verifier_pb2_grpc

NUM_TOKENS = 4000


def message(session_id: str = "") -> completion_pb2.CompleteRequest:
    asked = request("def long(", NUM_TOKENS, session_id=session_id)
    asked.sampling.seed = 11
    asked.sampling.temperature = 1.0
    return asked


@pytest.fixture(scope="module")
def whole_text(platform: Platform) -> str:
    with Client(platform.grpc_address) as client:
        return client.complete_once(message()).choices[0].text


def finish(head: list[completion_pb2.CompleteEvent], stream: Iterator[completion_pb2.CompleteEvent]) -> str:
    """The text of a stream that must end properly."""
    events = [*head, *stream]
    assert sum(event.HasField("started") for event in events) == 1
    assert events[-1].HasField("final")
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert sum(delta.token_count for delta in deltas) == NUM_TOKENS == events[-1].final.usage.completion_tokens
    text = "".join(delta.text for delta in deltas)
    assert text == events[-1].final.text
    return text


def busy_verifier(platform: Platform) -> psutil.Process:
    """The verifier that runs the only request, found by asking each one."""
    for process in replica_processes("Verifier"):
        for each in process.net_connections("inet"):
            if each.status == "LISTEN" and each.laddr.ip.endswith("127.0.0.1") and _running(each.laddr.port):
                return process
    raise AssertionError("no verifier runs the request")


def _running(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: Message = verifier_pb2.GetVerifierLoadRequest()
        answer = verifier_pb2_grpc.VerifierServiceStub(channel).GetVerifierLoad(ask, timeout=5)
    return bool(answer.load.running_sequences)


def test_a_killed_verifier_loses_no_token_of_its_stream(platform: Platform, client: Client, whole_text: str) -> None:
    before = {process.pid for process in replica_processes("Verifier")}
    stream = client.complete(message())
    head = list(islice(stream, 20))
    victim = busy_verifier(platform)
    victim.kill()
    assert finish(head, stream) == whole_text
    after = eventually(
        lambda: {process.pid for process in replica_processes("Verifier")} - before, "the verifier is replaced"
    )
    assert victim.pid not in after


def test_a_request_survives_the_death_of_every_verifier(platform: Platform, client: Client, whole_text: str) -> None:
    stream = client.complete(message())
    head = list(islice(stream, 20))
    for process in replica_processes("Verifier"):
        process.kill()
    assert finish(head, stream) == whole_text


async def test_records_survive_the_death_of_every_verifier(platform: Platform, client: Client) -> None:
    """As a job asks for them: they are those of an undisturbed verifier, and what had come is scored again. One request
    at a time: the toy's kernels round otherwise in other company."""
    tokens = [(7 * i * i + 3 * i) % 256 for i in range(NUM_TOKENS)]
    counts: list[int] = []
    victims: list[psutil.Process] = []

    def come(num_tokens: int) -> None:
        counts.append(num_tokens)
        while victims:
            victims.pop().kill()

    async with connected(all_verifiers, ClientSettings(patience_s=60), come) as generator:

        async def score() -> tuple[bytes, ...]:
            rows = await generator.score(tokens, Scoring(ScoreFormat(8, 0.9, 2)), seed=11)
            return rows.head_ids_N.tobytes(), rows.head_logprobs_N.tobytes(), rows.tail_ids_RS.tobytes()

        undisturbed = await score()
        assert sum(counts) == NUM_TOKENS - 1
        counts.clear()
        victims += replica_processes("Verifier")
        assert await score() == undisturbed
        assert sum(counts) > NUM_TOKENS - 1


def test_a_stopped_verifier_is_noticed_and_replaced(platform: Platform, client: Client, whole_text: str) -> None:
    stream = client.complete(message())
    head = list(islice(stream, 20))
    victim = busy_verifier(platform)
    os.kill(victim.pid, signal.SIGSTOP)
    assert finish(head, stream) == whole_text
    eventually(lambda: not victim.is_running(), "the stopped verifier is ended")


def test_without_the_directory_requests_go_on_and_it_comes_back(client: Client, whole_text: str) -> None:
    import ray

    from zenray.serving.directory import ACTOR_NAME, NAMESPACE

    ray.kill(ray.get_actor(ACTOR_NAME, namespace=NAMESPACE), no_restart=False)
    assert client.complete_once(message()).choices[0].text == whole_text


def test_a_killed_aggregator_is_replaced_behind_the_same_port(platform: Platform, client: Client) -> None:
    stream = client.complete(message())
    list(islice(stream, 5))
    (aggregator,) = replica_processes("ContextAggregator")
    aggregator.kill()
    with pytest.raises(CallFailed) as lost:
        list(stream)
    assert lost.value.code == "UNAVAILABLE"

    def answers() -> bool:
        with Client(platform.grpc_address) as again:
            with contextlib.suppress(CallFailed):
                return bool(again.complete_once(request(max_tokens=3)).choices)
            return False

    eventually(answers, "the door answers again")
