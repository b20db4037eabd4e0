from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.bench.prompts import Prompt
from zenray.bench.targets import Call, Chunk, Ended, TargetFailed, remote_target
from zenray.bench.targets.openai_door import OpenAITarget
from zenray.bench.targets.sse import SseParser
from zenray.errors import ConfigError
from zenray.v1 import common_pb2, completion_pb2, completion_pb2_grpc

STREAM = (
    'data: {"a": "é"}\r\n\r\n: a comment\nevent: x\ndata: one\ndata:two\n\n\n\ndata:  three\r\rdata: [DONE]\n\n'
).encode()
EVENTS = ['{"a": "é"}', "one\ntwo", " three", "[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_come_out_whole_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = SseParser()
    events = [event for begin, end in itertools.pairwise(edges) for event in parser.feed(STREAM[begin:end])]
    assert events == EVENTS


def test_byte_by_byte() -> None:
    parser = SseParser()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: unfinished", []),
        (b"data: unfinished\n", []),
        (b"\xef\xbb\xbfdata: behind a byte order mark\n\n", ["behind a byte order mark"]),
        (b"data: broken \xff\n\n", ["broken \ufffd"]),
        (b"data\n\n", [""]),
        (b"id: 1\nretry: 5\n\n", []),
    ],
)
def test_odd_streams(stream: bytes, events: list[str]) -> None:
    assert SseParser().feed(stream) == events


@pytest.mark.parametrize("spec", ["", "127.0.0.1:9000", "ftp://host", "grpc://", "http:/host"])
def test_addresses_that_are_none(spec: str) -> None:
    with pytest.raises(ConfigError, match="allowed: grpc://HOST:PORT"):
        remote_target(spec)


Answer = Callable[[str, dict[str, Any] | None], tuple[int, list[bytes]]]


@asynccontextmanager
async def http_server(answer: Answer) -> AsyncIterator[str]:
    """A server on the loopback that answers (path, JSON body) with a status and pieces of a body."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.split("\r\n")
                        if line.lower().startswith("content-length")
                    ),
                    0,
                )
                body = json.loads(await reader.readexactly(length)) if length else None
                status, pieces = answer(head.split()[1], body)
                writer.write(f"HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n".encode())
                for piece in pieces:
                    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def models(path: str) -> tuple[int, list[bytes]] | None:
    return (200, [b'{"data": [{"id": "served-model"}]}']) if path.endswith("/models") else None


def event(**fields: Any) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


async def collect(target: OpenAITarget, call: Call) -> list[Chunk | Ended]:
    return [item async for item in target.stream(call)]


CALL = Call(Prompt("fim", "f", "before", "after"), max_tokens=7)


async def test_a_stream_of_chunks_with_usage() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(path: str, body: dict[str, Any] | None) -> tuple[int, list[bytes]]:
        if listed := models(path):
            return listed
        assert body is not None
        bodies.append(body)
        whole = (
            event(choices=[{"text": "de"}])
            + event(choices=[{"text": "f x", "finish_reason": None}])
            + event(choices=[{"text": "", "finish_reason": "length"}])
            + event(
                choices=[],
                usage={"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
            )
            + b"data: [DONE]\n\n"
        )
        return 200, [whole[:11], whole[11:40], whole[40:]]

    async with http_server(answer) as url:
        target = OpenAITarget(url)
        await target.open()
        items = await collect(target, CALL)
        await target.close()
    assert items == [Chunk("de", 1), Chunk("f x", 1), Ended("length", 5, 4, 3)]
    (body,) = bodies
    assert body["model"] == "served-model"
    assert (body["prompt"], body["suffix"], body["max_tokens"], body["temperature"]) == ("before", "after", 7, 0.0)
    assert body["ignore_eos"] is True


async def test_a_server_without_our_extras_is_asked_without_them() -> None:
    seen: list[set[str]] = []

    def answer(path: str, body: dict[str, Any] | None) -> tuple[int, list[bytes]]:
        if listed := models(path):
            return listed
        assert body is not None
        seen.append({"ignore_eos", "stream_options"} & set(body))
        unknown = next(iter(sorted(seen[-1])), None)
        if unknown:
            return 422, [f'{{"error": "unknown field {unknown}"}}'.encode()]
        return 200, [event(choices=[{"text": "x", "finish_reason": "stop"}]), b"data: [DONE]\n\n"]

    async with http_server(answer) as url:
        target = OpenAITarget(url + "/v1/")
        await target.open()
        assert await collect(target, CALL) == [Chunk("x", 1), Ended("stop")]
        assert await collect(target, CALL) == [Chunk("x", 1), Ended("stop")]
        await target.close()
    assert seen == [{"ignore_eos", "stream_options"}, {"stream_options"}, set(), set()]


@pytest.mark.parametrize(
    ("status", "pieces", "message"),
    [
        (500, [b"boom"], "answered 500: boom"),
        (400, [b"no such model"], "answered 400: no such model"),
        (200, [event(choices=[{"text": "x"}])], "broke off"),
        (200, [event(error={"message": "out of memory"})], "out of memory"),
        (200, [b"data: {half\n\n"], "not JSON"),
        (200, [b"data: [1]\n\n"], "not an object"),
    ],
)
async def test_streams_that_fail_say_why(status: int, pieces: list[bytes], message: str) -> None:
    async with http_server(lambda path, body: models(path) or (status, pieces)) as url:
        target = OpenAITarget(url)
        await target.open()
        with pytest.raises(TargetFailed, match=message):
            await collect(target, CALL)
        await target.close()


async def test_nobody_there() -> None:
    async with http_server(lambda path, body: (200, [])) as url:
        pass
    with pytest.raises(TargetFailed, match="nothing answers"):
        await OpenAITarget(url).open()


async def test_a_server_without_models_asks_for_a_name() -> None:
    async with http_server(lambda path, body: (200, [b'{"data": []}'])) as url:
        with pytest.raises(TargetFailed, match="--model"):
            await OpenAITarget(url).open()
        await OpenAITarget(url, "named").open()


class Scripted(completion_pb2_grpc.CompletionServiceServicer):
    """Three chunks and an end; remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[completion_pb2.CompleteRequest] = []

    async def GetModelInfo(self, request: Any, context: Any) -> completion_pb2.GetModelInfoResponse:
        return completion_pb2.GetModelInfoResponse()

    async def Complete(self, request: Any, context: Any) -> AsyncIterator[completion_pb2.CompleteEvent]:
        self.requests.append(request)
        event = completion_pb2.CompleteEvent
        yield event(started=completion_pb2.Started(prompt_tokens=9, cached_tokens=8))
        yield event(delta=completion_pb2.Delta(text="a", token_count=1))
        yield event(delta=completion_pb2.Delta(text="bc", token_count=2))
        final = completion_pb2.Final(text="abc", finish_reason=common_pb2.FINISH_REASON_LENGTH)
        final.usage.prompt_tokens, final.usage.completion_tokens = 9, 3
        final.timings.first_token_ms = 1.5
        yield event(final=final)


async def test_our_own_door() -> None:
    service = Scripted()
    server = grpc.aio.server()
    completion_pb2_grpc.add_CompletionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    target = remote_target(f"grpc://127.0.0.1:{port}/")
    await target.open()
    items = [[item async for item in target.stream(call)] for call in (CALL, Call(Prompt("short", "s", "text")))]
    await target.close()
    await server.stop(None)
    assert items == [[Chunk("a", 1), Chunk("bc", 2), Ended("LENGTH", 9, 8, 3, 1.5)]] * 2
    infill, plain = service.requests
    assert (infill.infill.prefix, infill.infill.suffix, infill.limits.max_tokens) == ("before", "after", 7)
    assert plain.prompt == "text" and plain.limits.ignore_eos and plain.sampling.temperature == 0


async def test_nobody_at_our_door() -> None:
    target = remote_target("grpc://127.0.0.1:1")
    with pytest.raises(TargetFailed, match="start a server with zenray serve"):
        await target.open()
