"""In local mode nothing on another machine is called, and whoever asks is told why."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing

import psutil
import pytest

from zenray.errors import ConfigError, Unavailable
from zenray.serving.directory import Endpoint
from zenray.serving.locality import LocalOnly, check_nodes_here, is_here
from zenray.serving.peers import Peers
from zenray.serving.verifier_client import VerifierClient
from zenray.v1 import verifier_pb2_grpc

ELSEWHERE = "192.0.2.7"  # an address of RFC 5737, which no machine has
HERE = Endpoint("here", "127.0.0.1:4000")
THERE = Endpoint("there", f"{ELSEWHERE}:4000")


def own_addresses() -> list[str]:
    interfaces = psutil.net_if_addrs().values()
    families = (socket.AF_INET, socket.AF_INET6)
    return [entry.address for entries in interfaces for entry in entries if entry.family in families]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_the_loopback_is_here(host: str) -> None:
    assert is_here(host)


def test_every_address_of_this_machine_is_here() -> None:
    assert own_addresses()
    assert all(is_here(address) for address in own_addresses())


@pytest.mark.parametrize(
    "host", [ELSEWHERE, "2001:db8::1", "[2001:db8::1]", "somewhere.example", "", "127.0.0.1.example"]
)
def test_anything_else_is_not(host: str) -> None:
    assert not is_here(host)


def test_a_cluster_with_other_machines_is_refused() -> None:
    check_nodes_here(["127.0.0.1", *own_addresses()])
    with pytest.raises(ConfigError, match=rf"context\.mode is local.*{ELSEWHERE}.*context\.mode=cloud"):
        check_nodes_here(["127.0.0.1", ELSEWHERE])


async def sets_of(*sets: list[Endpoint]) -> AsyncGenerator[list[Endpoint], None]:
    for endpoints in sets:
        yield endpoints
    await asyncio.Event().wait()


async def test_replicas_of_other_machines_are_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = LocalOnly(lambda: sets_of([HERE], [HERE, THERE], [THERE], []), "verifier")
    with caplog.at_level(logging.ERROR):
        async with aclosing(watch()) as sets:
            seen = [(await anext(sets), len(watch.refused)) for _ in range(4)]
    assert seen == [([HERE], 0), ([HERE], 1), ([], 1), ([], 0)]
    assert caplog.text.count(ELSEWHERE) == 1


async def test_no_connection_is_made_and_the_caller_learns_why() -> None:
    watch = LocalOnly(lambda: sets_of([THERE]), "verifier")
    peers = Peers(watch, verifier_pb2_grpc.VerifierServiceStub)
    client = VerifierClient(peers, 0, 0.0, lambda: watch.refused)
    await peers.start()
    try:
        async with asyncio.timeout(5):
            while not watch.refused:
                await asyncio.sleep(0)
        assert peers.listed() == []
        with pytest.raises(Unavailable, match=rf"verifier at {ELSEWHERE}:4000 is on another machine.*cloud"):
            client.check_available()
    finally:
        await peers.stop()
