"""Our own `zenray.v1.CompletionService`, streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from zenray.bench.targets import Call, Chunk, Ended, TargetFailed

if TYPE_CHECKING:
    from zenray.api.client import AsyncClient
    from zenray.v1 import completion_pb2

_TIMEOUT_S = 600.0


class GrpcTarget:
    """One channel to `address`; every call is a stream of it. `model` empty takes what is served."""

    def __init__(self, address: str, model: str = "") -> None:
        self.name = f"grpc://{address}"
        self._address = address
        self._model = model
        self._client: AsyncClient | None = None

    async def open(self) -> None:
        from zenray.api.client import AsyncClient, CallFailed

        self._client = AsyncClient(self._address)
        try:
            await self._client.model_info(self._model)
        except CallFailed as error:
            await self._client.close()
            hint = "; start a server with zenray serve" if error.unreachable else ""
            raise TargetFailed(f"{self.name} does not answer: {error}{hint}") from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def stream(self, call: Call) -> AsyncIterator[Chunk | Ended]:

        assert self._client is not None, "open first"
        cached = 0
        async with aclosing(self._client.complete(self._request(call), timeout_s=_TIMEOUT_S)) as events:
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "started":
                    cached = event.started.cached_tokens
                elif kind == "delta":
                    yield Chunk(event.delta.text, event.delta.token_count)
                elif kind == "final":
                    yield ended(event.final, cached)

    def _request(self, call: Call) -> completion_pb2.CompleteRequest:
        from zenray.v1 import completion_pb2

        request = completion_pb2.CompleteRequest(model=self._model)
        if call.prompt.suffix is None:
            request.prompt = call.prompt.text
        else:
            request.infill.prefix, request.infill.suffix = call.prompt.text, call.prompt.suffix
        request.sampling.temperature = 0.0
        request.limits.max_tokens = call.max_tokens
        request.limits.ignore_eos = call.ignore_eos
        return request


def ended(final: completion_pb2.Final, cached_tokens: int) -> Ended:
    """The end of a stream."""
    from zenray.v1 import common_pb2

    return Ended(
        common_pb2.FinishReason.Name(final.finish_reason).removeprefix("FINISH_REASON_"),
        final.usage.prompt_tokens,
        cached_tokens,
        final.usage.completion_tokens,
        final.timings.first_token_ms,
    )
