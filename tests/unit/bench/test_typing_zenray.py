"""Our own door under a typing session: real gRPC and a real session store, a service that says the text's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from zenray.api.grpc_server import build_server
from zenray.api.service import ModelCard
from zenray.bench.typing_replay import Began, SuggestionRecord, replay
from zenray.bench.typing_sessions import Edited, Moved, Opened, TypingSession
from zenray.bench.typing_zenray import ZenrayTarget
from zenray.config import ContextSettings, RequestBoundsSettings
from zenray.context.document_events import DocumentEdited, DocumentEvent, RangeViewed, SessionEnded
from zenray.context.request import CompletionRequest, TrackedEditor
from zenray.context.sessions import SessionStore
from zenray.engine.request import Delta, Final, FinishReason, GenerateEvent, Started, Timings, Usage
from zenray.model.tokenizer import ByteTokenizer

KEYS = [Edited(200 * number, "a.py", number + 2, number, 0, "abc"[number]) for number in range(3)]
SESSION = TypingSession(
    "t",
    "",
    "",
    0,
    (Opened(0, "a.py", "python", "!\n"), *KEYS[:2], Moved(300, "a.py", 0), Moved(350, "a.py", 2), KEYS[2]),
)


class Service:
    """Says what stands before the cursor. It may lose an edit on the way, as a server that was restarted does."""

    def __init__(self, lose: int = -1) -> None:
        self.tokenizer = ByteTokenizer()
        self.sessions = SessionStore(ContextSettings(version_wait_ms=20))
        self.events: list[DocumentEvent] = []
        self.lose = lose

    def model_info(self) -> ModelCard:
        return ModelCard("m", "toy", "float32", 1, 256, 256, True, 0, RequestBoundsSettings())

    async def apply_document_event(self, session_id: str, event: DocumentEvent) -> None:
        self.events.append(event)
        if len(self.events) - 1 != self.lose:
            self.sessions.apply(session_id, event)

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
        assert isinstance(request.input, TrackedEditor)
        editor = await self.sessions.resolve_soon(request.session_id, request.input)
        text = editor.text[: editor.cursor_offset]
        yield Started(10, 8)
        yield Delta(0, text, (1,))
        yield Final(0, text, FinishReason.EOS, Usage(10, 1, 8, 1), Timings(0.0, 1.0, 2.0))


@asynccontextmanager
async def serving(service: Any) -> AsyncIterator[ZenrayTarget]:
    server = build_server(service)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    target = ZenrayTarget(f"127.0.0.1:{port}", 32)
    await target.open()
    try:
        yield target
    finally:
        await target.close()
        await server.stop(None)


def replayed(service: Service) -> list[SuggestionRecord]:
    async def run() -> list[SuggestionRecord]:
        async with serving(service) as target:
            return await replay(SESSION, target, "s")

    return asyncio.run(run())


def test_the_server_is_kept_in_step_key_by_key() -> None:
    service = Service()
    records = replayed(service)
    assert [record.error for record in records] == ["", "", ""]
    assert ["".join(arrival.text for arrival in record.arrivals) for record in records] == ["a", "ab", "abc"]
    assert records[0].began == Began(10, 8) and records[0].ended is not None
    assert records[0].ended.completion_tokens == 1
    assert sum(isinstance(event, DocumentEdited) for event in service.events) == 3
    assert sum(isinstance(event, RangeViewed) for event in service.events) == 2
    assert isinstance(service.events[-1], SessionEnded) and len(service.sessions) == 0


def test_a_server_that_lost_an_edit_gets_the_document_whole() -> None:
    service = Service(lose=5)  # the last key: opened, two keys, two looks, and this
    records = replayed(service)
    assert [record.error for record in records] == ["", "", ""]
    assert "".join(arrival.text for arrival in records[-1].arrivals) == "abc"
