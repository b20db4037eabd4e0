"""Sessions through the door: events applied in order, requests for their documents, errors that say what to send."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest

from zenray.api.client import AsyncClient, CallFailed, Client
from zenray.api.convert_documents import event_to_proto
from zenray.api.document_sync import DocumentSync
from zenray.api.grpc_server import build_server
from zenray.config import RequestBoundsSettings
from zenray.context.cursors import OffsetPosition, PositionUnit
from zenray.context.document_events import (
    ClipboardCopied,
    DocumentClosed,
    DocumentEdited,
    DocumentEvent,
    DocumentOpened,
    RangeViewed,
    SessionEnded,
    TextEdit,
)
from zenray.context.pieces import ContextSource, Snippet
from zenray.context.suggestion.outcomes import Outcome, OutcomeReport
from zenray.errors import StaleDocument
from zenray.v1 import completion_pb2, context_pb2, context_pb2_grpc

Request = completion_pb2.CompleteRequest
WHOLE_TOKENS = completion_pb2.SuggestionOptions(heal_tokens=False)


@pytest.fixture
async def address(service: Any) -> AsyncIterator[str]:
    server = build_server(service)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address) as client:
        yield client


@pytest.fixture
async def stub(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield context_pb2_grpc.ContextServiceStub(channel)


def messages(*events: DocumentEvent, session_id: str = "s") -> list[context_pb2.UpdateDocumentsRequest]:
    """The session is named once, as a stream does."""
    return [event_to_proto(event, session_id if i == 0 else "") for i, event in enumerate(events)]


def typed(path: str, base: int, at: int, text: str) -> DocumentEdited:
    edit = TextEdit(OffsetPosition(at), OffsetPosition(at), PositionUnit.CODE_POINT, text)
    return DocumentEdited(path, base, base + 1, (edit,))


def request_at(version: int, offset: int, text: str = "", session_id: str = "s") -> Request:
    tracked = completion_pb2.TrackedDocument(version=version)
    if text:
        tracked.content_hash = hashlib.sha256(text.encode()).hexdigest()
    editor = completion_pb2.EditorState(path="a.py", cursor=completion_pb2.Cursor(offset=offset), tracked=tracked)
    return Request(session_id=session_id, editor=editor, suggestion=WHOLE_TOKENS)


async def test_a_request_for_a_document_of_its_session(client: AsyncClient, service: Any) -> None:
    opened = DocumentOpened("a.py", "", "def f(\n", 1)
    assert await client.update_documents(messages(opened, typed("a.py", 1, 6, "x)"))) == 2
    prompt = await client.assemble(request_at(2, 6, "def f(x)\n"))
    assert prompt.prompt == "<|fim_prefix|>def f(<|fim_suffix|>x)\n<|fim_middle|>"
    response = await client.complete_once(request_at(2, 6, "def f(x)\n"))
    assert response.usage.prompt_tokens == len(prompt.token_ids)


async def test_every_kind_of_event_reaches_the_session(client: AsyncClient, service: Any) -> None:
    events = [
        DocumentOpened("a.py", "", "a\n", 1),
        DocumentOpened("b.py", "cython", "b\n", 1),
        typed("b.py", 1, 0, "x"),
        RangeViewed("a.py", 0, 1),
        ClipboardCopied("copied"),
    ]
    assert await client.update_documents(messages(*events)) == 5
    around = service.sessions.surroundings("s", "a.py")
    assert [(document.language, document.text) for document in around.documents] == [("cython", "xb\n")]
    assert (around.edits[0].after, around.viewed[0].end_line, around.clipboard) == ("xb\n", 1, "copied")
    await client.update_documents(messages(DocumentClosed("b.py")))
    assert service.sessions.surroundings("s", "a.py").documents == ()
    await client.update_documents(messages(SessionEnded()))
    assert len(service.sessions) == 0


async def test_a_stream_may_name_one_session_after_the_other(client: AsyncClient, service: Any) -> None:
    first = messages(DocumentOpened("a.py", "", "1", 1), session_id="s")
    second = messages(DocumentOpened("a.py", "", "2", 1), typed("a.py", 1, 1, "2"), session_id="t")
    assert await client.update_documents(first + second) == 3
    assert service.sessions.surroundings("t", "").documents[0].text == "22"
    assert await client.update_documents([]) == 0


async def test_a_stale_document_says_what_to_send_and_what_came_before_stays(client: AsyncClient, service: Any) -> None:
    events = messages(DocumentOpened("a.py", "", "ab", 1), typed("a.py", 5, 0, "x"), typed("a.py", 1, 0, "never"))
    with pytest.raises(StaleDocument) as raised:
        await client.update_documents(events)
    error = raised.value
    assert (error.path, error.found) == ("a.py", "at version 1, not at 5")
    assert str(error) == "document 'a.py': at version 1, not at 5; send it whole, as DocumentOpened"
    assert service.sessions.surroundings("s", "").documents[0].text == "ab"
    for call in (client.complete_once(request_at(4, 0)), client.assemble(request_at(1, 0, "other text"))):
        with pytest.raises(StaleDocument, match=r"a\.py"):
            await call
    with pytest.raises(StaleDocument, match="not open"):
        await anext(client.complete(request_at(1, 0, session_id="unknown")))


async def test_the_blocking_client_speaks_the_same(address: str, service: Any) -> None:
    def use() -> int:
        with Client(address) as client:
            client.update_documents(messages(DocumentOpened("a.py", "", "ab", 1)))
            with pytest.raises(StaleDocument, match="at version 1, not at 2"):
                client.complete_once(request_at(2, 0))
            assert client.assemble(request_at(1, 1)).prompt == "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
            outcome = completion_pb2.ReportOutcomeRequest(request_id="r", outcome=completion_pb2.OUTCOME_SHOWN)
            client.report_outcome(outcome)
            return client.prefetch(request_at(1, 2))

    assert await asyncio.to_thread(use) == 5
    assert service.outcomes == [OutcomeReport("r", Outcome.SHOWN)]


BAD_EVENTS = [
    (context_pb2.UpdateDocumentsRequest(session_id="s"), "event"),
    (event_to_proto(DocumentClosed("a.py")), "session_id"),
    (event_to_proto(DocumentClosed("a.py"), "s" * 129), "session_id"),
    (event_to_proto(DocumentClosed("../a.py"), "s"), "closed.path"),
    (event_to_proto(DocumentOpened("b.py", "", "x" * 5_000_000, 1), "s"), "request"),
    (event_to_proto(typed("a.py", 1, 3, ""), "s"), "edited.edits[0].start.offset"),
    (event_to_proto(DocumentOpened("a.py", "", "x", 1, "0" * 64), "s"), "opened.content_hash"),
]


@pytest.mark.parametrize(("message", "field"), BAD_EVENTS, ids=[field for _, field in BAD_EVENTS])
async def test_a_bad_event_names_its_field_and_changes_nothing(
    client: AsyncClient, service: Any, message: context_pb2.UpdateDocumentsRequest, field: str
) -> None:
    await client.update_documents(messages(DocumentOpened("a.py", "", "ab", 1)))
    before = service.sessions.surroundings("s", "").documents
    with pytest.raises(CallFailed) as raised:
        await client.update_documents([message])
    assert raised.value.code == "INVALID_ARGUMENT"
    assert [name for name, _ in raised.value.violations] == [field]
    assert service.sessions.surroundings("s", "").documents == before


async def test_a_stream_that_breaks_leaves_what_was_applied(stub: Any, service: Any) -> None:
    call = stub.UpdateDocuments()
    for message in messages(DocumentOpened("a.py", "", "ab", 1), typed("a.py", 1, 2, "c")):
        await call.write(message)
    await service.all_applied(2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert service.sessions.surroundings("s", "").documents[0].text == "abc"


async def test_a_stream_that_falls_silent_is_ended_and_its_session_kept(stub: Any, service: Any) -> None:
    service.bounds = RequestBoundsSettings(max_deadline_ms=50)
    call = stub.UpdateDocuments()
    await call.write(messages(DocumentOpened("a.py", "", "ab", 1))[0])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asyncio.wait_for(call, 10)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no event for 50 ms" in raised.value.details()
    assert service.sessions.surroundings("s", "").documents[0].text == "ab"


async def test_a_stream_has_so_many_events_at_most(client: AsyncClient, service: Any) -> None:
    service.bounds = RequestBoundsSettings(max_stream_events=3)
    copied = [ClipboardCopied(str(i)) for i in range(9)]
    assert await client.update_documents(messages(*copied[:3])) == 3
    with pytest.raises(CallFailed, match="at most 3 events in one stream"):
        await client.update_documents(messages(*copied))
    assert service.sessions.surroundings("s", "").clipboard == "2"


async def test_unexpected_errors_say_nothing_of_the_inside(client: AsyncClient, service: Any) -> None:
    service.event_error = service.error = KeyError("secret")
    outcome = completion_pb2.ReportOutcomeRequest(request_id="r", outcome=completion_pb2.OUTCOME_SHOWN)
    for call in (client.update_documents(messages(ClipboardCopied("x"))), client.report_outcome(outcome)):
        with pytest.raises(CallFailed) as raised:
            await call
        assert raised.value.code == "INTERNAL"
        assert "secret" not in raised.value.message


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (request_at(1, 0, session_id=""), "session_id"),
        (
            Request(session_id="s", editor=completion_pb2.EditorState(path="/a", tracked={}, cursor={"offset": 0})),
            "editor.path",
        ),
        (
            Request(session_id="s", editor={"path": "a", "text": "x", "tracked": {}, "cursor": {"offset": 0}}),
            "editor.text",
        ),
        (
            Request(session_id="s", editor={"path": "a", "tracked": {"content_hash": "xyz"}, "cursor": {"offset": 0}}),
            "editor.tracked.content_hash",
        ),
        (Request(prompt="x", snippets=[{"text": "y"}]), "snippets"),
        (Request(editor={"cursor": {"offset": 0}}, snippets=[{"text": "y"}] * 65), "snippets"),
        (Request(editor={"cursor": {"offset": 0}}, snippets=[{"text": "y" * 300_000}]), "snippets"),
        (Request(editor={"cursor": {"offset": 0}}, snippets=[{"text": "y", "path": "../y"}]), "snippets[0].path"),
        (
            Request(editor={"cursor": {"offset": 0}}, snippets=[{"text": "y", "start_line": 2**32 - 1}]),
            "snippets[0].start_line",
        ),
    ],
)
async def test_a_bad_request_for_a_document_names_its_field(
    client: AsyncClient, request_message: Request, field: str
) -> None:
    for call in (client.complete_once(request_message), client.prefetch(request_message)):
        with pytest.raises(CallFailed) as raised:
            await call
        assert raised.value.code == "INVALID_ARGUMENT"
        assert field in [name for name, _ in raised.value.violations]


async def test_snippets_arrive(client: AsyncClient, service: Any) -> None:
    snippets = [{"path": "b.py", "text": "def g(): ...\n", "start_line": 4}]
    await client.complete_once(Request(editor={"path": "a.py", "cursor": {"offset": 0}}, snippets=snippets))
    assert service.requests[0].snippets == (Snippet(ContextSource.SNIPPET, "b.py", "def g(): ...\n", 4),)


async def test_a_prefetch_is_a_request_of_a_session(client: AsyncClient, service: Any) -> None:
    assert await client.prefetch(Request(prompt="x", session_id="s"), timeout_s=5) == 5
    assert 1000 < service.requests[0].limits.deadline_ms < 5000
    with pytest.raises(CallFailed, match="session_id"):
        await client.prefetch(Request(prompt="x"))
    with pytest.raises(StaleDocument):
        await client.prefetch(request_at(1, 0))


async def test_outcomes_are_reported(client: AsyncClient, service: Any) -> None:
    report = completion_pb2.ReportOutcomeRequest(
        request_id="r",
        session_id="s",
        index=7,
        outcome=completion_pb2.OUTCOME_PARTLY_ACCEPTED,
        accepted_characters=12,
        elapsed_ms=900,
        language="python",
    )
    await client.report_outcome(report)
    assert service.outcomes == [OutcomeReport("r", Outcome.PARTLY_ACCEPTED, "s", 7, 12, 900, "python")]
    bad = completion_pb2.ReportOutcomeRequest(session_id="\n", index=8, language="x" * 65)
    with pytest.raises(CallFailed) as raised:
        await client.report_outcome(bad)
    assert [name for name, _ in raised.value.violations] == ["outcome", "request_id", "session_id", "language", "index"]


async def test_no_bytes_of_a_stream_are_ever_an_internal_error(address: str, service: Any) -> None:
    """Mutations of good events, so that many of them parse and apply."""
    good = messages(DocumentOpened("a.py", "", "def f(\n", 1), typed("a.py", 1, 6, "é🙂"), RangeViewed("a.py", 0, 1))
    random, seen = Random(0), set()
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        update = channel.stream_unary("/zenray.v1.ContextService/UpdateDocuments")
        for _ in range(300):
            stream = [bytearray(message.SerializeToString()) for message in good]
            for _ in range(random.randint(0, 3)):
                mutated = random.choice(stream)
                mutated[random.randrange(len(mutated))] = random.randrange(256)
            try:
                await update(iter([bytes(message) for message in stream]))
                seen.add(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                seen.add(error.code())
    allowed = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
    assert seen == allowed
    assert service.sessions.num_bytes <= 512 * 1024 * 1024


def edit_story(num_edits: int) -> Iterator[str]:
    """One text after the other, as typing, deleting and pasting make them."""
    random, text = Random(1), "def f(x):\r\n    return 'ü🙂'\r\n"
    for _ in range(num_edits):
        start = random.randint(0, len(text))
        end = min(len(text), start + random.choice([0, 0, 0, 1, 5]))
        text = text[:start] + random.choice(["a", "\n", "漢🙂", "    pass\r\n", ""]) + text[end:]
        yield text


async def test_the_clients_side_keeps_in_step_and_recovers(client: AsyncClient, service: Any) -> None:
    sync, num_recovered = DocumentSync("s"), 0
    for i, text in enumerate(edit_story(60)):
        if i % 20 == 10:
            service.sessions.end("s")
        await sync.update_async(client, "a.py", text)
        if i % 20 == 19:
            service.sessions.end("s")
        request = Request(session_id="s", editor=sync.editor("a.py", len(text)), suggestion=WHOLE_TOKENS)
        try:
            await client.assemble(request)
        except StaleDocument:
            num_recovered += 1
            await client.update_documents([sync.whole("a.py")])
            await client.assemble(request)
        assert service.sessions.surroundings("s", "").documents[0].text == text
    assert num_recovered >= 3
    assert [message.WhichOneof("event") for message in sync.edited("a.py", text + "x")] == ["edited"]
    assert sync.edited("a.py", text + "x") == []
    assert len(sync.edited("a.py", text + "xy")[0].SerializeToString()) < 150
    await client.update_documents([sync.whole("a.py"), sync.closed("a.py")])
    assert service.sessions.surroundings("s", "").documents == ()
    assert sync.edited("a.py", "new", "cython")[0].opened.language == "cython"
    assert [message.WhichOneof("event") for message in (sync.ended(), *sync.edited("a.py", "new"))] == [
        "ended",
        "opened",
    ]


async def test_the_blocking_side_recovers_too(address: str, service: Any) -> None:
    def use() -> None:
        sync = DocumentSync("s")
        with Client(address) as client:
            for text in ("one\n", "one\ntwo\n", "one\ntwo\n"):
                sync.update(client, "a.py", text)
            service.sessions.end("s")
            sync.update(client, "a.py", "three\n")

    await asyncio.to_thread(use)
    assert service.sessions.surroundings("s", "").documents[0].text == "three\n"
