"""The gRPC services as plain functions over messages: no transport, errors raised as ZenrayError.

`grpc_server` puts them behind grpc.aio; a Ray Serve deployment calls them from its own methods and uses
`set_error` to turn a raised error into the call's status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, cast

from grpc_health.v1 import health_pb2

from zenray.api import convert, convert_context
from zenray.api.service import CompletionService
from zenray.api.status import as_zenray_error, grpc_status
from zenray.api.stream import events_of, within_timeout
from zenray.api.validate import Violations, check_model, check_size, collect
from zenray.context.request import CompletionRequest
from zenray.errors import NotFound, ZenrayError
from zenray.v1 import completion_pb2, context_pb2

SERVICE_NAMES = ("zenray.v1.CompletionService", "zenray.v1.ContextService")
HEALTH_SERVICE_NAME = "grpc.health.v1.Health"
_WATCH_PERIOD_S = 1.0


class Handlers:
    """Every call of the public services over one CompletionService."""

    def __init__(self, service: CompletionService) -> None:
        self._service = service

    async def complete(
        self, message: completion_pb2.CompleteRequest, timeout_s: float | None = None
    ) -> AsyncGenerator[completion_pb2.CompleteEvent, None]:
        """Close the iterator to stop the work. `timeout_s` is what remains of the transport's own deadline."""
        request = within_timeout(self.decode(message), timeout_s)
        token_bytes = self._service.tokenizer.token_bytes
        async with aclosing(events_of(self._service, request)) as events:
            async for event in events:
                yield convert.event_to_proto(event, request.request_id, token_bytes)

    async def complete_once(
        self, message: completion_pb2.CompleteRequest, timeout_s: float | None = None
    ) -> completion_pb2.CompleteResponse:
        request = within_timeout(self.decode(message), timeout_s)
        response = convert.ResponseBuilder(request.request_id, self._service.tokenizer.token_bytes)
        async with aclosing(events_of(self._service, request)) as events:
            async for event in events:
                response.add(event)
        return response.build()

    async def get_model_info(self, message: completion_pb2.GetModelInfoRequest) -> completion_pb2.GetModelInfoResponse:
        card = self._service.model_info()
        check_model(message.model, card)
        return convert.card_to_proto(card)

    async def get_load(self, message: completion_pb2.GetLoadRequest) -> completion_pb2.GetLoadResponse:
        try:
            return convert.service_load_to_proto(await self._service.load())
        except Exception as error:
            raise as_zenray_error(error) from error

    async def assemble(self, message: context_pb2.AssembleRequest) -> context_pb2.AssembleResponse:
        request = self.decode(message.request)
        try:
            return convert_context.assembled_to_proto(await self._service.assemble(request))
        except Exception as error:
            raise as_zenray_error(error) from error

    async def health_check(self, message: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """Raises NotFound for a service that is not here, as the health protocol asks."""
        known = ("", *SERVICE_NAMES)
        if message.service not in known:
            raise NotFound("service", message.service, SERVICE_NAMES)
        return health_pb2.HealthCheckResponse(status=await self._serving_status())

    async def health_watch(
        self, message: health_pb2.HealthCheckRequest
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The status now and whenever it changes; SERVICE_UNKNOWN for a service that is not here."""
        last: int | None = None
        while True:
            status: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if message.service in ("", *SERVICE_NAMES):
                status = await self._serving_status()
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            last = status
            await asyncio.sleep(_WATCH_PERIOD_S)

    async def _serving_status(self) -> int:
        try:
            await self._service.check_ready()
        except ZenrayError:
            return cast(int, health_pb2.HealthCheckResponse.NOT_SERVING)
        return cast(int, health_pb2.HealthCheckResponse.SERVING)

    def decode(self, message: completion_pb2.CompleteRequest) -> CompletionRequest:
        """The validated request of a message. Raises InvalidRequest with every bad field, or NotFound."""
        card = self._service.model_info()
        check_size(message.ByteSize(), card)
        found = Violations()
        request = convert.request_from_proto(message, card, found)
        collect(request, card, found)
        found.raise_if_any()
        return request


class StatusContext(Protocol):
    """What a server's call context offers to set a status; grpc.aio's and Ray Serve's both do."""

    def set_code(self, code: object) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, bytes]]) -> None: ...


def set_error(context: StatusContext, error: BaseException) -> None:
    """Give a call the status of `error`, with its details; an unexpected error is logged and shown as INTERNAL."""
    status = grpc_status(as_zenray_error(error))
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata(list(status.trailing_metadata))
