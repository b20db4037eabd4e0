"""A grpc.aio server over `Handlers`: completion, context, health and reflection.

Requests are decoded here and not by the library, so that bytes that are no message answer
INVALID_ARGUMENT instead of INTERNAL; streams are written, not yielded, so that a client's cancel closes
the work at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from zenray.api.handlers import HEALTH_SERVICE_NAME, SERVICE_NAMES, Handlers
from zenray.api.service import CompletionService
from zenray.api.status import as_zenray_error, grpc_status
from zenray.errors import InvalidRequest
from zenray.v1 import completion_pb2, context_pb2

Unary = Callable[[Any, float | None], Awaitable[Message]]
Stream = Callable[[Any, float | None], AsyncGenerator[Message, None]]
ClientStream = Callable[[AsyncIterator[Any]], Awaitable[Message]]

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Larger than any allowed request: those beyond max_request_bytes get an error that says so.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"  # The same messages as v1alpha, which Python's library has.


def build_server(service: CompletionService) -> grpc.aio.Server:
    """A server with every public service, not yet bound to a port. Call it inside the running loop."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers(generic_handlers(Handlers(service)))
    return server


def generic_handlers(handlers: Handlers) -> tuple[grpc.GenericRpcHandler, ...]:
    """The handlers of all public services, health and reflection, to be added to a server."""
    completion = {
        "Complete": _stream(handlers.complete, completion_pb2.CompleteRequest),
        "CompleteOnce": _unary(handlers.complete_once, completion_pb2.CompleteRequest),
        "GetModelInfo": _unary(_untimed(handlers.get_model_info), completion_pb2.GetModelInfoRequest),
        "GetLoad": _unary(_untimed(handlers.get_load), completion_pb2.GetLoadRequest),
        "Prefetch": _unary(handlers.prefetch, completion_pb2.PrefetchRequest),
        "ReportOutcome": _unary(_untimed(handlers.report_outcome), completion_pb2.ReportOutcomeRequest),
    }
    context = {
        "Assemble": _unary(_untimed(handlers.assemble), context_pb2.AssembleRequest),
        "UpdateDocuments": _client_stream(handlers.update_documents, context_pb2.UpdateDocumentsRequest),
    }
    health = {
        "Check": _unary(_untimed(handlers.health_check), health_pb2.HealthCheckRequest),
        "Watch": _stream(lambda message, timeout_s: handlers.health_watch(message), health_pb2.HealthCheckRequest),
    }
    described = (*SERVICE_NAMES, HEALTH_SERVICE_NAME, reflection.SERVICE_NAME)
    reflect = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            reflection.aio.ReflectionServicer(described).ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    table = {
        SERVICE_NAMES[0]: completion,
        SERVICE_NAMES[1]: context,
        HEALTH_SERVICE_NAME: health,
        reflection.SERVICE_NAME: reflect,
        _REFLECTION_V1: reflect,
    }
    return tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in table.items())


def _untimed(call: Callable[[Any], Awaitable[Message]]) -> Unary:
    async def answer(message: Any, timeout_s: float | None) -> Message:
        return await call(message)

    return answer


def _unary(call: Unary, request_type: type[Message]) -> grpc.RpcMethodHandler:
    async def answer(request_bytes: bytes, context: grpc.aio.ServicerContext) -> Message | None:
        try:
            return await call(_decode(request_type, request_bytes), context.time_remaining())
        except Exception as error:
            await _abort(context, error)
            return None

    return grpc.unary_unary_rpc_method_handler(answer, response_serializer=_encode)


def _stream(call: Stream, request_type: type[Message]) -> grpc.RpcMethodHandler:
    async def answer(request_bytes: bytes, context: grpc.aio.ServicerContext) -> None:
        try:
            message = _decode(request_type, request_bytes)
            async with aclosing(call(message, context.time_remaining())) as replies:
                async for reply in replies:
                    await context.write(reply)
        except Exception as error:
            await _abort(context, error)

    return grpc.unary_stream_rpc_method_handler(answer, response_serializer=_encode)


def _client_stream(call: ClientStream, request_type: type[Message]) -> grpc.RpcMethodHandler:
    async def answer(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> Message | None:
        try:
            return await call(_decode(request_type, request_bytes) async for request_bytes in requests)
        except Exception as error:
            await _abort(context, error)
            return None

    return grpc.stream_unary_rpc_method_handler(answer, response_serializer=_encode)


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> None:
    """End the call with the status of `error`; grpc.aio's own errors (a closed call) pass unchanged."""
    if isinstance(error, grpc.aio.AioRpcError | grpc.aio.AbortError | grpc.aio.UsageError):
        raise error
    await context.abort_with_status(grpc_status(as_zenray_error(error)))


def _decode(request_type: type[Message], request_bytes: bytes) -> Message:
    try:
        return request_type.FromString(request_bytes)
    except DecodeError as error:
        allowed = f"a valid {request_type.DESCRIPTOR.full_name}, with strings in UTF-8"
        raise InvalidRequest.of("request", request_bytes[:32], allowed) from error


def _encode(message: Message) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
