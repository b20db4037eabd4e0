"""Draft replicas on the loopback, in one process: real gRPC, a model or a script, a listing to change. For tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from zenray.serving.channels import SERVER_OPTIONS, bind
from zenray.serving.directory import Endpoint
from zenray.serving.draft_service import DraftServicer
from zenray.serving.harness import WAIT_S
from zenray.speculative.draft_model import DraftModel
from zenray.v1 import common_pb2, draft_pb2, draft_pb2_grpc

Answer = Callable[[draft_pb2.DraftRequest], list[draft_pb2.DraftedPath]]


class ScriptedDrafts(draft_pb2_grpc.DraftServiceServicer):
    """A replica that says whatever `answer` makes of each message."""

    def __init__(self, vocab_size: int, answer: Answer) -> None:
        self._vocab_size, self._answer = vocab_size, answer
        self.heard: list[draft_pb2.DraftRequest] = []

    async def Draft(
        self, messages: AsyncIterator[draft_pb2.DraftRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[draft_pb2.DraftResponse]:
        async for message in messages:
            self.heard.append(message)
            yield draft_pb2.DraftResponse(paths=self._answer(message))

    async def GetDraftInfo(self, message: Any, context: grpc.aio.ServicerContext) -> draft_pb2.GetDraftInfoResponse:
        return draft_pb2.GetDraftInfoResponse(model=common_pb2.ModelInfo(vocab_size=self._vocab_size))


class Replicas:
    """Draft replicas on an event loop of their own, and the directory's view of them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-replicas")
        self._thread.start()
        self._servers: dict[str, grpc.aio.Server] = {}
        self._workers: dict[str, DraftServicer] = {}
        self._listed: list[Endpoint] = []
        self._watchers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def run(self, work: Awaitable[Any]) -> Any:
        """Runs on the replicas' loop and waits."""

        async def go() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(go(), self._loop).result(WAIT_S)

    def start(self, name: str, make_servicer: Callable[[], Any]) -> Any:
        """A server whose servicer is made on its loop; listed at once."""

        async def start() -> tuple[Any, str]:
            servicer = make_servicer()
            server = self._servers[name] = grpc.aio.server(options=SERVER_OPTIONS)
            draft_pb2_grpc.add_DraftServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
            address = bind(server, "127.0.0.1")
            await server.start()
            return servicer, address

        servicer, address = self.run(start())
        self._list([*self._listed, Endpoint(name, address)])
        return servicer

    def start_real(self, name: str, make_model: Callable[[], DraftModel]) -> DraftServicer:
        """One that drafts with a model."""

        def make() -> DraftServicer:
            model = make_model()
            info = common_pb2.ModelInfo(vocab_size=model.model.config.vocab_size)
            servicer = self._workers[name] = DraftServicer(model, info, name)
            servicer.start()
            return servicer

        started: DraftServicer = self.start(name, make)
        return started

    def start_scripted(self, name: str, answer: Answer, vocab_size: int) -> ScriptedDrafts:
        """One that says whatever `answer` makes of each message."""
        started: ScriptedDrafts = self.start(name, lambda: ScriptedDrafts(vocab_size, answer))
        return started

    def kill(self, name: str, unlist: bool = True) -> None:
        """Its streams break now; the directory hears of it with `unlist`."""
        self.run(self._servers.pop(name).stop(None))
        if name in self._workers:
            self.run(self._workers.pop(name).stop())
        if unlist:
            self._list([endpoint for endpoint in self._listed if endpoint.replica_id != name])

    async def watch(self) -> AsyncGenerator[list[Endpoint], None]:
        """As `zenray.serving.directory.watch`."""
        changed = asyncio.Event()
        self._watchers.append((asyncio.get_running_loop(), changed))
        while True:
            yield list(self._listed)
            await changed.wait()
            changed.clear()

    def shutdown(self) -> None:
        for name in list(self._servers):
            self.kill(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._loop.close()

    def _list(self, endpoints: list[Endpoint]) -> None:
        self._listed = endpoints
        for loop, changed in self._watchers:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)
