"""The HTTP door: OpenAI's shape, errors that name the caller's field, and work that ends with its client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.api.openai import MAX_CONCURRENT_PROMPTS, build_app
from zenray.engine.request import FinishReason
from zenray.errors import Overloaded, Unavailable

MAX_BYTES = 100_000


@pytest.fixture
def app(service: Any) -> Any:
    return build_app(lambda: service, metrics=lambda: "zenray_up 1\n", max_request_bytes=MAX_BYTES)


@pytest.fixture
async def http(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
async def url(app: Any) -> AsyncIterator[str]:
    """The application behind a real server and socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    server.force_exit = True
    await serving


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def complete(http: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# --- what OpenAI's own client sees ---------------------------------------------------------------------


async def test_the_openai_client_completes(client: openai.AsyncOpenAI, service: Any) -> None:
    completion = await client.completions.create(model="tiny-coder", prompt="def f(", seed=7, temperature=0.5, n=2)
    assert [(choice.index, choice.text) for choice in completion.choices] == [(0, "hé!\n"), (1, "hé!\n")]
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.object, completion.model) == ("text_completion", "tiny-coder")
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (6, 10, 16)
    assert usage.prompt_tokens_details.cached_tokens == 3
    predicted = usage.completion_tokens_details
    assert (predicted.accepted_prediction_tokens, predicted.rejected_prediction_tokens) == (2, 10)
    (request,) = service.requests
    assert (request.sampling.seed, request.sampling.temperature, request.sampling.n) == (7, 0.5, 2)


async def test_the_openai_client_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model="tiny-coder", prompt="x", suffix="y", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "hé!\n"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, None, "stop"]
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 5)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_the_openai_client_sees_typed_errors(client: openai.AsyncOpenAI, service: Any) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.completions.create(model="tiny-coder", prompt="x", temperature=-1)
    assert raised.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="gpt-9", prompt="x")
    service.error = Overloaded("full", retry_ms=1500)
    with pytest.raises(openai.RateLimitError) as limited:
        await client.completions.create(model="tiny-coder", prompt="x", stream=True)
    assert limited.value.response.headers["retry-after"] == "2"
    service.error = Unavailable("draining")
    with pytest.raises(openai.InternalServerError) as unavailable:
        await client.completions.create(model="tiny-coder", prompt="x")
    assert unavailable.value.status_code == 503


async def test_an_error_midway_reaches_the_openai_client(client: openai.AsyncOpenAI, service: Any) -> None:
    service.error, service.error_after = Unavailable("the verifier died"), 2
    stream = await client.completions.create(model="tiny-coder", prompt="x", stream=True)
    with pytest.raises(openai.APIError, match="the verifier died"):
        [chunk async for chunk in stream]


async def test_the_openai_client_lists_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny-coder"]
    assert (await client.models.retrieve("tiny-coder")).created == 1_700_000_000
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("org/other")


# --- prompts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [("ab", ["ab"]), (["ab", "c"], ["ab", "c"]), ([97, 98], ["ab"]), ([[97, 98], [99]], ["ab", "c"])],
)
async def test_every_form_of_prompt(http: httpx.AsyncClient, prompt: Any, texts: list[str]) -> None:
    answer = await complete(http, prompt=prompt, echo=True, n=2)
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * len(texts)))
    assert [choice["text"] for choice in answer["choices"]] == [text + "hé!\n" for text in texts for _ in range(2)]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, texts))


async def test_a_suffix_makes_an_infill(http: httpx.AsyncClient, service: Any) -> None:
    await complete(http, prompt="ab", suffix="c")
    await complete(http, prompt="ab", suffix="")
    await complete(http, prompt="ab", suffix=None)
    kinds = [type(request.input).__name__ for request in service.requests]
    assert kinds == ["Infill", "Infill", "TextPrompt"]


async def test_many_prompts_run_a_bounded_number_at_once(http: httpx.AsyncClient, service: Any) -> None:
    answer = await complete(http, prompt=[f"p{i:03}" for i in range(128)], echo=True)
    assert [choice["text"][:4] for choice in answer["choices"]] == [f"p{i:03}" for i in range(128)]
    assert 1 < service.most_open_streams <= MAX_CONCURRENT_PROMPTS
    assert service.open_streams == 0


async def test_one_failing_prompt_fails_the_request_and_frees_the_rest(http: httpx.AsyncClient, service: Any) -> None:
    answer = await http.post("/v1/completions", json={"prompt": ["x"] * 5 + ["y" * 300] + ["x"] * 50})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt[5]")
    assert "context of 256" in answer.json()["error"]["message"]
    assert service.open_streams == 0


async def test_streams_of_many_prompts_interleave(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/completions", json={"prompt": ["a", "b"], "n": 2, "stream": True})
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    texts = dict.fromkeys(range(4), "")
    for event in map(json.loads, events[:-1]):
        assert "usage" not in event
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == dict.fromkeys(range(4), "hé!\n")


# --- log-probabilities ------------------------------------------------------------------------------------


async def test_echo_with_logprobs_as_lm_eval_reads_it(http: httpx.AsyncClient) -> None:
    body = {"prompt": [[97, 98, 99], [100]], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 1}
    answer = await complete(http, **body)
    first, second = (choice["logprobs"] for choice in answer["choices"])
    assert first["token_logprobs"] == [None, -0.5, -0.5, -0.5]
    assert first["top_logprobs"][0] is None
    assert first["tokens"] == ["a", "b", "c", "h"]
    assert first["text_offset"] == [0, 1, 2, 3]
    assert first["top_logprobs"][1] == {"c": -0.25, "b": -0.5}
    assert second["token_logprobs"] == [None, -0.5]
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_scoring_without_generating(http: httpx.AsyncClient) -> None:
    answer = await complete(http, prompt="abc", echo=True, logprobs=0, max_tokens=0)
    (choice,) = answer["choices"]
    assert choice["text"] == "abc"
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5, -0.5]
    assert answer["usage"]["completion_tokens"] == 0


async def test_tokens_that_are_part_of_a_character(http: httpx.AsyncClient) -> None:
    answer = await complete(http, prompt="x", logprobs=2)
    logprobs = answer["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["h", "bytes:\\xc3", "bytes:\\xa9", "!", "\n"]
    assert logprobs["text_offset"] == [0, 1, 2, 2, 3]
    assert len(logprobs["top_logprobs"][0]) == 3


async def test_streamed_logprobs_are_the_whole_ones_in_pieces(http: httpx.AsyncClient) -> None:
    body = {"prompt": "ab", "echo": True, "logprobs": 2}
    (whole,) = (await complete(http, **body))["choices"]
    answer = await http.post("/v1/completions", json={**body, "stream": True})
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-2]]
    parts = [choice for event in events for choice in event["choices"]]
    assert "".join(part["text"] for part in parts) == whole["text"]
    for name, values in whole["logprobs"].items():
        assert [value for part in parts if part["logprobs"] for value in part["logprobs"][name]] == values


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (FinishReason.EOS, "stop"),
        (FinishReason.STOP, "stop"),
        (FinishReason.LENGTH, "length"),
        (FinishReason.DEADLINE, "length"),
        (FinishReason.SUPERSEDED, "length"),
        (FinishReason.SUFFIX_MATCH, "stop"),
    ],
)
async def test_finish_reasons(http: httpx.AsyncClient, service: Any, reason: FinishReason, shown: str) -> None:
    service.finish_reason = reason
    (choice,) = (await complete(http, prompt="x"))["choices"]
    assert (choice["finish_reason"], choice["zenray_finish_reason"]) == (shown, reason.value)


# --- fields -----------------------------------------------------------------------------------------------


async def test_extensions_and_nulls(http: httpx.AsyncClient, service: Any) -> None:
    body = {
        "top_k": 5,
        "repetition_penalty": 1.5,
        "max_lines": 3,
        "deadline_ms": 50,
        "priority": "batch",
        "stop": "x",
        "stop_token_ids": [3],
        "ignore_eos": True,
        "max_tokens": 9.0,
        "presence_penalty": 1,
    }
    await complete(http, prompt="x", **body)
    await complete(http, prompt="x", **dict.fromkeys(body), n=None, logprobs=None, stream=None, model=None)
    full, silent = service.requests
    assert (full.sampling.top_k, full.sampling.repetition_penalty, full.limits.max_lines) == (5, 1.5, 3)
    assert (full.limits.deadline_ms, full.priority.name, full.limits.stop) == (50, "BATCH", ("x",))
    assert (full.limits.stop_token_ids, full.limits.ignore_eos, full.limits.max_tokens) == ((3,), True, 9)
    assert (silent.limits.max_tokens, silent.priority.name, silent.limits.stop) == (128, "INTERACTIVE", ())


async def test_harmless_fields_are_ignored_and_reported(http: httpx.AsyncClient) -> None:
    body = {"prompt": "x", "user": "u", "metadata": {}, "store": True, "logit_bias": {}, "best_of": 1, "a\nb": 1}
    answer = await http.post("/v1/completions", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-zenray-ignored-fields"] == "metadata,store"


async def test_request_ids(http: httpx.AsyncClient, service: Any) -> None:
    answer = await http.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "abc-1"})
    assert (answer.headers["x-request-id"], answer.json()["id"]) == ("abc-1", "cmpl-abc-1")
    bad = await http.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "a b" * 99})
    assert len(bad.headers["x-request-id"]) == 32
    assert service.requests[0].request_id == "abc-1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": ["a", [5]]}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": [264]}, "prompt[0]"),
        ({"prompt": [[1], [2, -1]]}, "prompt[1][1]"),
        ({"prompt": "x" * 300}, "prompt"),
        ({"prompt": ["ok", "x" * 300]}, "prompt[1]"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": "a", "suffix": "\udc00"}, "suffix"),
        ({"prompt": "", "suffix": ""}, "prompt"),
        ({"prompt": "a", "suffix": 3}, "suffix"),
        ({"prompt": "a", "suffix": "b", "echo": True}, "echo"),
        ({"prompt": [5], "suffix": "b"}, "suffix"),
        ({"prompt": "a", "model": 3}, "model"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "temperature": True}, "temperature"),
        ({"prompt": "a", "temperature": float("nan")}, "temperature"),
        ({"prompt": "a", "temperature": float("-inf")}, "temperature"),
        ({"prompt": "a", "temperature": 10**400}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "top_k": -2}, "top_k"),
        ({"prompt": "a", "n": 0}, "n"),
        ({"prompt": "a", "n": 1e300}, "n"),
        ({"prompt": "a", "n": float("inf")}, "n"),
        ({"prompt": "a", "n": True}, "n"),
        ({"prompt": "a", "max_tokens": 10**9}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "logprobs": 10**6}, "logprobs"),
        ({"prompt": "a", "seed": -1}, "seed"),
        ({"prompt": "a", "stop": ["x"] * 17}, "stop"),
        ({"prompt": "a", "stop": ["x", ""]}, "stop[1]"),
        ({"prompt": "a", "stop": ""}, "stop[0]"),
        ({"prompt": "a", "stop": [1]}, "stop[0]"),
        ({"prompt": "a", "stop": {"x": 1}}, "stop"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "stream_options": []}, "stream_options"),
        ({"prompt": "a", "priority": "urgent"}, "priority"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "n": 2, "best_of": 1}, "best_of"),
        ({"prompt": "a", "logit_bias": {"5": 10}}, "logit_bias"),
        ({"prompt": "a", "guided_json": {}}, "guided_json"),
        ({"prompt": "a", "stop_token_ids": ["x"]}, "stop_token_ids"),
        ({"prompt": "a", "deadline_ms": 0}, "deadline_ms"),
    ],
)
async def test_a_bad_field_is_400_and_named(http: httpx.AsyncClient, service: Any, body: Any, param: str) -> None:
    answer = await http.post("/v1/completions", content=json.dumps(body), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert f"{param} is " in error["message"]
    assert "allowed: " in error["message"]
    assert service.open_streams == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"prompt": "\xff"}',
        b"[" * 50_000,
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
async def test_a_body_that_is_no_object_is_400(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "body")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", 2**64, -1, "x"]),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)
FIELDS = ["prompt", "suffix", "n", "logprobs", "echo", "stop", "stream", "stream_options", "seed", "best_of", "model"]
FIELDS += ["temperature", "top_p", "top_k", "max_tokens", "max_lines", "deadline_ms", "priority", "logit_bias", "zz"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.fixed_dictionaries({"prompt": st.just("x") | json_values}, optional=dict.fromkeys(FIELDS[1:], json_values))
)
def test_no_json_is_ever_a_server_error(app: Any, body: dict[str, Any]) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            headers = {"content-type": "application/json"}
            return await http.post("/v1/completions", content=json.dumps(body), headers=headers)

    answer = asyncio.run(ask())
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_no_bytes_are_ever_a_server_error(app: Any, body: bytes) -> None:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            return await http.post("/v1/completions", content=body, headers={"content-type": "application/json"})

    assert asyncio.run(ask()).status_code == 400


# --- bodies and connections -------------------------------------------------------------------------------


async def test_a_huge_body_is_refused_unread(http: httpx.AsyncClient, service: Any) -> None:
    answer = await http.post("/v1/completions", json={"prompt": "x" * 10_000_000})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "request")
    assert f"at most {MAX_BYTES} bytes" in answer.json()["error"]["message"]
    assert service.requests == []


async def test_a_huge_body_on_a_socket_gets_its_answer(url: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b" " * 65_536

    async with httpx.AsyncClient() as client:
        for body in (b" " * 10_000_000, chunks()):
            answer = await client.post(
                f"{url}/v1/completions", content=body, headers={"content-type": "application/json"}
            )
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "request")


async def test_a_slow_body_ends(service: Any) -> None:
    from zenray.api.asgi import BodyLimit

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await asyncio.wait_for(BodyLimit(build_app(lambda: service), MAX_BYTES, timeout_s=0.01)(scope, receive, send), 10)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_has_to_say_it_is_json(http: httpx.AsyncClient, content_type: str) -> None:
    answer = await http.post("/v1/completions", content=b'{"prompt":"x"}', headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "content-type")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_closes_its_work(url: str, service: Any, stream: bool) -> None:
    service.hold_after = 2
    async with httpx.AsyncClient() as client:
        body = {"prompt": ["x", "y"], "stream": stream}
        asking = asyncio.ensure_future(client.post(f"{url}/v1/completions", json=body, timeout=60))
        await asyncio.wait_for(service.holding.wait(), 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await service.all_closed()


async def test_health_metrics_and_unknown_paths(http: httpx.AsyncClient, service: Any) -> None:
    assert (await http.get("/healthz")).text == "ok\n"
    assert (await http.head("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200
    metrics = await http.get("/metrics")
    assert (metrics.text, metrics.headers["content-type"].partition(";")[0]) == ("zenray_up 1\n", "text/plain")
    service.ready = Unavailable("starting")
    assert (await http.get("/readyz")).status_code == 503
    assert (await http.get("/healthz")).status_code == 200
    for method, path, code in (("GET", "/nope", 404), ("GET", "/v1/completions", 405), ("PUT", "/healthz", 405)):
        answer = await http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (code, "invalid_request_error")
