"""gRPC between replicas: how a server binds, how a channel is opened, what an error means on our side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from zenray.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    ModelFileError,
    Overloaded,
    Unavailable,
    ZenrayError,
)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_PING_MS = 2_000
_PING_TIMEOUT_MS = 3_000

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    # Callers ping to notice a replica that is stopped but not dead; the default calls that an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS // 2),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A proxy of the environment is for the web; it cannot carry HTTP/2 between replicas.
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", _PING_MS),
    ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A channel of its own: a dead replica's backoff is not inherited by one that reuses its port.
    ("grpc.use_local_subchannel_pool", 1),
)


def bind(server: grpc.aio.Server, host: str) -> str:
    """Binds to a free port of an address; returns host:port."""
    host = bracketed(host)
    return f"{host}:{server.add_insecure_port(f'{host}:0')}"


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


class ReplicaLost(Unavailable):
    """The connection to a replica broke, or it gave the request back: another may take it."""


@contextlib.contextmanager
def closing_loses() -> Iterator[None]:
    """Around a call: a channel that is closed meanwhile cancels it as if whoever waits for it had been cancelled.
    Raises ReplicaLost instead."""
    try:
        yield
    except grpc.aio.UsageError as error:  # The channel was closed before the call began.
        raise ReplicaLost(f"a verifier was lost: {error}") from error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ReplicaLost("a verifier was lost: its channel was closed") from None


def error_of(error: grpc.RpcError) -> ZenrayError:
    """A call's failure as the error its server raised. A lost connection and UNAVAILABLE are ReplicaLost,
    and so is a method that this replica does not know: while a fleet is replaced, another does."""
    code, message = error.code(), error.details() or ""
    violations, retry_ms = _details(error)
    if code is grpc.StatusCode.INVALID_ARGUMENT and violations:
        return InvalidRequest(violations)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Overloaded(message, retry_ms if retry_ms is not None else 1000)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return ReplicaLost(f"a verifier was lost: {message}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ReplicaLost(f"a verifier of another version cannot answer this: {message}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(message)
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        return ModelFileError(message)
    return ZenrayError(message)


class _Verbatim(str):
    """Text of an error that is shown as it came."""

    def __repr__(self) -> str:
        return str(self)


def _details(error: grpc.RpcError) -> tuple[list[FieldViolation], int | None]:
    violations: list[FieldViolation] = []
    retry_ms: int | None = None
    try:
        status: Any = rpc_status.from_call(error)
    except (ValueError, NotImplementedError):
        status = None
    for detail in status.details if status else ():
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad_request):
            for violation in bad_request.field_violations:
                value, _, allowed = violation.description.partition("; allowed: ")
                shown = value.removeprefix(f"{violation.field} is ")
                violations.append(FieldViolation(violation.field, _Verbatim(shown), allowed))
        elif detail.Unpack(retry):
            retry_ms = retry.retry_delay.ToMilliseconds()
    return violations, retry_ms
