"""zenray's own server under a typing session, as an editor's gateway would drive it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from zenray.bench.targets import Chunk, Ended
from zenray.bench.typing_replay import Began
from zenray.bench.typing_sessions import Event, Moment, Opened

if TYPE_CHECKING:
    from zenray.api.client import AsyncClient

_TIMEOUT_S = 60.0


class ZenrayTarget:
    """Whole texts with every request; the server ends what a newer request makes useless."""

    supersedes = True

    def __init__(self, address: str, max_tokens: int) -> None:
        self._address, self._max_tokens = address, max_tokens
        self._client: AsyncClient | None = None
        self._session_id = ""

    async def open(self) -> None:
        from zenray.api.client import AsyncClient

        self._client = AsyncClient(self._address)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def begin(self, session_id: str, opened: Sequence[Opened]) -> None:
        self._session_id = session_id

    def see(self, event: Event) -> None:
        """The next request tells."""

    async def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
        from zenray.v1 import common_pb2, completion_pb2

        assert self._client is not None, "open first"
        request = completion_pb2.CompleteRequest(session_id=self._session_id)
        editor = request.editor
        editor.path, editor.language = moment.document.path, moment.document.language
        editor.text = moment.document.text
        editor.cursor.offset, editor.cursor.unit = moment.edit.cursor, completion_pb2.POSITION_UNIT_CODE_POINT
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
                    final = event.final
                    yield Ended(
                        common_pb2.FinishReason.Name(final.finish_reason).removeprefix("FINISH_REASON_"),
                        final.usage.prompt_tokens,
                        final.usage.cached_tokens,
                        final.usage.completion_tokens,
                        final.timings.first_token_ms,
                    )
