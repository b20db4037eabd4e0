"""A verifier whose experts live in three processes answers as one would, and says where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
from typer.testing import CliRunner

from zenray.api.client import Client
from zenray.api.convert_experts import expert_status_from_proto
from zenray.cli.main import app
from zenray.serving.app import Platform
from zenray.serving.expert_harness import (
    experts_of,
    open_stream,
    plain_texts,
    sharded_platform,
    whole_client,
    whole_text,
)
from zenray.serving.harness import eventually, replica_processes, shard_processes
from zenray.v1 import verifier_pb2, verifier_pb2_grpc

NUM_SHARDS = 3
NUM_STREAMS = 6
NUM_TOKENS = 60
NUM_EXPERTS = 2 * 8
EXPERT_BYTES = 3 * 64 * 64 * 4


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with sharded_platform(NUM_SHARDS, "experts.redundant_experts=1") as running:
        yield running


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with whole_client(platform, NUM_SHARDS) as connected:
        yield connected


def test_streams_have_the_text_of_a_single_process(client: Client) -> None:
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        streams = [pool.submit(list, open_stream(client, number, NUM_TOKENS)) for number in range(NUM_STREAMS)]
        assert [whole_text(stream.result()) for stream in streams] == plain_texts(NUM_STREAMS, NUM_TOKENS)


def test_a_shard_holds_its_share_and_no_more(client: Client) -> None:
    status = expert_status_from_proto(experts_of(client))
    num_copies = NUM_EXPERTS + 2  # one spare in either layer
    assert sum(len(status.placement.held_by(shard)) for shard in range(NUM_SHARDS)) == num_copies
    for shard in status.shards:
        assert shard.report is not None
        assert shard.report.num_experts == len(status.placement.held_by(shard.shard)) == num_copies / NUM_SHARDS
        assert shard.report.weight_bytes == shard.report.num_experts * EXPERT_BYTES
    remote = {shard.report.pid for shard in status.shards if shard.report and shard.shard > 0}
    assert remote == {process.pid for process in shard_processes()}
    assert {shard.transport for shard in status.shards if shard.shard > 0} == {"unix"}


def test_the_verifier_itself_the_metrics_and_the_status_command_say_the_same(
    platform: Platform, client: Client
) -> None:
    list(open_stream(client, 0, NUM_TOKENS))
    status = experts_of(client)
    (verifier,) = replica_processes("Verifier")
    answers = []
    for each in verifier.net_connections("inet"):
        if each.status == "LISTEN" and each.laddr.ip.endswith("127.0.0.1"):
            with grpc.insecure_channel(f"127.0.0.1:{each.laddr.port}") as channel:
                stub = verifier_pb2_grpc.VerifierServiceStub(channel)
                answers.append(stub.GetVerifierLoad(verifier_pb2.GetVerifierLoadRequest(), timeout=5))
    (own,) = answers
    assert own.experts.layers == status.layers
    assert own.experts.epoch == status.epoch > 0

    def metrics() -> dict[str, float]:
        lines = [line for line in httpx.get(f"{platform.http_url}/metrics").text.splitlines() if line[:1] != "#"]
        return {name.split("{")[0]: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    eventually(lambda: metrics().get("zenray_expert_shard_pairs_total"), "the shards' work is counted")
    assert metrics()["zenray_experts_epoch"] == status.epoch
    assert metrics()["zenray_experts_unavailable"] == 0

    shown = CliRunner().invoke(app, ["status", "--json", "--address", platform.grpc_address])
    (experts,) = json.loads(shown.stdout)["experts"]
    assert experts["epoch"] == status.epoch
    assert [shard["pid"] for shard in experts["shards"]] == [shard.report.pid for shard in status.shards]
    drawn = CliRunner().invoke(app, ["status", "--address", platform.grpc_address]).stdout
    assert "2 layers of 8 experts, 2 spare copies" in drawn
    for shard in status.shards:
        assert str(shard.report.pid) in drawn
