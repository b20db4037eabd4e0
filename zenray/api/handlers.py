"""The gRPC services as plain functions over messages: no transport, errors raised as ZenrayError.

`grpc_server` puts them behind grpc.aio; a Ray Serve deployment calls them from its own methods and uses
`set_error` to turn a raised error into the call's status.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Protocol, cast

from grpc_health.v1 import health_pb2

from zenray.api import convert, convert_context, convert_documents, convert_outcomes
from zenray.api.service import CompletionService
from zenray.api.status import as_zenray_error, grpc_status
from zenray.api.stream import events_of, within_timeout
from zenray.api.validate import Violations, check_id, check_model, check_size, collect
from zenray.api.validate_documents import collect_event
from zenray.context.document_events import DocumentEvent
from zenray.context.request import CompletionRequest
from zenray.errors import DeadlineExceeded, InvalidRequest, NotFound, Quantity, ZenrayError
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

    async def update_documents(
        self, messages: AsyncIterator[context_pb2.UpdateDocumentsRequest]
    ) -> context_pb2.UpdateDocumentsResponse:
        """Applies the events as they come. Raises at the first that cannot be; those before it stay applied."""
        bounds = self._service.model_info().bounds
        session_id, num_events = "", 0
        while True:
            try:
                async with asyncio.timeout(bounds.max_deadline_ms / 1000):
                    message = await anext(messages)
            except StopAsyncIteration:
                return context_pb2.UpdateDocumentsResponse(events=num_events)
            except TimeoutError as error:
                raise DeadlineExceeded(f"no event for {bounds.max_deadline_ms} ms; the session is kept") from error
            if num_events == bounds.max_stream_events:
                number = Quantity(num_events + 1, "events")
                raise InvalidRequest.of("events", number, f"at most {num_events} events in one stream")
            session_id, event = self._decode_event(message, session_id)
            try:
                await self._service.apply_document_event(session_id, event)
            except Exception as error:
                raise as_zenray_error(error) from error
            num_events += 1

    async def prefetch(
        self, message: completion_pb2.PrefetchRequest, timeout_s: float | None = None
    ) -> completion_pb2.PrefetchResponse:
        request = self.decode(message.request)
        if not request.session_id:
            raise InvalidRequest.of("session_id", "", "the session whose next request this may be")
        try:
            num_tokens = await self._service.prefetch(within_timeout(request, timeout_s))
        except Exception as error:
            raise as_zenray_error(error) from error
        return completion_pb2.PrefetchResponse(completion_tokens=num_tokens)

    async def report_outcome(
        self, message: completion_pb2.ReportOutcomeRequest
    ) -> completion_pb2.ReportOutcomeResponse:
        report = convert_outcomes.outcome_from_proto(message, self._service.model_info())
        try:
            await self._service.report_outcome(report)
        except Exception as error:
            raise as_zenray_error(error) from error
        return completion_pb2.ReportOutcomeResponse()

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

    def _decode_event(self, message: context_pb2.UpdateDocumentsRequest, session_id: str) -> tuple[str, DocumentEvent]:
        """The session of a message, by default that of the one before, and its event."""
        check_size(message.ByteSize(), self._service.model_info())
        found = Violations()
        event = convert_documents.event_from_proto(message, found)
        check_id("session_id", message.session_id or session_id, found, required=True)
        collect_event(event, found)
        found.raise_if_any()
        return message.session_id or session_id, event


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
