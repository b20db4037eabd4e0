"""The servers a typing session is replayed against."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from zenray.bench.targets import Chunk, Ended, TargetFailed
from zenray.bench.targets.sse import SseParser
from zenray.bench.typing_replay import Began
from zenray.bench.typing_sessions import Document, Event, Moment, Opened

_TIMEOUT_S = 60.0
_FIM_IDS = tuple(range(151659, 151665))
"""Qwen2.5-Coder's control tokens of files and gaps, which end an infill, as llama.cpp knows by itself."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What a client that sends text cuts out of its documents, in lines, as llama.vim does; but where a window cannot
    begin with the file, its first line moves by half a window at a time, so that a server's cache is worth something.
    """

    prefix_lines: int
    """At least, where there are as many; up to half as many more."""
    suffix_lines: int
    extra_lines: int
    """Of the beginning of every other open document."""

    def prefix(self, moment: Moment) -> tuple[str, str]:
        """The lines before the cursor's, and the cursor's up to it."""
        *above, line = moment.prefix.split("\n")
        step = max(1, self.prefix_lines // 2)
        first = max(0, len(above) - self.prefix_lines) // step * step
        return "".join(f"{each}\n" for each in above[first:]), line

    def suffix(self, moment: Moment) -> str:
        line, *below = moment.suffix.split("\n")
        return "\n".join([line, *below[: self.suffix_lines]])

    def beginning(self, document: Document) -> str:
        return "".join(f"{line}\n" for line in document.text.split("\n")[: self.extra_lines])


class _HttpTarget:
    """A server of completions over server-sent events, whose client knows nothing but texts."""

    supersedes = False

    def __init__(self, url: str, windows: Windows, max_tokens: int, one_at_a_time: bool = False) -> None:
        self._url, self._windows, self._max_tokens = url, windows, max_tokens
        self.one_at_a_time = one_at_a_time
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        # Proxies of the environment are for the web, not for a server under measurement. A connection is used once:
        # llama.cpp's server closes one that a stream ended on, which the next request would find out too late.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def begin(self, session_id: str, opened: Sequence[Opened]) -> None:
        """The server keeps no sessions."""

    def see(self, event: Event) -> None:
        """Nor documents."""

    async def _events(self, path: str, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        assert self._client is not None, "open first"
        parser = SseParser()
        async with self._client.stream("POST", f"{self._url}{path}", json=body) as response:
            if response.status_code != 200:
                raise TargetFailed(f"{path} answered {response.status_code}: {(await response.aread())[:300]!r}")
            async for piece in response.aiter_raw():
                for data in parser.feed(piece):
                    if data != "[DONE]":
                        yield _parse(data)


class LlamaInfillTarget(_HttpTarget):
    """llama.cpp's own server, asked as llama.vim asks it."""

    async def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
        prefix, line = self._windows.prefix(moment)
        body = {
            "input_prefix": prefix,
            "prompt": line,
            "input_suffix": self._windows.suffix(moment),
            "input_extra": [
                {"filename": other.path, "text": self._windows.beginning(other)} for other in _in_order(moment)
            ],
            "n_predict": self._max_tokens,
            "temperature": 0.0,
            "cache_prompt": True,
            "stream": True,
            "return_progress": True,  # says how much of the prompt was cached, also when it is cut off later
        }
        async for event in self._events("/infill", body):
            if progress := event.get("prompt_progress"):
                yield Began(progress["total"], progress["cache"])
            elif event.get("stop"):
                if event.get("content"):
                    yield Chunk(event["content"], 0)
                timings = event["timings"]
                cached = timings["cache_n"]
                yield Began(cached + timings["prompt_n"], cached)
                yield Ended(event["stop_type"], cached + timings["prompt_n"], cached, event["tokens_predicted"])
            else:
                yield Chunk(event["content"], 1)


class VllmTarget(_HttpTarget):
    """vLLM's OpenAI-compatible server, with the prompt that llama.cpp's server makes of the same windows."""

    async def suggest(self, moment: Moment) -> AsyncIterator[Began | Chunk | Ended]:
        body = {
            "model": "model",
            "prompt": repository_prompt(moment, self._windows),
            "max_tokens": self._max_tokens,
            "temperature": 0.0,
            "stop_token_ids": list(_FIM_IDS),
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        usage: dict[str, Any] = {}
        reason = ""
        async for event in self._events("/v1/completions", body):
            if event.get("usage"):
                usage = event["usage"]
                details = usage.get("prompt_tokens_details") or {}  # which only the last event has
                yield Began(usage["prompt_tokens"], details.get("cached_tokens"))
            for choice in event["choices"]:
                reason = choice["finish_reason"] or reason
                yield Chunk(choice["text"], 1)
        yield Ended(reason, usage.get("prompt_tokens"), None, usage.get("completion_tokens"))


def repository_prompt(moment: Moment, windows: Windows) -> str:
    """Qwen2.5-Coder's layout of a repository (arXiv 2409.12186) with the gap of the last file in the middle."""
    others = "".join(f"<|file_sep|>{other.path}\n{windows.beginning(other)}" for other in _in_order(moment))
    prefix, suffix = "".join(windows.prefix(moment)), windows.suffix(moment)
    path = moment.document.path
    here = f"<|file_sep|>{path}\n<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    return f"<|repo_name|>myproject\n{others}{here}"


def _in_order(moment: Moment) -> list[Document]:
    """Always the same one, so that a jump to another file moves little in a prompt."""
    return sorted(moment.others, key=lambda document: document.path)


def _parse(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise TargetFailed(f"an event is not JSON: {data[:300]!r}") from error
    if not isinstance(event, dict) or event.get("error"):
        raise TargetFailed(f"error in the stream: {data[:300]}")
    return event
