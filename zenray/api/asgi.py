"""ASGI pieces of the HTTP door: bounded bodies, and work that ends when its client has gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zenray.api.status import HttpStatus, as_zenray_error, http_status, openai_error
from zenray.api.validate import too_large

log = logging.getLogger(__name__)

T = TypeVar("T")

BODY_TIMEOUT_S = 30.0
_DRAIN_BYTES = 64 * 1024 * 1024
_DRAIN_TIMEOUT_S = 5.0


class ClientGone(Exception):
    """The client closed its connection; nobody reads an answer."""


class BodyLimit:
    """Reads each body before the application sees the request, within a number of bytes and seconds.

    A body beyond `max_bytes` is InvalidRequest, one not complete after `timeout_s` is 408. What an
    over-long body still sends is read and thrown away for a while: a client that is writing does not see
    an answer on a connection closed under it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                announced = _content_length(scope)
                more = announced <= self._max_bytes
                while more and len(body) <= self._max_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            late = openai_error(
                f"the body was not complete after {self._timeout_s:g} s", "invalid_request_error", "body", "timeout"
            )
            await json_response(HttpStatus(408, late, {"connection": "close"}))(scope, receive, send)
            return
        if max(announced, len(body)) > self._max_bytes:
            if more or announced > self._max_bytes:
                await _drain(receive)
            answer = http_status(too_large(max(announced, len(body)), self._max_bytes))
            await json_response(answer)(scope, receive, send)
            return

        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, replay, send)


def _content_length(scope: Scope) -> int:
    """What the client announced; 0 for nothing or nonsense (the server refuses nonsense itself)."""
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() and len(value) < 20 else 0


async def _drain(receive: Receive) -> None:
    drained = 0
    try:
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            while drained < _DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; cancelled, and ClientGone raised, when the client closes the connection first."""
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def json_response(status: HttpStatus) -> Response:
    return JSONResponse(status.body, status.code, dict(status.headers))


class EventStream(Response):
    """Server-sent events from an async generator of `data` payloads, closed as soon as the client has gone.

    The status waits for the first event, so an error before it is an ordinary HTTP error. A later one ends
    the stream with an event that holds OpenAI's error body, as its clients expect.
    """

    media_type = "text/event-stream"

    def __init__(self, payloads: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        self._payloads = payloads
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_gone(receive, self._stream(scope, receive, send))
        except (ClientGone, OSError):
            log.debug("the client of a stream has gone")

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        async with aclosing(self._payloads) as payloads:
            try:
                async for payload in payloads:
                    if not started:
                        started = True
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    await send(_body(b"data: " + payload + b"\n\n", more=True))
            except OSError:
                raise
            except Exception as error:
                answer = json_response(http_status(as_zenray_error(error)))
                if not started:
                    await answer(scope, receive, send)
                    return
                await send(_body(b"data: " + bytes(answer.body) + b"\n\n", more=False))
                return
        await send(_body(b"", more=False))


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
