"""The whole way, over both doors: gRPC and HTTP to a model on Ray and back."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from zenray.api.client import CallFailed, Client
from zenray.config import ZenrayConfig
from zenray.model.build import build_model
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, is_idle, replica_processes, request
from zenray.v1 import common_pb2, completion_pb2


def text_of(client: Client, message: completion_pb2.CompleteRequest) -> str:
    return "".join(event.delta.text for event in client.complete(message) if event.HasField("delta"))


def seeded(prompt: str, seed: int, max_tokens: int = 16) -> completion_pb2.CompleteRequest:
    message = request(prompt, max_tokens)
    message.sampling.seed = seed
    message.sampling.temperature = 1.0
    return message


def test_a_completion_streams_and_ends(client: Client) -> None:
    events = list(client.complete(request(max_tokens=12, request_id="r-1")))
    assert events[0].started.request_id == "r-1"
    assert events[0].started.prompt_tokens > 0
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert sum(delta.token_count for delta in deltas) == 12
    assert len(deltas) > 3
    final = events[-1].final
    assert final.text == "".join(delta.text for delta in deltas)
    assert final.finish_reason == common_pb2.FINISH_REASON_LENGTH
    assert 0 < final.timings.first_token_ms <= final.timings.total_ms


def test_both_doors_and_both_calls_give_the_same_text(platform: Platform, client: Client) -> None:
    streamed = text_of(client, seeded("import os\n", seed=3))
    assert client.complete_once(seeded("import os\n", seed=3)).choices[0].text == streamed
    body = {"prompt": "import os\n", "seed": 3, "temperature": 1.0, "max_tokens": 16, "ignore_eos": True}
    answer = httpx.post(f"{platform.http_url}/v1/completions", json=body).json()
    chunks = httpx.post(f"{platform.http_url}/v1/completions", json={**body, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in chunks.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    over_http = "".join(json.loads(line)["choices"][0]["text"] for line in lines)
    assert answer["choices"][0]["text"] == over_http
    assert over_http == streamed


def test_a_repeated_prompt_is_taken_from_the_prefix_cache(client: Client) -> None:
    prompt = "".join(f"line {number}\n" for number in range(40))
    first = client.complete_once(request(prompt, 2)).usage
    again = client.complete_once(request(prompt + "x", 2)).usage
    assert first.prompt_tokens > 100
    assert again.cached_tokens > 0.8 * first.prompt_tokens


def test_health_and_reflection_answer(platform: Platform, client: Client) -> None:
    with grpc.insecure_channel(platform.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "zenray.v1.CompletionService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = reflection_pb2.ServerReflectionRequest(file_containing_symbol="zenray.v1.CompletionService")
        listed = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = list(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listed, asked])))
    assert {"zenray.v1.CompletionService", "grpc.health.v1.Health"} <= {
        service.name for service in answers[0].list_services_response.service
    }
    file = descriptor_pb2.FileDescriptorProto.FromString(answers[1].file_descriptor_response.file_descriptor_proto[0])
    assert "CompletionService" in [service.name for service in file.service]
    for path in ("/healthz", "/readyz", "/-/healthz"):
        assert httpx.get(f"{platform.http_url}{path}").status_code == 200


def test_the_model_is_described(platform: Platform, client: Client) -> None:
    info = client.model_info()
    assert info.model.name == "preset:tiny"
    assert info.model.context_length == 4096
    assert info.bounds.max_tokens == platform.config.bounds.max_tokens
    assert httpx.get(f"{platform.http_url}/v1/models").json()["data"][0]["id"] == "preset:tiny"


def test_beyond_the_queue_requests_are_refused_and_the_others_answered(platform: Platform, client: Client) -> None:
    engine = platform.config.engine
    capacity = engine.max_running_sequences + engine.max_waiting_sequences

    def ask(number: int) -> str:
        with Client(platform.grpc_address) as own:
            try:
                own.complete_once(request(f"{number}", 200))
            except CallFailed as error:
                return f"{error.code}, retry in {error.retry_ms} ms"
        return "OK"

    with ThreadPoolExecutor(3 * capacity) as pool:
        outcomes = list(pool.map(ask, range(3 * capacity)))
    assert set(outcomes) == {"OK", "RESOURCE_EXHAUSTED, retry in 1000 ms"}
    assert outcomes.count("OK") >= capacity


BAD_MESSAGES = {
    "empty": completion_pb2.CompleteRequest(prompt=""),
    "nothing": completion_pb2.CompleteRequest(),
    "too long": completion_pb2.CompleteRequest(prompt="x " * 20_000),
    "nan": completion_pb2.CompleteRequest(prompt="a", sampling=common_pb2.Sampling(temperature=float("nan"))),
    "negative": completion_pb2.CompleteRequest(prompt="a", sampling=common_pb2.Sampling(top_p=-1)),
    "absurd n": completion_pb2.CompleteRequest(prompt="a", sampling=common_pb2.Sampling(n=10**6)),
    "absurd max_tokens": completion_pb2.CompleteRequest(prompt="a", limits=common_pb2.Limits(max_tokens=2**31)),
    "token out of range": completion_pb2.CompleteRequest(prompt_token_ids=completion_pb2.TokenIds(ids=[1, 2**31])),
    "cursor outside": completion_pb2.CompleteRequest(
        editor=completion_pb2.EditorState(text="ab", cursor=completion_pb2.Cursor(offset=9))
    ),
    "10 MB": completion_pb2.CompleteRequest(prompt="x" * 10_000_000),
}
BAD_BODIES = {
    "no json": b"{",
    "wrong type": b'{"prompt": {"a": 1}}',
    "nan": b'{"prompt": "a", "temperature": NaN}',
    "lone surrogate": b'{"prompt": "\\ud800"}',
    "token out of range": b'{"prompt": [1, 99999999]}',
    "absurd logprobs": b'{"prompt": "a", "logprobs": 100000}',
    "10 MB": b'{"prompt": "' + b"x" * 10_000_000 + b'"}',
}


def test_bad_requests_are_refused_and_a_neighbour_does_not_notice(platform: Platform, client: Client) -> None:
    long = seeded("def neighbour(", seed=1, max_tokens=1500)
    alone = text_of(client, long)
    with Client(platform.grpc_address) as neighbour, ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(text_of, neighbour, long)
        for name, message in BAD_MESSAGES.items():
            with pytest.raises(CallFailed) as refused:
                client.complete_once(message)
            assert refused.value.code == "INVALID_ARGUMENT", name
            assert refused.value.violations, name
        with pytest.raises(CallFailed) as refused:
            client.complete_once(request(model="gpt-4"))
        assert refused.value.code == "NOT_FOUND"
        for name, body in BAD_BODIES.items():
            answer = httpx.post(
                f"{platform.http_url}/v1/completions", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 400, name
            assert answer.json()["error"]["message"], name
        assert streaming.result() == alone


def test_a_grpc_client_that_leaves_frees_its_blocks(client: Client) -> None:
    before = client.load().load.generated_tokens
    stream = client.complete(request(max_tokens=4000))
    assert len(list(islice(stream, 5))) == 5
    assert client.load().load.running_sequences == 1
    stream.close()
    eventually(lambda: is_idle(client), "blocks are free after a cancel")
    assert client.load().load.generated_tokens - before < 4000


def test_an_http_client_that_leaves_frees_its_blocks(platform: Platform, client: Client) -> None:
    before = client.load().load.generated_tokens
    body = json.dumps({"prompt": "def f(", "max_tokens": 4000, "stream": True, "temperature": 1.5, "seed": 5})
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    head += "content-type: application/json\r\n\r\n"
    with socket.create_connection((platform.config.server.host, platform.config.server.http_port)) as connection:
        connection.sendall(f"{head}{body}".encode())
        assert b"200 OK" in connection.recv(4096)
    eventually(lambda: is_idle(client), "blocks are free after the socket closed")
    assert client.load().load.generated_tokens - before < 4000


def test_a_deadline_shortens_the_work(client: Client) -> None:
    message = request(max_tokens=4000)
    message.limits.deadline_ms = 150
    final = list(client.complete(message))[-1].final
    assert final.finish_reason == common_pb2.FINISH_REASON_DEADLINE
    assert 0 < final.usage.completion_tokens < 4000
    message.limits.deadline_ms = 60_000
    with pytest.raises(CallFailed) as late:
        list(client.complete(message, timeout_s=0.0001))
    assert late.value.code == "DEADLINE_EXCEEDED"


def test_metrics_count_what_happened(platform: Platform, client: Client) -> None:
    client.complete_once(request(max_tokens=3))
    text = httpx.get(f"{platform.http_url}/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(samples['zenray_requests_total{outcome="LENGTH",priority="interactive"}']) >= 1
    assert float(samples['zenray_first_token_seconds_count{priority="interactive"}']) >= 1
    assert float(samples["zenray_verifier_replicas"]) == 1
    generated = [name for name in samples if name.startswith("zenray_verifier_generated_tokens_total")]
    assert len(generated) == 1


def test_a_verifier_keeps_to_its_memory(platform: Platform, client: Client) -> None:
    config: ZenrayConfig = platform.config
    weights = build_model(config.model).info.weight_bytes
    allowed = weights + config.engine.kv_cache_mib * 2**20 + 2**30
    (verifier,) = replica_processes("Verifier")
    assert verifier.memory_info().rss <= allowed


def test_our_sockets_listen_on_the_loopback_only(platform: Platform, client: Client) -> None:
    ports = {platform.config.server.grpc_port, platform.config.server.http_port}
    (aggregator,) = replica_processes("ContextAggregator")
    listening = [each for each in aggregator.net_connections("inet") if each.status == "LISTEN"]
    assert {each.laddr.port for each in listening} >= ports
    hosts = {each.laddr.ip.removeprefix("::ffff:") for each in listening if each.laddr.port in ports}
    assert hosts == {"127.0.0.1"}
