"""The gRPC door in process: every call, every error with its details, and work that ends with its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from zenray.api.grpc_server import build_server
from zenray.api.handlers import Handlers, set_error
from zenray.api.stream import within_timeout
from zenray.context.request import CompletionRequest, TextPrompt
from zenray.engine.request import FinishReason, Limits
from zenray.errors import DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from zenray.v1 import common_pb2, completion_pb2, completion_pb2_grpc, context_pb2, context_pb2_grpc

Request = completion_pb2.CompleteRequest


@pytest.fixture
async def channel(service: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = build_server(service)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> completion_pb2_grpc.CompletionServiceStub:
    return completion_pb2_grpc.CompletionServiceStub(channel)


async def failure(call: Any) -> tuple[grpc.StatusCode, str, list[Any]]:
    """Status, message and unpacked details of a call that has to fail."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    found = []
    status = rpc_status.from_call(raised.value)
    for packed in status.details if status else ():
        for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.ResourceInfo):
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                found.append(message)
    return raised.value.code(), raised.value.details(), found


async def test_a_stream_is_started_deltas_final(stub: Any, service: Any) -> None:
    events = [event async for event in stub.Complete(Request(prompt="def f(", request_id="r-1"))]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", *["delta"] * 5, "final"]
    assert (events[0].started.request_id, events[0].started.prompt_tokens) == ("r-1", 6)
    assert "".join(event.delta.text for event in events[1:-1]) == events[-1].final.text == "hé!\n"
    assert sum(event.delta.token_count for event in events[1:-1]) == events[-1].final.usage.completion_tokens
    assert events[-1].final.finish_reason == common_pb2.FINISH_REASON_EOS
    assert service.open_streams == 0


async def test_once_is_the_same_in_one_message(stub: Any) -> None:
    sampling = common_pb2.Sampling(n=2, logprobs=1, prompt_logprobs=True)
    response = await stub.CompleteOnce(Request(prompt="ab", sampling=sampling))
    assert [choice.text for choice in response.choices] == ["hé!\n"] * 2
    assert response.usage.completion_tokens == 10
    assert [entry.token for entry in response.prompt_logprobs] == [b"a", b"b"]
    assert b"".join(entry.token for entry in response.choices[0].logprobs) == "hé!\n".encode()
    assert len(response.request_id) == 32


async def test_the_editor_reaches_the_context_room(stub: Any, channel: grpc.aio.Channel) -> None:
    cursor = completion_pb2.Cursor(line_column=completion_pb2.LineColumn(line=0, column=2))
    whole_tokens = completion_pb2.SuggestionOptions(heal_tokens=False)
    editor = completion_pb2.EditorState(path="a.py", text="ab\ncd", cursor=cursor)
    request = Request(editor=editor, suggestion=whole_tokens)
    assembled = await context_pb2_grpc.ContextServiceStub(channel).Assemble(
        context_pb2.AssembleRequest(request=request)
    )
    assert assembled.prompt == "<|fim_prefix|>ab<|fim_suffix|>\ncd<|fim_middle|>"
    assert [piece.source for piece in assembled.pieces] == [
        completion_pb2.CONTEXT_SOURCE_CONTROL,
        completion_pb2.CONTEXT_SOURCE_PREFIX,
        completion_pb2.CONTEXT_SOURCE_CONTROL,
        completion_pb2.CONTEXT_SOURCE_SUFFIX,
        completion_pb2.CONTEXT_SOURCE_CONTROL,
    ]
    assert assembled.token_budget == 64
    assert len(assembled.stop_token_ids) == 6
    assert (await stub.CompleteOnce(request)).usage.prompt_tokens == len(assembled.token_ids)


async def test_model_info_and_load(stub: Any) -> None:
    info = await stub.GetModelInfo(completion_pb2.GetModelInfoRequest())
    assert (info.model.name, info.model.vocab_size, info.bounds.max_stop) == ("tiny-coder", 264, 16)
    assert info.default_limits.max_tokens == 128
    load = await stub.GetLoad(completion_pb2.GetLoadRequest())
    assert (load.load.total_blocks, load.verifier_replicas) == (7, 2)
    code, _, (resource,) = await failure(stub.GetModelInfo(completion_pb2.GetModelInfoRequest(model="gpt")))
    assert (code, resource.resource_name) == (grpc.StatusCode.NOT_FOUND, "gpt")


BAD_REQUESTS = [
    (Request(), "input"),
    (Request(prompt=""), "prompt"),
    (Request(infill=completion_pb2.Infill()), "infill"),
    (Request(prompt="x" * 300), "prompt"),
    (Request(prompt_token_ids=completion_pb2.TokenIds(ids=[264])), "prompt_token_ids[0]"),
    (Request(prompt_token_ids=completion_pb2.TokenIds(ids=[1] * 300)), "prompt_token_ids"),
    (Request(prompt="x", sampling=common_pb2.Sampling(temperature=float("nan"))), "sampling.temperature"),
    (Request(prompt="x", sampling=common_pb2.Sampling(top_p=-1)), "sampling.top_p"),
    (Request(prompt="x", sampling=common_pb2.Sampling(n=10**6)), "sampling.n"),
    (Request(prompt="x", limits=common_pb2.Limits(max_tokens=10**6)), "limits.max_tokens"),
    (Request(prompt="x", limits=common_pb2.Limits(stop=[""])), "limits.stop[0]"),
    (
        Request(editor=completion_pb2.EditorState(text="é", cursor=completion_pb2.Cursor(offset=1))),
        "editor.cursor.offset",
    ),
    (Request(prompt="x" * 10_000_000), "request"),
]


@pytest.mark.parametrize(("request_message", "field"), BAD_REQUESTS, ids=[field for _, field in BAD_REQUESTS])
@pytest.mark.parametrize("method", ["Complete", "CompleteOnce"])
async def test_a_bad_request_names_its_field(stub: Any, method: str, request_message: Request, field: str) -> None:
    call = getattr(stub, method)(request_message)
    code, message, details = await failure(call.read() if method == "Complete" else call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in message
    assert "allowed:" in message
    assert [violation.field for violation in details[0].field_violations] == [field]


async def test_bad_requests_leave_the_service_and_its_neighbours_alone(stub: Any, service: Any) -> None:
    service.hold_after = 2
    neighbour = stub.Complete(Request(prompt="good"))
    assert (await neighbour.read()).HasField("started")
    await asyncio.wait_for(service.holding.wait(), 10)
    for request_message, _ in BAD_REQUESTS:
        await failure(stub.CompleteOnce(request_message))
    assert (service.open_streams, neighbour.done()) == (1, False)
    neighbour.cancel()
    await service.all_closed()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x1a\x02\xff\xfe"], ids=["no message", "invalid UTF-8"])
async def test_bytes_that_are_no_request_are_the_callers_fault(channel: grpc.aio.Channel, garbage: bytes) -> None:
    call = channel.unary_unary("/zenray.v1.CompletionService/CompleteOnce")(garbage)
    code, message, (bad_request,) = await failure(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "CompleteRequest" in message
    assert bad_request.field_violations[0].field == "request"


async def test_no_bytes_are_ever_an_internal_error(channel: grpc.aio.Channel, service: Any) -> None:
    """Mutations of a good request, so that many of them parse."""
    good = Request(prompt="def f(", sampling=common_pb2.Sampling(n=2, seed=1), limits=common_pb2.Limits(stop=["x"]))
    call, random = channel.unary_unary("/zenray.v1.CompletionService/CompleteOnce"), Random(0)
    seen = set()
    for _ in range(400):
        mutated = bytearray(good.SerializeToString())
        for _ in range(random.randint(1, 4)):
            mutated[random.randrange(len(mutated))] = random.randrange(256)
        try:
            await call(bytes(mutated))
        except grpc.aio.AioRpcError as error:
            seen.add(error.code())
    assert seen == {grpc.StatusCode.INVALID_ARGUMENT}
    assert service.open_streams == 0


async def test_overload_and_unavailability_carry_retry_info(stub: Any, service: Any) -> None:
    service.error = Overloaded("the queue of 64 is full", retry_ms=250)
    code, message, (retry,) = await failure(stub.CompleteOnce(Request(prompt="x")))
    assert (code, message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue of 64 is full")
    assert retry.retry_delay.ToMilliseconds() == 250
    service.error = Unavailable("no verifier")
    code, _, (retry,) = await failure(stub.Complete(Request(prompt="x")).read())
    assert (code, retry.retry_delay.ToMilliseconds()) == (grpc.StatusCode.UNAVAILABLE, 1000)


async def test_a_verifier_that_dies_midway_ends_the_stream_with_a_status(stub: Any, service: Any) -> None:
    service.error, service.error_after = Unavailable("the verifier died"), 2
    call = stub.Complete(Request(prompt="x"))
    assert [(await call.read()).WhichOneof("event") for _ in range(3)] == ["started", "delta", "delta"]
    code, message, _ = await failure(call.read())
    assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "the verifier died")


async def test_unexpected_errors_are_internal_and_say_nothing(stub: Any, service: Any) -> None:
    service.error = KeyError("secret")
    code, message, _ = await failure(stub.CompleteOnce(Request(prompt="x")))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message


@pytest.mark.parametrize("method", ["Complete", "CompleteOnce"])
async def test_a_cancelled_call_closes_its_work(stub: Any, service: Any, method: str) -> None:
    service.hold_after = 1
    call = getattr(stub, method)(Request(prompt="x"))
    waiting = asyncio.ensure_future(call.read() if method == "Complete" else call.code())
    await asyncio.wait_for(service.holding.wait(), 10)
    call.cancel()
    await service.all_closed()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_the_calls_timeout_shortens_the_deadline(stub: Any, service: Any) -> None:
    await stub.CompleteOnce(Request(prompt="x"), timeout=5)
    await stub.CompleteOnce(Request(prompt="x", limits=common_pb2.Limits(deadline_ms=7)), timeout=5)
    shortened, own = (request.limits.deadline_ms for request in service.requests)
    assert 1000 < shortened < 5000
    assert own == 7


@pytest.mark.parametrize(
    ("timeout_s", "own_ms", "deadline_ms"),
    [(None, 7, 7), (1.0, None, 980), (1.0, 990, 980), (1.0, 500, 500), (0.02, None, 15), (0.0001, None, 1)],
)
def test_a_margin_of_the_timeout_is_kept_for_the_reply(
    timeout_s: float | None, own_ms: int | None, deadline_ms: int
) -> None:
    request = CompletionRequest("id", TextPrompt("x"), limits=Limits(deadline_ms=own_ms))
    assert within_timeout(request, timeout_s).limits.deadline_ms == deadline_ms
    with pytest.raises(DeadlineExceeded):
        within_timeout(request, 0.0)


async def test_a_deadline_is_an_error_only_when_nothing_was_produced(stub: Any, service: Any) -> None:
    service.finish_reason = FinishReason.DEADLINE
    response = await stub.CompleteOnce(Request(prompt="x"))
    assert response.choices[0].finish_reason == common_pb2.FINISH_REASON_DEADLINE
    service.reply = ""
    code, message, _ = await failure(stub.CompleteOnce(Request(prompt="x", limits=common_pb2.Limits(deadline_ms=70))))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "70 ms" in message
    code, _, _ = await failure(stub.Complete(Request(prompt="x")).read())
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    scored = await stub.CompleteOnce(Request(prompt="x", sampling=common_pb2.Sampling(prompt_logprobs=True)))
    assert len(scored.prompt_logprobs) == 1


async def test_health_follows_readiness(channel: grpc.aio.Channel, service: Any) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "zenray.v1.CompletionService", "zenray.v1.ContextService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    code, _, _ = await failure(stub.Check(health_pb2.HealthCheckRequest(service="nope")))
    assert code is grpc.StatusCode.NOT_FOUND
    service.ready = Unavailable("draining")
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_watch_reports_changes(channel: grpc.aio.Channel, service: Any) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    service.ready = Unavailable("draining")
    assert (await asyncio.wait_for(watch.read(), 10)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    unknown = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="nope"))
    assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes_the_services(channel: grpc.aio.Channel, version: str) -> None:
    reflect = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = reflect()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await call.read()).list_services_response.service}
    assert {"zenray.v1.CompletionService", "zenray.v1.ContextService", "grpc.health.v1.Health"} <= listed
    symbol = "zenray.v1.CompletionService"
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
    described = (await call.read()).file_descriptor_response.file_descriptor_proto
    assert any(b"zenray/v1/completion.proto" in file for file in described)
    await call.done_writing()


async def test_handlers_need_no_transport(service: Any) -> None:
    """A Ray Serve deployment calls them and gives the call context the status of an error."""

    class Context:
        def set_code(self, code: object) -> None:
            self.code = code

        def set_details(self, details: str) -> None:
            self.details = details

        def set_trailing_metadata(self, trailing_metadata: list[tuple[str, bytes]]) -> None:
            self.metadata = trailing_metadata

    handlers, context = Handlers(service), Context()
    response = await handlers.complete_once(Request(prompt="x"))
    assert response.choices[0].text == "hé!\n"
    with pytest.raises(InvalidRequest) as raised:
        await handlers.complete_once(Request(prompt=""))
    set_error(context, raised.value)
    assert context.code is grpc.StatusCode.INVALID_ARGUMENT
    assert context.metadata[0][0] == "grpc-status-details-bin"
