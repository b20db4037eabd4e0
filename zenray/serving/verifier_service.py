"""VerifierService over an engine: what a verifier replica answers, without Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Protocol

import grpc.aio

from zenray.api.convert_scoring import score_event_to_proto, score_request_from_proto
from zenray.api.convert_verifier import (
    generate_event_to_proto,
    generate_request_from_proto,
    verifier_load_to_proto,
)
from zenray.api.service import VerifierLoad
from zenray.api.status import as_zenray_error, grpc_status
from zenray.api.validate_scoring import check_scoring, max_record_bytes
from zenray.engine.async_engine import AsyncEngine
from zenray.errors import Overloaded
from zenray.experts.status import ExpertStatus
from zenray.model.tokenizer_json import tokenizer_to_bytes
from zenray.v1 import common_pb2, verifier_pb2, verifier_pb2_grpc

log = logging.getLogger(__name__)

SERVICE_NAME = verifier_pb2.DESCRIPTOR.services_by_name["VerifierService"].full_name
TOKENIZER_PART_BYTES = 1024 * 1024
MAX_UNREAD_BYTES = 2**30
"""Of records that calls in progress may come to."""
WATCHDOG_PERIOD_S = 0.5


class VerifierServicer(verifier_pb2_grpc.VerifierServiceServicer):
    """Streams from one engine. Every failure is a gRPC status with details; a cancelled call frees its blocks.

    `experts` says where the engine's experts are, None where they are all in its process.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        model: common_pb2.ModelInfo,
        replica_id: str,
        experts: Callable[[], ExpertStatus | None] = lambda: None,
    ) -> None:
        self._engine, self._model, self._replica_id, self._experts = engine, model, replica_id, experts
        self._unread = ByteBudget(MAX_UNREAD_BYTES)

    async def Generate(self, message: verifier_pb2.GenerateRequest, context: grpc.aio.ServicerContext) -> None:
        async with _errors_as_status(context):
            request = generate_request_from_proto(message)
            async with aclosing(self._engine.generate(request)) as events:
                async for event in events:
                    await context.write(generate_event_to_proto(event))

    async def Score(self, message: verifier_pb2.ScoreRequest, context: grpc.aio.ServicerContext) -> None:
        """The engine does not wait for readers: what one does not take stays here until its call ends. So a call's
        records are bounded at the door, and those of all calls together by `MAX_UNREAD_BYTES`."""
        async with _errors_as_status(context):
            request = score_request_from_proto(message)
            engine = self._engine.engine
            check_scoring(request, engine.model.config, engine.max_sequence_tokens)
            with self._unread.reserve(max_record_bytes(request, engine.model.config.hidden_size)):
                async with aclosing(self._engine.score(request)) as events:
                    async for event in events:
                        for part in score_event_to_proto(event):
                            await context.write(part)

    async def GetVerifierInfo(
        self, message: verifier_pb2.GetVerifierInfoRequest, context: grpc.aio.ServicerContext
    ) -> verifier_pb2.GetVerifierInfoResponse:
        return verifier_pb2.GetVerifierInfoResponse(model=self._model, replica_id=self._replica_id)

    async def GetVerifierLoad(
        self, message: verifier_pb2.GetVerifierLoadRequest, context: grpc.aio.ServicerContext
    ) -> verifier_pb2.GetVerifierLoadResponse:
        return verifier_load_to_proto(VerifierLoad(self._engine.load(), self._experts()))

    async def GetTokenizer(
        self, message: verifier_pb2.GetTokenizerRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[verifier_pb2.GetTokenizerResponse, None]:
        data = await asyncio.to_thread(tokenizer_to_bytes, self._engine.engine.model.tokenizer)
        for start in range(0, len(data), TOKENIZER_PART_BYTES):
            yield verifier_pb2.GetTokenizerResponse(part=data[start : start + TOKENIZER_PART_BYTES])


class ByteBudget:
    """Bytes that calls may hold at once."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_reserved = 0

    @contextmanager
    def reserve(self, num_bytes: int) -> Iterator[None]:
        """Holds so many for the block. Raises Overloaded where there are not so many left."""
        if self._num_reserved + num_bytes > self._max_bytes:
            raise Overloaded(
                f"records of up to {self._num_reserved:,} bytes may wait for their readers; "
                f"{num_bytes:,} more exceed {self._max_bytes:,}"
            )
        self._num_reserved += num_bytes
        try:
            yield
        finally:
            self._num_reserved -= num_bytes


@asynccontextmanager
async def _errors_as_status(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """Ends the call with the status of what its block raised."""
    try:
        yield
    except (grpc.aio.AioRpcError, grpc.aio.AbortError, grpc.aio.UsageError):
        raise  # grpc.aio's own: the call is closed
    except Exception as error:
        await context.abort_with_status(grpc_status(as_zenray_error(error)))


class EngineHealth(Protocol):
    """What the watchdog looks at; `AsyncEngine` has it."""

    @property
    def healthy(self) -> bool: ...
    @property
    def stalled_s(self) -> float: ...


def engine_failure(engine: EngineHealth, stall_timeout_s: float) -> str | None:
    """Why the engine cannot serve any more; None while it can."""
    if not engine.healthy:
        return "the engine thread has ended"
    if engine.stalled_s > stall_timeout_s:
        return f"the engine has not ended a step for {engine.stalled_s:.1f} s"
    return None


async def watch_engine(engine: EngineHealth, stall_timeout_s: float, on_failure: Callable[[str], None]) -> None:
    """Calls `on_failure` once when the engine's thread has died or hangs, then returns."""
    while True:
        reason = engine_failure(engine, stall_timeout_s)
        if reason is not None:
            on_failure(reason)
            return
        await asyncio.sleep(WATCHDOG_PERIOD_S)
