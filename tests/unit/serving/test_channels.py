"""Pings find a replica that is stopped; one that merely has nothing to say must not take them for an attack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from zenray.serving.channels import CHANNEL_OPTIONS, SERVER_OPTIONS, bind
from zenray.v1 import draft_pb2, draft_pb2_grpc

HASTE = 20
"""All of the options' times are divided by this."""
QUIET_S = 6.0
"""gRPC calls pings an attack after four seconds at the earliest."""


def hastened(options: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
    return [(name, value // HASTE if name.endswith("_ms") else value) for name, value in options]


class Silent(draft_pb2_grpc.DraftServiceServicer):
    async def Draft(self, messages: AsyncIterator[Any], context: Any) -> None:
        async for _ in messages:
            pass


async def test_a_stream_may_be_silent_for_as_long_as_it_likes() -> None:
    server = grpc.aio.server(options=hastened(SERVER_OPTIONS))
    draft_pb2_grpc.add_DraftServiceServicer_to_server(Silent(), server)
    address = bind(server, "127.0.0.1")
    await server.start()
    async with grpc.aio.insecure_channel(address, options=hastened(CHANNEL_OPTIONS)) as channel:
        call = draft_pb2_grpc.DraftServiceStub(channel).Draft()
        await call.write(draft_pb2.DraftRequest())
        with pytest.raises(TimeoutError):  # Many pings later it is still open.
            await asyncio.wait_for(call.read(), QUIET_S)
    await server.stop(None)
