"""Verifier replicas on the loopback, in one process: real gRPC, any engine, a directory that is a list. For tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Self

import grpc.aio

from zenray.serving.channels import SERVER_OPTIONS, bind
from zenray.serving.directory import Endpoint
from zenray.serving.harness import WAIT_S
from zenray.serving.model_card import model_key
from zenray.serving.peers import Peers
from zenray.serving.verifier_client import VerifierClient
from zenray.serving.verifier_service import VerifierServicer
from zenray.v1 import common_pb2, verifier_pb2_grpc


class VerifierFleet:
    """Replicas that come and go, and a client of them. An engine is an `AsyncEngine` or what a test has instead."""

    def __init__(self, model: common_pb2.ModelInfo) -> None:
        self._model = model
        self._sets: asyncio.Queue[list[Endpoint]] = asyncio.Queue()
        self._servers: dict[str, grpc.aio.Server] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self.peers = Peers(self.watch, verifier_pb2_grpc.VerifierServiceStub)
        self.client = VerifierClient(self.peers, affinity_slack=4, failover_timeout_s=5.0)

    async def __aenter__(self) -> Self:
        await self.peers.start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.peers.stop()
        await asyncio.gather(*(server.stop(0) for server in self._servers.values()))

    async def add(self, replica_id: str, engine: Any) -> None:
        """Returns when the client knows the replica."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        servicer = VerifierServicer(engine, self._model, replica_id)
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        self._endpoints[replica_id] = Endpoint(replica_id, bind(server, "127.0.0.1"), model=model_key(self._model))
        self._servers[replica_id] = server
        await server.start()
        await self._publish()

    async def add_mute(self, replica_id: str) -> asyncio.Server:
        """A machine that takes connections and says nothing."""
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        self._endpoints[replica_id] = Endpoint(replica_id, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await self._publish()
        return server

    async def say(self, replica_id: str, unavailable: str) -> None:
        """What the replica tells the directory; empty is ready."""
        self._endpoints[replica_id] = replace(self._endpoints[replica_id], unavailable=unavailable)
        await self._publish()

    async def remove(self, replica_id: str) -> None:
        """From the directory; it goes on serving."""
        del self._endpoints[replica_id]
        await self._publish()

    async def kill(self, replica_id: str) -> None:
        """Ends its server and every call on it; the directory does not know."""
        await self._servers.pop(replica_id).stop(0)

    async def watch(self) -> AsyncGenerator[list[Endpoint], None]:
        """The directory. One watcher at a time hears of changes."""
        while True:
            yield await self._sets.get()

    async def _publish(self) -> None:
        self._sets.put_nowait(list(self._endpoints.values()))
        async with asyncio.timeout(WAIT_S):
            wanted = set(self._endpoints.values())
            while {peer.endpoint for peer in self.peers.listed()} != wanted:  # noqa: ASYNC110 - peers tell nobody
                await asyncio.sleep(0.001)
