"""Two deployments around an engine that costs nothing, connected in every way that was considered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc.aio

from zenray.v1 import completion_pb2, completion_pb2_grpc, verifier_pb2, verifier_pb2_grpc


async def stamps(request: verifier_pb2.GenerateRequest) -> AsyncGenerator[verifier_pb2.GenerateEvent, None]:
    """max_tokens chunks, one every deadline_ms, each holding the moment it was made."""
    due_s = time.monotonic()
    for _ in range(request.limits.max_tokens):
        delta = verifier_pb2.GenerateDelta(text=repr(time.monotonic()), token_ids=[1])
        yield verifier_pb2.GenerateEvent(delta=delta)
        due_s += request.limits.deadline_ms / 1000
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


class _VerifierServicer(verifier_pb2_grpc.VerifierServiceServicer):
    async def Generate(
        self, request: verifier_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[verifier_pb2.GenerateEvent, None]:
        async for event in stamps(request):
            yield event


class BenchVerifier:
    """Serves stamps on a socket of its own, or through its Serve handle."""

    async def __init__(self, inner: str, socket_path: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self.address = ""
        if inner in ("tcp", "unix"):
            self._server = grpc.aio.server()
            verifier_pb2_grpc.add_VerifierServiceServicer_to_server(_VerifierServicer(), self._server)  # type: ignore[no-untyped-call]
            if inner == "unix":
                self.address = f"unix:{socket_path}"
                self._server.add_insecure_port(self.address)
            else:
                self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
            await self._server.start()

    async def endpoint(self) -> str:
        return self.address

    async def generate(self, message: bytes) -> AsyncGenerator[bytes, None]:
        async for event in stamps(verifier_pb2.GenerateRequest.FromString(message)):
            yield event.SerializeToString()


class BenchAggregator:
    """Asks the verifier in one of four ways; behind its own server or Serve's proxy."""

    async def __init__(self, edge: str, inner: str, port: int, verifier: Any) -> None:  # type: ignore[misc]
        self._inner, self._verifier = inner, verifier
        if inner in ("tcp", "unix"):
            self._channel = grpc.aio.insecure_channel(await verifier.endpoint.remote())
            self._stub = verifier_pb2_grpc.VerifierServiceStub(self._channel)  # type: ignore[no-untyped-call]
        if edge == "own":
            self._server = grpc.aio.server()
            completion_pb2_grpc.add_CompletionServiceServicer_to_server(_Door(self), self._server)  # type: ignore[no-untyped-call]
            self._server.add_insecure_port(f"127.0.0.1:{port}")
            await self._server.start()

    async def Complete(
        self, request: completion_pb2.CompleteRequest
    ) -> AsyncGenerator[completion_pb2.CompleteEvent, None]:
        """What Serve's proxy calls."""
        message = verifier_pb2.GenerateRequest(prompt_token_ids=range(500), limits=request.limits)
        async for event in self._events(message):
            yield completion_pb2.CompleteEvent(delta=completion_pb2.Delta(text=event.delta.text, token_count=1))

    async def _events(self, message: verifier_pb2.GenerateRequest) -> AsyncGenerator[verifier_pb2.GenerateEvent, None]:
        if self._inner == "none":
            async for event in stamps(message):
                yield event
        elif self._inner == "handle":
            call = self._verifier.options(stream=True).generate.remote(message.SerializeToString())
            async for encoded in call:
                yield verifier_pb2.GenerateEvent.FromString(encoded)
        else:
            async for event in self._stub.Generate(message):
                yield event


class _Door(completion_pb2_grpc.CompletionServiceServicer):
    def __init__(self, aggregator: BenchAggregator) -> None:
        self._aggregator = aggregator

    async def Complete(
        self, request: completion_pb2.CompleteRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[completion_pb2.CompleteEvent, None]:
        async for event in self._aggregator.Complete(request):
            yield event
