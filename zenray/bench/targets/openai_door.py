"""Any server with OpenAI's `POST /v1/completions`, streamed: ours, vLLM's, llama.cpp's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from zenray.bench.targets import Call, Chunk, Ended, TargetFailed
from zenray.bench.targets.sse import SseParser

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 600.0
_MAX_SHOWN = 300


class OpenAITarget:
    """`url` with or without the trailing /v1. `model` empty takes the first the server lists.

    `ignore_eos` and `stream_options` are sent because vLLM and ours know them; a server that refuses
    unknown fields is asked once more without. Without usage in the stream a chunk counts as one token.
    """

    def __init__(self, url: str, model: str = "") -> None:
        self.name = url.rstrip("/")
        self._base = self.name if self.name.endswith("/v1") else f"{self.name}/v1"
        self._model = model
        self._client: httpx.AsyncClient | None = None
        self._extras: dict[str, Any] = {"stream_options": {"include_usage": True}}
        self._knows_ignore_eos = True

    async def open(self) -> None:
        import httpx

        # Proxies of the environment are for the web, not for a server under measurement.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT_S, limits=limits, trust_env=False, headers={"accept-encoding": "identity"}
        )
        try:
            response = await self._client.get(f"{self._base}/models")
        except httpx.TransportError as error:
            raise TargetFailed(f"nothing answers at {self.name}: {error or type(error).__name__}") from error
        if self._model:
            return
        try:
            self._model = str(response.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise TargetFailed(f"{self._base}/models lists no model; name one with --model") from error

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def stream(self, call: Call) -> AsyncIterator[Chunk | Ended]:
        import httpx

        assert self._client is not None, "open first"
        body = self._body(call)
        try:
            async with self._client.stream("POST", f"{self._base}/completions", json=body) as response:
                if response.status_code != 200:
                    refused = (await response.aread()).decode("utf-8", "replace")[:_MAX_SHOWN]
                else:
                    refused = ""
                    async for item in _read_stream(response.aiter_raw()):
                        yield item
        except httpx.TransportError as error:
            raise TargetFailed(f"{self.name}: {type(error).__name__}: {error}") from error
        if not refused:
            return
        if response.status_code not in (400, 422) or not self._forget_extras(refused):
            raise TargetFailed(f"{self.name} answered {response.status_code}: {refused}")
        async for item in self.stream(call):
            yield item

    def _body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": call.prompt.text,
            "max_tokens": call.max_tokens,
            "temperature": 0.0,
            "stream": True,
            **self._extras,
        }
        if call.prompt.suffix is not None:
            body["suffix"] = call.prompt.suffix
        if call.ignore_eos and self._knows_ignore_eos:
            body["ignore_eos"] = True
        return body

    def _forget_extras(self, refusal: str) -> bool:
        """Drops the optional fields the refusal names; whether anything is left to try."""
        if "ignore_eos" in refusal and self._knows_ignore_eos:
            self._knows_ignore_eos = False
            return True
        if "stream_options" in refusal and self._extras:
            self._extras = {}
            return True
        return False


async def _read_stream(pieces: AsyncIterator[bytes]) -> AsyncIterator[Chunk | Ended]:
    """Chunks of a completion stream, then its end. Raises TargetFailed for an error in the stream, for
    data that is no completion and for a stream that ends without saying so."""
    parser = SseParser()
    finish_reason = ""
    usage: dict[str, Any] = {}
    async for piece in pieces:
        for data in parser.feed(piece):
            if data == "[DONE]":
                details = usage.get("prompt_tokens_details") or {}
                yield Ended(
                    finish_reason,
                    usage.get("prompt_tokens"),
                    details.get("cached_tokens"),
                    usage.get("completion_tokens"),
                )
                return
            chunk = _parse(data)
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices") or ():
                finish_reason = choice.get("finish_reason") or finish_reason
                if text := choice.get("text"):
                    yield Chunk(text, 1)
    raise TargetFailed("the stream broke off before [DONE]")


def _parse(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise TargetFailed(f"an event is not JSON: {data[:_MAX_SHOWN]!r}") from error
    if not isinstance(chunk, dict):
        raise TargetFailed(f"an event is not an object: {data[:_MAX_SHOWN]!r}")
    if chunk.get("error"):
        raise TargetFailed(f"error in the stream: {json.dumps(chunk['error'])[:_MAX_SHOWN]}")
    return chunk
