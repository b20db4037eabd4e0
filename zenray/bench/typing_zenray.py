"""zenray's own server under a typing session, as an editor's gateway would drive it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from zenray.bench.targets import Chunk, Ended
from zenray.bench.targets.grpc_door import ended
from zenray.bench.typing_replay import Began
from zenray.bench.typing_sessions import Edited, Event, Moment, Moved, Opened

if TYPE_CHECKING:
    from zenray.api.client import AsyncClient
    from zenray.v1.completion_pb2 import EditorState
    from zenray.v1.context_pb2 import UpdateDocumentsRequest

_TIMEOUT_S = 60.0
_SCREEN_LINES = 40


class ZenrayTarget:
    """Documents go ahead of the requests, change by change, on calls of their own; a request names the version it
    means. The server ends what a newer request makes useless."""

    supersedes = True
    one_at_a_time = False

    def __init__(self, address: str, max_tokens: int) -> None:
        self._address, self._max_tokens = address, max_tokens
        self._client: AsyncClient | None = None
        self._session: _Session | None = None

    async def open(self) -> None:
        from zenray.api.client import AsyncClient

        self._client = AsyncClient(self._address)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.end()
        if self._client is not None:
            await self._client.close()

    async def begin(self, session_id: str, opened: Sequence[Opened]) -> None:
        assert self._client is not None, "open first"
        if self._session is not None:
            await self._session.end()
        self._session = _Session(self._client, session_id)
        for document in opened:
            self._session.text(document.path, document.text, document.language)
        await self._session.sent()

    def see(self, event: Event) -> None:
        assert self._session is not None, "begin first"
        if isinstance(event, Moved):
            self._session.view(event.path, event.offset)
        elif isinstance(event, Edited):
            self._session.text(event.path, event.applied_to(self._session.texts[event.path]))

    async def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
        """Where the server's document is another one, it is sent whole and the request again: unless the user has gone
        on, whose next request does the same."""
        from zenray.errors import StaleDocument

        assert self._session is not None, "begin first"
        session, path = self._session, moment.document.path
        editor = session.sync.editor(path, moment.edit.cursor)
        for again in (False, True):
            try:
                async for item in self._complete(session.sync.session_id, editor):
                    yield item
                return
            except StaleDocument:
                if again:
                    raise
                if session.sync.editor(path, moment.edit.cursor) != editor:
                    yield Ended("OVERTAKEN")
                    return
                await session.send_whole(path)

    async def _complete(self, session_id: str, editor: EditorState) -> AsyncIterator[Began | Chunk | Ended]:
        from zenray.v1 import completion_pb2

        assert self._client is not None, "open first"
        request = completion_pb2.CompleteRequest(session_id=session_id, editor=editor)
        request.sampling.temperature = 0.0
        request.limits.max_tokens = self._max_tokens
        async with aclosing(self._client.complete(request, timeout_s=_TIMEOUT_S)) as events:
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "started":
                    yield Began(event.started.prompt_tokens, event.started.cached_tokens, event.started.reused)
                elif kind == "delta":
                    yield Chunk(event.delta.text, event.delta.token_count)
                elif kind == "final":
                    yield ended(event.final, event.final.usage.cached_tokens)


class _Session:
    """The editor's side of one session: what the server should know, sent in order, in the background."""

    def __init__(self, client: AsyncClient, session_id: str) -> None:
        from zenray.api.document_sync import DocumentSync

        self.sync = DocumentSync(session_id)
        self.texts: dict[str, str] = {}
        self._client = client
        self._queue: asyncio.Queue[list[UpdateDocumentsRequest]] = asyncio.Queue()
        self._sender = asyncio.create_task(self._send())

    def text(self, path: str, text: str, language: str = "") -> None:
        self.texts[path] = text
        self._queue.put_nowait(self.sync.edited(path, text, language))

    def view(self, path: str, offset: int) -> None:
        """The lines around the cursor are on the screen."""
        from zenray.api.convert_documents import event_to_proto
        from zenray.context.document_events import RangeViewed

        line = self.texts[path].count("\n", 0, offset)
        viewed = RangeViewed(path, max(0, line - _SCREEN_LINES // 2), line + _SCREEN_LINES // 2)
        self._queue.put_nowait([event_to_proto(viewed, self.sync.session_id)])

    async def send_whole(self, path: str) -> None:
        self._queue.put_nowait([self.sync.whole(path)])
        await self.sent()

    async def sent(self) -> None:
        """Until the server has everything. Raises what made it refuse."""
        waiting = asyncio.create_task(self._queue.join())
        await asyncio.wait((waiting, self._sender), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._sender.done():
            await self._sender

    async def end(self) -> None:
        self._queue.put_nowait([self.sync.ended()])
        try:
            await self.sent()
        finally:
            self._sender.cancel()

    async def _send(self) -> None:
        while True:
            events = await self._queue.get()
            await self._client.update_documents(events)
            self._queue.task_done()
