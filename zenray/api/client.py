"""A thin client of the public services, blocking and async, used by the command line and the benchmark.

Both turn a gRPC error into one `CallFailed`, with the field violations and the retry time the server sent, except
that a document the server does not have is a `StaleDocument`, as it is there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from zenray.errors import StaleDocument, ZenrayError
from zenray.v1 import completion_pb2, completion_pb2_grpc, context_pb2, context_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

R = TypeVar("R")

DEFAULT_ADDRESS = "127.0.0.1:9000"
_METADATA = (("application", "zenray"),)
_OPTIONS = (
    # A proxy of the environment is for the web; it cannot carry HTTP/2 to a server on the loopback.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)


class CallFailed(ZenrayError):
    """A call that ended with a gRPC status other than OK.

    `code` is the status name; `violations` are (field, description) pairs of a BadRequest.
    """

    def __init__(
        self,
        code: str,
        message: str,
        address: str,
        violations: tuple[tuple[str, str], ...] = (),
        retry_ms: int | None = None,
    ) -> None:
        super().__init__(code, message, address, violations, retry_ms)
        self.code, self.message, self.address = code, message, address
        self.violations, self.retry_ms = violations, retry_ms

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def retry_after_ms(self) -> int | None:
        return self.retry_ms

    @property
    def unreachable(self) -> bool:
        """Nothing answered at the address, as opposed to a server that cannot serve now."""
        return self.code == "UNAVAILABLE" and self.retry_ms is None and _is_transport(self.message)


class Client:
    """Blocking. Close it, or use it as a context manager."""

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        self.address = address
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = completion_pb2_grpc.CompletionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._context = context_pb2_grpc.ContextServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def complete(
        self, request: completion_pb2.CompleteRequest, timeout_s: float | None = None
    ) -> Generator[completion_pb2.CompleteEvent, None, None]:
        """Stream the events; closing the iterator cancels the call. Raises CallFailed."""
        call = self._stub.Complete(request, timeout=timeout_s, metadata=_METADATA)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _failure(error, self.address) from error
        finally:
            call.cancel()

    def complete_once(
        self, request: completion_pb2.CompleteRequest, timeout_s: float | None = None
    ) -> completion_pb2.CompleteResponse:
        """Raises CallFailed."""
        response: completion_pb2.CompleteResponse = self._unary(self._stub.CompleteOnce, request, timeout_s)
        return response

    def model_info(self, model: str = "", timeout_s: float | None = 10.0) -> completion_pb2.GetModelInfoResponse:
        """Raises CallFailed."""
        response: completion_pb2.GetModelInfoResponse = self._unary(
            self._stub.GetModelInfo, completion_pb2.GetModelInfoRequest(model=model), timeout_s
        )
        return response

    def load(self, timeout_s: float | None = 10.0) -> completion_pb2.GetLoadResponse:
        """Raises CallFailed."""
        response: completion_pb2.GetLoadResponse = self._unary(
            self._stub.GetLoad, completion_pb2.GetLoadRequest(), timeout_s
        )
        return response

    def assemble(
        self, request: completion_pb2.CompleteRequest, timeout_s: float | None = 10.0
    ) -> context_pb2.AssembleResponse:
        """Raises StaleDocument and CallFailed."""
        response: context_pb2.AssembleResponse = self._unary(
            self._context.Assemble, context_pb2.AssembleRequest(request=request), timeout_s
        )
        return response

    def update_documents(
        self, events: Iterable[context_pb2.UpdateDocumentsRequest], timeout_s: float | None = 10.0
    ) -> int:
        """How many events were applied: all. Raises StaleDocument and CallFailed; the events before the one that
        was refused are applied then."""
        response: context_pb2.UpdateDocumentsResponse = self._unary(
            self._context.UpdateDocuments, iter(events), timeout_s
        )
        return response.events

    def prefetch(self, request: completion_pb2.CompleteRequest, timeout_s: float | None = None) -> int:
        """Completion tokens kept for the request to come. Raises StaleDocument and CallFailed."""
        response: completion_pb2.PrefetchResponse = self._unary(
            self._stub.Prefetch, completion_pb2.PrefetchRequest(request=request), timeout_s
        )
        return response.completion_tokens

    def report_outcome(self, report: completion_pb2.ReportOutcomeRequest, timeout_s: float | None = 10.0) -> None:
        """Raises CallFailed."""
        self._unary(self._stub.ReportOutcome, report, timeout_s)

    def _unary(self, method: Callable[..., R], request: Message | Iterator[Message], timeout_s: float | None) -> R:
        try:
            return method(request, timeout=timeout_s, metadata=_METADATA)
        except grpc.RpcError as error:
            raise _failure(error, self.address) from error


class AsyncClient:
    """The same calls on an event loop. Create it inside a running loop."""

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = completion_pb2_grpc.CompletionServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._context = context_pb2_grpc.ContextServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._channel.close()

    async def complete(
        self, request: completion_pb2.CompleteRequest, timeout_s: float | None = None
    ) -> AsyncGenerator[completion_pb2.CompleteEvent, None]:
        """Stream the events; `aclose()` cancels the call. Raises CallFailed."""
        call = self._stub.Complete(request, timeout=timeout_s, metadata=_METADATA)
        try:
            async for event in call:
                yield event
        except grpc.RpcError as error:
            raise _failure(error, self.address) from error
        finally:
            call.cancel()

    async def complete_once(
        self, request: completion_pb2.CompleteRequest, timeout_s: float | None = None
    ) -> completion_pb2.CompleteResponse:
        """Raises CallFailed."""
        response: completion_pb2.CompleteResponse = await self._unary(self._stub.CompleteOnce, request, timeout_s)
        return response

    async def model_info(self, model: str = "", timeout_s: float | None = 10.0) -> completion_pb2.GetModelInfoResponse:
        """Raises CallFailed."""
        response: completion_pb2.GetModelInfoResponse = await self._unary(
            self._stub.GetModelInfo, completion_pb2.GetModelInfoRequest(model=model), timeout_s
        )
        return response

    async def load(self, timeout_s: float | None = 10.0) -> completion_pb2.GetLoadResponse:
        """Raises CallFailed."""
        response: completion_pb2.GetLoadResponse = await self._unary(
            self._stub.GetLoad, completion_pb2.GetLoadRequest(), timeout_s
        )
        return response

    async def assemble(
        self, request: completion_pb2.CompleteRequest, timeout_s: float | None = 10.0
    ) -> context_pb2.AssembleResponse:
        """Raises StaleDocument and CallFailed."""
        response: context_pb2.AssembleResponse = await self._unary(
            self._context.Assemble, context_pb2.AssembleRequest(request=request), timeout_s
        )
        return response

    async def update_documents(
        self, events: Iterable[context_pb2.UpdateDocumentsRequest], timeout_s: float | None = 10.0
    ) -> int:
        """How many events were applied: all. Raises StaleDocument and CallFailed; the events before the one that
        was refused are applied then."""
        response: context_pb2.UpdateDocumentsResponse = await self._unary(
            self._context.UpdateDocuments, iter(events), timeout_s
        )
        return response.events

    async def prefetch(self, request: completion_pb2.CompleteRequest, timeout_s: float | None = None) -> int:
        """Completion tokens kept for the request to come. Raises StaleDocument and CallFailed."""
        response: completion_pb2.PrefetchResponse = await self._unary(
            self._stub.Prefetch, completion_pb2.PrefetchRequest(request=request), timeout_s
        )
        return response.completion_tokens

    async def report_outcome(self, report: completion_pb2.ReportOutcomeRequest, timeout_s: float | None = 10.0) -> None:
        """Raises CallFailed."""
        await self._unary(self._stub.ReportOutcome, report, timeout_s)

    async def _unary(
        self, method: Callable[..., Awaitable[R]], request: Message | Iterator[Message], timeout_s: float | None
    ) -> R:
        try:
            return await method(request, timeout=timeout_s, metadata=_METADATA)
        except grpc.RpcError as error:
            raise _failure(error, self.address) from error


def _failure(error: grpc.RpcError, address: str) -> CallFailed | StaleDocument:
    code, message = error.code().name, error.details() or ""
    violations: list[tuple[str, str]] = []
    retry_ms: int | None = None
    try:
        status = rpc_status.from_call(error)
    except (ValueError, NotImplementedError):  # details that contradict the status are as good as none
        status = None
    for detail in status.details if status else ():
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        precondition = error_details_pb2.PreconditionFailure()
        if detail.Unpack(bad_request):
            violations += [(item.field, item.description) for item in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_ms = retry.retry_delay.ToMilliseconds()
        elif detail.Unpack(precondition) and precondition.violations:
            path, remedy = precondition.violations[0].subject, precondition.violations[0].description
            found = message.removeprefix(f"document {path!r}: ").removesuffix(f"; {remedy}")
            return StaleDocument(path, found, remedy)
    return CallFailed(code, message, address, tuple(violations), retry_ms)


def _is_transport(message: str) -> bool:
    return any(sign in message for sign in ("onnect", "DNS resolution", "Socket closed", "No such file", "GOAWAY"))
