"""The one mapping of errors to gRPC status with google.rpc details and to HTTP in OpenAI's shape."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from zenray.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NotFound,
    Overloaded,
    StaleDocument,
    Unavailable,
    ZenrayError,
)

log = logging.getLogger(__name__)

DETAILS_KEY = "grpc-status-details-bin"
# Message and details travel as headers, which have to fit in 8 KiB after percent and base64 encoding.
_MAX_MESSAGE = 640
_MAX_VIOLATION = 192
_MAX_VIOLATIONS = 12


def as_zenray_error(error: BaseException) -> ZenrayError:
    """`error` itself when it has a meaning for the caller, else one that says nothing of the inside.

    The caller logs what it was; only this function decides what a client may see.
    """
    if isinstance(error, ZenrayError):
        return error
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return DeadlineExceeded("the deadline passed before anything could be produced")
    log.error("unexpected error in a request: %s", type(error).__name__, exc_info=error)
    return ZenrayError("internal error; the server's log has the details")


@dataclass(frozen=True, slots=True)
class GrpcStatus:
    """A gRPC status as every server API can send it. Satisfies `grpc.Status`."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def grpc_status(error: ZenrayError) -> GrpcStatus:
    """The status of `error`: code, message and packed google.rpc details."""
    message = _clip(str(error))
    status = status_pb2.Status(
        code=code_pb2.Code.Value(error.grpc_status), message=message, details=_grpc_details(error)
    )
    metadata = ((DETAILS_KEY, status.SerializeToString()),)
    return GrpcStatus(grpc.StatusCode[error.grpc_status], message, metadata)


def _grpc_details(error: ZenrayError) -> list[any_pb2.Any]:
    details: list[Any] = []
    if isinstance(error, InvalidRequest):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_clip(violation.field, 64), description=_describe(violation)
                    )
                    for violation in error.violations[:_MAX_VIOLATIONS]
                ]
            )
        )
    if isinstance(error, NotFound):
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.kind,
                resource_name=_clip(error.name, 256),
                description=_clip(str(error), _MAX_VIOLATION),
            )
        )
    if isinstance(error, StaleDocument):
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type="DOCUMENT", subject=_clip(error.path, 256), description=_clip(error.remedy, _MAX_VIOLATION)
                    )
                ]
            )
        )
    if error.retry_after_ms is not None:
        seconds, milliseconds = divmod(error.retry_after_ms, 1000)
        delay = duration_pb2.Duration(seconds=seconds, nanos=milliseconds * 1_000_000)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [any_pb2.Any() for _ in details]
    for target, detail in zip(packed, details, strict=True):
        target.Pack(detail)
    return packed


@dataclass(frozen=True, slots=True)
class HttpStatus:
    """An HTTP status with OpenAI's error body."""

    code: int
    body: dict[str, Any]
    headers: Mapping[str, str]


def http_status(error: ZenrayError) -> HttpStatus:
    """The HTTP answer to `error`; `param` names the first bad field."""
    param = error.violations[0].field if isinstance(error, InvalidRequest) and error.violations else None
    if isinstance(error, NotFound):
        param = error.kind
    headers = {}
    if error.retry_after_ms is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_ms / 1000)))
        headers["retry-after-ms"] = str(error.retry_after_ms)
    return HttpStatus(
        error.http_code, openai_error(_clip(str(error)), _openai_type(error), param, _code(error)), headers
    )


def openai_error(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The body OpenAI's clients read an error from."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _openai_type(error: ZenrayError) -> str:
    if isinstance(error, Unavailable):
        return "service_unavailable_error"
    if isinstance(error, Overloaded):
        return "rate_limit_error"
    if isinstance(error, DeadlineExceeded):
        return "timeout_error"
    return "invalid_request_error" if error.http_code < 500 else "server_error"


def _code(error: ZenrayError) -> str:
    return f"{error.kind}_not_found" if isinstance(error, NotFound) else error.grpc_status.lower()


def _describe(violation: FieldViolation) -> str:
    return _clip(str(violation), _MAX_VIOLATION)


def _clip(text: str, num_bytes: int = _MAX_MESSAGE) -> str:
    """`text` as valid UTF-8 of at most `num_bytes`; lone surrogates are shown escaped."""
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= num_bytes:
        return encoded.decode("utf-8")
    return encoded[: num_bytes - 3].decode("utf-8", "ignore") + "..."
