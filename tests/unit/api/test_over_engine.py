"""The doors over the real engine with the tiny model: what the fake promises, the engine keeps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from zenray.api.handlers import Handlers
from zenray.api.openai import build_app
from zenray.api.service import ModelCard, ServiceLoad
from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits
from zenray.context.request import CompletionRequest
from zenray.engine.async_engine import AsyncEngine
from zenray.engine.request import GenerateEvent
from zenray.model.load import LoadedModel
from zenray.v1 import common_pb2, completion_pb2

CONTEXT_LENGTH = 128


class LocalService:
    """The completion service over one engine of this process."""

    def __init__(self, model: LoadedModel, engine: AsyncEngine) -> None:
        self.tokenizer, self._engine = model.tokenizer, engine

    def model_info(self) -> ModelCard:
        return ModelCard("tiny", "toy", "float64", 1, CONTEXT_LENGTH, self.tokenizer.vocab_size, True)

    async def assemble(self, request: CompletionRequest) -> AssembledPrompt:
        return assemble(request, self.tokenizer, PromptLimits(CONTEXT_LENGTH, 64, 0.25))

    async def complete(self, request: CompletionRequest) -> AsyncGenerator[GenerateEvent, None]:
        prompt = await self.assemble(request)
        async with aclosing(self._engine.generate(prompt.generate_request(request))) as events:
            async for event in events:
                yield event

    async def load(self) -> ServiceLoad:
        return ServiceLoad(self._engine.load(), 1)

    async def check_ready(self) -> None:
        return


@pytest.fixture
async def service(tiny_model: LoadedModel, make_engine: Callable[..., Any]) -> AsyncIterator[LocalService]:
    engine = AsyncEngine(make_engine(context_length=CONTEXT_LENGTH))
    await engine.start()
    yield LocalService(tiny_model, engine)
    await engine.shutdown(0.0)


@pytest.fixture
async def http(service: LocalService) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app(lambda: service))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_both_doors_give_the_same_tokens(service: LocalService, http: httpx.AsyncClient) -> None:
    sampling = common_pb2.Sampling(temperature=0.7, top_p=0.95, seed=11, n=3)
    message = completion_pb2.CompleteRequest(
        prompt="def f(", sampling=sampling, limits=common_pb2.Limits(max_tokens=12, ignore_eos=True)
    )
    once = await Handlers(service).complete_once(message)
    body = {"prompt": "def f(", "temperature": 0.7, "top_p": 0.95, "seed": 11, "n": 3, "max_tokens": 12}
    answer = (await http.post("/v1/completions", json={**body, "ignore_eos": True})).json()
    assert [choice["text"] for choice in answer["choices"]] == [choice.text for choice in once.choices]
    assert len({choice.text for choice in once.choices}) > 1
    assert answer["usage"]["completion_tokens"] == once.usage.completion_tokens == 36


async def test_a_scored_prompt_has_one_entry_more_than_its_tokens(http: httpx.AsyncClient) -> None:
    prompts = [[5, 6, 7], [100] * 20]
    body = {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1}
    choices = (await http.post("/v1/completions", json=body)).json()["choices"]
    for prompt, choice in zip(prompts, choices, strict=True):
        logprobs = choice["logprobs"]
        assert logprobs["token_logprobs"][0] is None
        assert {len(values) for values in logprobs.values()} == {len(prompt) + 1}
        assert all(value < 0 for value in logprobs["token_logprobs"][1:])
        greedy = logprobs["token_logprobs"][-1]
        assert greedy == max(logprobs["top_logprobs"][-1].values())


async def test_a_stream_is_whole_and_leaves_nothing_behind(service: LocalService, http: httpx.AsyncClient) -> None:
    message = completion_pb2.CompleteRequest(
        infill=completion_pb2.Infill(prefix="é🙂" * 30, suffix="x\n" * 40), limits=common_pb2.Limits(max_tokens=9)
    )
    events = [event async for event in Handlers(service).complete(message)]
    assert [event.WhichOneof("event") for event in events][:: len(events) - 1] == ["started", "final"]
    final = events[-1].final
    assert "".join(event.delta.text for event in events) == final.text
    assert sum(event.delta.token_count for event in events) == final.usage.completion_tokens <= 9
    load = (await service.load()).load
    assert load.running_sequences == load.waiting_sequences == 0


async def test_a_closed_stream_frees_its_blocks(service: LocalService) -> None:
    limits = common_pb2.Limits(max_tokens=100, ignore_eos=True)
    stream = Handlers(service).complete(completion_pb2.CompleteRequest(prompt="x", limits=limits))
    assert (await anext(stream)).WhichOneof("event") == "started"
    await stream.aclose()
    after = await Handlers(service).complete_once(completion_pb2.CompleteRequest(prompt="y"))
    assert after.choices
    load = (await service.load()).load
    assert load.running_sequences == 0
    assert load.free_blocks + load.cached_blocks == load.total_blocks
