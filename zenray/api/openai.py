"""The HTTP door: OpenAI's `POST /v1/completions` and `GET /v1/models`, health and metrics.

Bodies are decoded by hand (`openai_request`), so a wrong one is 400 in OpenAI's error shape and never 422.
A body must say it is JSON: a web page cannot send that across origins without asking first, which keeps
pages a user happens to open away from a server on the loopback.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from zenray import __version__
from zenray.api.asgi import BodyLimit, ClientGone, EventStream, json_response, until_gone
from zenray.api.convert import new_request_id
from zenray.api.openai_request import OpenAIRequest, decode, renamed
from zenray.api.openai_response import ChoiceFolder, Shape, UsageSum
from zenray.api.service import CompletionService, ModelCard
from zenray.api.status import HttpStatus, as_zenray_error, http_status, openai_error
from zenray.api.stream import events_of
from zenray.api.validate import check_model
from zenray.config import RequestBoundsSettings
from zenray.context.request import TextPrompt, TokenPrompt
from zenray.engine.request import GenerateEvent, Started
from zenray.errors import InvalidRequest

MAX_CONCURRENT_PROMPTS = 16
"""Prompts of one list that run at once: enough to fill a batch, too few to fill the queue for others."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,96}")

Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(
    service: Callable[[], CompletionService],
    *,
    metrics: Callable[[], bytes | str] | None = None,
    max_request_bytes: int | None = None,
) -> FastAPI:
    """The whole HTTP application.

    `service` is called per request, so the application can be built before the service is. `metrics` gives
    the Prometheus text of this process.
    """
    app = FastAPI(title="zenray", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(build_router(service, metrics=metrics))
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_middleware(BodyLimit, max_bytes=max_request_bytes or RequestBoundsSettings().max_request_bytes)
    return app


def build_router(
    service: Callable[[], CompletionService], *, metrics: Callable[[], bytes | str] | None = None
) -> APIRouter:
    """The routes alone, for an application that brings its own body limit."""
    router = APIRouter()

    @router.post("/v1/completions", response_model=None)
    @_answered
    async def completions(request: Request) -> Response:
        return await _completions(request, service())

    @router.get("/v1/models", response_model=None)
    @_answered
    async def models(request: Request) -> Response:
        card = service().model_info()
        return json_response(HttpStatus(200, {"object": "list", "data": [_model_object(card)]}, {}))

    @router.get("/v1/models/{name:path}", response_model=None)
    @_answered
    async def model(request: Request) -> Response:
        card = service().model_info()
        check_model(request.path_params["name"], card)
        return json_response(HttpStatus(200, _model_object(card), {}))

    @router.api_route("/healthz", methods=["GET", "HEAD"], response_model=None)
    async def alive(request: Request) -> Response:
        """The process answers; says nothing of the verifiers."""
        return PlainTextResponse("ok\n")

    @router.api_route("/readyz", methods=["GET", "HEAD"], response_model=None)
    @_answered
    async def ready(request: Request) -> Response:
        """A completion sent now would be served."""
        await service().check_ready()
        return PlainTextResponse("ready\n")

    @router.get("/metrics", response_model=None)
    @_answered
    async def measured(request: Request) -> Response:
        return Response(metrics() if metrics else b"", media_type=METRICS_TYPE)

    return router


def _answered(endpoint: Endpoint) -> Endpoint:
    """`endpoint` with every error turned into its HTTP status."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ClientGone:
            return Response(status_code=499)
        except Exception as error:
            return json_response(http_status(as_zenray_error(error)))

    return answer


async def _http_exception(request: Request, error: Exception) -> Response:
    """Unknown paths and methods in the shape of every other error."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = openai_error(message, "invalid_request_error", None, None)
    return json_response(HttpStatus(error.status_code, body, error.headers or {}))


def _model_object(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "zenray",
        "max_model_len": card.context_length,
    }


async def _completions(request: Request, service: CompletionService) -> Response:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        message = "content-type must be application/json"
        body = openai_error(message, "invalid_request_error", "content-type", "unsupported_media_type")
        return json_response(HttpStatus(415, body, {}))
    given_id = request.headers.get("x-request-id", "")
    request_id = given_id if _REQUEST_ID.fullmatch(given_id) else new_request_id()
    card = service.model_info()
    wanted = decode(await request.body(), card, request_id)
    shape = Shape(
        id=f"cmpl-{request_id}",
        created=int(time.time()),
        model=card.name,
        num_choices=wanted.requests[0].sampling.n,
        logprobs=wanted.requests[0].sampling.logprobs is not None,
        tokenizer=service.tokenizer,
    )
    headers = {"x-request-id": request_id}
    if ignored := [name for name in wanted.ignored if name.isascii() and name.isidentifier()]:
        headers["x-zenray-ignored-fields"] = ",".join(ignored)[:256]
    if wanted.stream:
        return EventStream(_chunks(service, wanted, shape), headers)
    whole = await until_gone(request.receive, _whole(service, wanted, shape))
    return Response(whole, media_type="application/json", headers=headers)


async def _whole(service: CompletionService, wanted: OpenAIRequest, shape: Shape) -> bytes:
    folders, usage = _folders(service, wanted, shape), UsageSum()
    choices: list[dict[str, Any]] = []
    async with aclosing(_events(service, wanted)) as events:
        async for i, event in events:
            usage.add(event)
            if isinstance(event, Started):
                folders[i].start(event)
            elif choice := folders[i].fold(event):
                choices.append(choice)
    choices.sort(key=lambda choice: int(choice["index"]))
    return shape.envelope(choices, usage.as_dict(), show_usage=True)


async def _chunks(service: CompletionService, wanted: OpenAIRequest, shape: Shape) -> AsyncGenerator[bytes, None]:
    folders, usage = _folders(service, wanted, shape), UsageSum()
    async with aclosing(_events(service, wanted)) as events:
        async for i, event in events:
            usage.add(event)
            if isinstance(event, Started):
                folders[i].start(event)
            elif choice := folders[i].chunk(event):
                yield shape.envelope([choice], None, show_usage=wanted.include_usage)
    if wanted.include_usage:
        yield shape.envelope([], usage.as_dict(), show_usage=True)
    yield b"[DONE]"


def _folders(service: CompletionService, wanted: OpenAIRequest, shape: Shape) -> list[ChoiceFolder]:
    folders = []
    for i, request in enumerate(wanted.requests):
        echoed = ""
        if wanted.echo and isinstance(request.input, TextPrompt):
            echoed = request.input.text
        elif wanted.echo and isinstance(request.input, TokenPrompt):
            echoed = service.tokenizer.decode(request.input.token_ids)
        folders.append(ChoiceFolder(shape, i, echoed))
    return folders


async def _events(service: CompletionService, wanted: OpenAIRequest) -> AsyncGenerator[tuple[int, GenerateEvent], None]:
    """The events of all prompts with the prompt's index, as they come; a failure of one ends them all."""
    if len(wanted.requests) == 1:
        async with aclosing(_prompt_events(service, wanted, 0)) as events:
            async for event in events:
                yield 0, event
        return
    queue: asyncio.Queue[tuple[int, GenerateEvent] | None] = asyncio.Queue(maxsize=MAX_CONCURRENT_PROMPTS)
    slots = asyncio.Semaphore(MAX_CONCURRENT_PROMPTS)

    async def run(i: int) -> None:
        async with slots, aclosing(_prompt_events(service, wanted, i)) as events:
            async for event in events:
                await queue.put((i, event))

    async def run_all() -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(len(wanted.requests)):
                group.create_task(run(i))

    def wake(_: asyncio.Task[None]) -> None:
        if not queue.full():  # A full queue wakes the reader by itself.
            queue.put_nowait(None)

    runner = asyncio.create_task(run_all())
    runner.add_done_callback(wake)
    try:
        while not (runner.done() and queue.empty()):
            item = await queue.get()
            if item is not None:
                yield item
        await runner
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    finally:
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)


async def _prompt_events(
    service: CompletionService, wanted: OpenAIRequest, i: int
) -> AsyncGenerator[GenerateEvent, None]:
    """Events of prompt i; a prompt the context cannot take is named as the caller named it."""
    try:
        async with aclosing(events_of(service, wanted.requests[i])) as events:
            async for event in events:
                yield event
    except InvalidRequest as error:
        raise InvalidRequest(renamed(error.violations, wanted.prompt_fields[i])) from error
