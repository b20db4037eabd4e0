"""Every shard is needed, and one dies: the verifier lives but takes no request until its experts have a place again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import islice

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from zenray.api.client import CallFailed, Client
from zenray.serving.app import Platform
from zenray.serving.expert_harness import (
    experts_of,
    open_stream,
    plain_texts,
    shard_process,
    sharded_platform,
    whole_client,
    whole_text,
)
from zenray.serving.harness import eventually, replica_processes, request

NUM_SHARDS = 2
NUM_TOKENS = 1500
EXPERT_MIB = 3 * 64 * 64 * 4 / 2**20
EXPERTS_PER_SHARD = 2 * 8 // NUM_SHARDS  # of two layers with eight experts each


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with sharded_platform(
        NUM_SHARDS,
        f"experts.shard_memory_mib={EXPERTS_PER_SHARD * EXPERT_MIB}",
        "server.health_check_period_s=0.5",
        "server.health_check_timeout_s=1",
    ) as running:
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with whole_client(platform, NUM_SHARDS) as connected:
        yield connected


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return plain_texts(1, NUM_TOKENS)[0]


def health(platform: Platform) -> int:
    with grpc.insecure_channel(platform.grpc_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        status: int = answer.status
        return status


def test_without_a_place_requests_are_refused_and_running_ones_wait(
    platform: Platform, client: Client, undisturbed: str
) -> None:
    verifiers = replica_processes("Verifier")
    stream = open_stream(client, 0, NUM_TOKENS)
    head = list(islice(stream, 20))
    shard_process(client, 1).kill()

    eventually(lambda: health(platform) == health_pb2.HealthCheckResponse.NOT_SERVING, "nobody is sent here")
    with pytest.raises(CallFailed) as refused:
        client.complete_once(request())
    assert (refused.value.code, bool(refused.value.retry_ms)) == ("UNAVAILABLE", True)
    assert "expert" in refused.value.message
    assert httpx.get(f"{platform.http_url}/readyz").status_code == 503
    assert httpx.get(f"{platform.http_url}/healthz").status_code == 200
    answer = client.load()
    assert answer.verifier_replicas == 0
    assert experts_of(client).unavailable

    eventually(lambda: health(platform) == health_pb2.HealthCheckResponse.SERVING, "the shard comes back")
    assert whole_text([*head, *stream]) == undisturbed
    assert replica_processes("Verifier") == verifiers


def test_with_their_verifier_dead_no_shard_stays(client: Client, undisturbed: str) -> None:
    """Not even one that is stopped and cannot see that its leader has gone."""
    stream = open_stream(client, 0, NUM_TOKENS)
    head = list(islice(stream, 20))
    shard = shard_process(client, 1)
    os.kill(shard.pid, signal.SIGSTOP)
    (verifier,) = replica_processes("Verifier")
    verifier.kill()
    assert whole_text([*head, *stream]) == undisturbed
    eventually(lambda: not shard.is_running(), "its shard ends")
