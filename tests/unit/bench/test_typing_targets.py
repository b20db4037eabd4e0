"""What peers are asked under a typing session, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from zenray.bench.targets import Chunk, Ended
from zenray.bench.typing_replay import Began, TypingTarget
from zenray.bench.typing_sessions import Document, Edited, Moment
from zenray.bench.typing_targets import LlamaInfillTarget, VllmTarget, Windows, repository_prompt

WINDOWS = Windows(prefix_lines=4, suffix_lines=1, extra_lines=2)
OTHER = Document("b.py", "python", "one\ntwo\nthree\n", 1)


def moment(text: str, cursor: int) -> Moment:
    edit = Edited(0, "a.py", 2, cursor - 1, 0, text[cursor - 1])
    return Moment(edit, Document("a.py", "python", text, 2), (OTHER,), None, "")


@asynccontextmanager
async def answering(lines: list[str]) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server that answers every request with these events, and what it was sent."""
    asked: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
        )
        asked.append((head.split(" ")[1], json.loads(await reader.readexactly(length))))
        body = "".join(f"data: {line}\n\n" for line in lines).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def ask(make: Callable[[str], TypingTarget], events: list[Any], where: Moment) -> tuple[Any, list[Any]]:
    async with answering([json.dumps(event) for event in events] + ["[DONE]"]) as (url, asked):
        target = make(url)
        await target.open()
        try:
            return asked, [item async for item in target.suggest(where)]
        finally:
            await target.close()


def test_llama_is_asked_with_lines_around_the_cursor_and_tells_what_it_cached() -> None:
    timings = {"cache_n": 90, "prompt_n": 10}
    events = [
        {"prompt_progress": {"total": 100, "cache": 90}},
        {"content": "ab", "stop": False},
        {"content": "", "stop": True, "stop_type": "limit", "tokens_predicted": 7, "timings": timings},
    ]
    text = "x = 1\ny = \nz = 3\nlast"
    asked, items = asyncio.run(ask(lambda url: LlamaInfillTarget(url, WINDOWS, 7), events, moment(text, 10)))
    ((path, body),) = asked
    assert path == "/infill"
    assert (body["input_prefix"], body["prompt"], body["input_suffix"]) == ("x = 1\n", "y = ", "\nz = 3")
    assert body["input_extra"] == [{"filename": "b.py", "text": "one\ntwo\n"}] and body["n_predict"] == 7
    assert items == [Began(100, 90), Chunk("ab", 1), Began(100, 90), Ended("limit", 100, 90, 7)]


def test_vllm_is_asked_with_the_prompt_llama_makes_of_it() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 48}}
    events = [
        {"choices": [{"text": "ab", "finish_reason": None}], "usage": {"prompt_tokens": 50, "completion_tokens": 1}},
        {"choices": [{"text": "c", "finish_reason": "stop"}]},
        {"choices": [], "usage": usage},
    ]
    here = moment("x = 1\ny = \nz", 10)
    asked, items = asyncio.run(ask(lambda url: VllmTarget(url, WINDOWS, 7), events, here))
    assert asked[0][0] == "/v1/completions" and asked[0][1]["prompt"] == repository_prompt(here, WINDOWS)
    assert asked[0][1]["prompt"] == (
        "<|repo_name|>myproject\n<|file_sep|>b.py\none\ntwo\n<|file_sep|>a.py\n"
        "<|fim_prefix|>x = 1\ny = <|fim_suffix|>\nz<|fim_middle|>"
    )
    assert items == [Began(50, None), Chunk("ab", 1), Chunk("c", 1), Began(50, 48), Ended("stop", 50, None, 2)]


def test_an_error_of_the_server_is_an_error() -> None:
    with pytest.raises(Exception, match="no slot"):
        asyncio.run(ask(lambda url: VllmTarget(url, WINDOWS, 7), [{"error": "no slot"}], moment("x", 1)))


def test_a_window_begins_at_the_same_line_while_a_few_more_are_typed() -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    firsts = []
    for number in range(20, 40):
        prefix, line = WINDOWS.prefix(moment(text, text.index(f"line {number}\n") + 3))
        assert line == "lin" and 4 <= prefix.count("\n") < 6
        firsts.append(prefix.partition("\n")[0])
    assert len(set(firsts)) == 10
