"""A gRPC server in this process that answers as a zenray server would, scripted by the prompt."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from zenray.api.status import grpc_status
from zenray.errors import FieldViolation, InvalidRequest, Overloaded, Unavailable, ZenrayError
from zenray.v1 import common_pb2, completion_pb2, completion_pb2_grpc, context_pb2, context_pb2_grpc

ERRORS: dict[str, ZenrayError] = {
    "busy": Overloaded("64 requests wait already", retry_ms=1500),
    "draining": Unavailable("the server is draining", retry_ms=500),
    "bad": InvalidRequest(
        [
            FieldViolation("sampling.temperature", -1.0, "0 to 10"),
            FieldViolation("limits.max_tokens", 99999, "at most 4096"),
        ]
    ),
    "bad-one": InvalidRequest.of("sampling.top_p", 3.0, "above 0, up to 1"),
    "broken": ZenrayError("internal error; the server's log has the details"),
}


@dataclass
class FakeServer(completion_pb2_grpc.CompletionServiceServicer, context_pb2_grpc.ContextServiceServicer):
    """Streams `pieces`, then a final. `hold` makes it wait after the first piece until released or cancelled."""

    pieces: tuple[str, ...] = ("return ", "a + b", "\n")
    fail_after: tuple[int, ZenrayError] | None = None
    hold: bool = False
    drafters: tuple[common_pb2.DrafterUsage, ...] = ()
    experts: tuple[completion_pb2.ReplicaExperts, ...] = ()
    suggestion: completion_pb2.Suggestion | None = None
    prompt: context_pb2.AssembleResponse = field(default_factory=context_pb2.AssembleResponse)
    document_events: list[Any] = field(default_factory=list)
    address: str = ""
    requests: list[Any] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def Complete(self, request: Any, context: Any) -> Iterator[Any]:
        self.requests.append(request)
        context.add_callback(self.cancelled.set)
        if request.prompt in ERRORS:
            context.abort_with_status(grpc_status(ERRORS[request.prompt]))
        yield completion_pb2.CompleteEvent(
            started=completion_pb2.Started(prompt_tokens=12, cached_tokens=8, request_id="r1")
        )
        num_choices = request.sampling.n or 1
        for number, piece in enumerate(self.pieces):
            if self.fail_after is not None and number == self.fail_after[0]:
                context.abort_with_status(grpc_status(self.fail_after[1]))
            for index in range(num_choices):
                yield completion_pb2.CompleteEvent(delta=completion_pb2.Delta(index=index, text=piece, token_count=2))
            if self.hold:
                self.holding.set()
                self.released.wait(60)
        for index in range(num_choices):
            yield completion_pb2.CompleteEvent(
                final=completion_pb2.Final(
                    index=index,
                    text="".join(self.pieces),
                    suggestion=self.suggestion,
                    finish_reason=common_pb2.FINISH_REASON_EOS,
                    usage=common_pb2.Usage(
                        prompt_tokens=12,
                        completion_tokens=2 * len(self.pieces),
                        cached_tokens=8,
                        rounds=3,
                        drafters=self.drafters,
                    ),
                    timings=common_pb2.Timings(queue_ms=0.5, first_token_ms=21.0, total_ms=40.0),
                )
            )

    def Assemble(self, request: Any, context: Any) -> Any:
        self.requests.append(request.request)
        return self.prompt

    def UpdateDocuments(self, request_iterator: Any, context: Any) -> Any:
        events = list(request_iterator)
        self.document_events += events
        return context_pb2.UpdateDocumentsResponse(events=len(events))

    def GetModelInfo(self, request: Any, context: Any) -> Any:
        return completion_pb2.GetModelInfoResponse(
            model=common_pb2.ModelInfo(
                name="toy-coder",
                architecture="qwen2",
                weight_format="mixed",
                num_parameters=1_543_714_304,
                context_length=8192,
                vocab_size=151_936,
                supports_infill=True,
            )
        )

    def GetLoad(self, request: Any, context: Any) -> Any:
        return completion_pb2.GetLoadResponse(
            load=common_pb2.Load(
                running_sequences=2,
                waiting_sequences=1,
                max_waiting_sequences=64,
                free_blocks=60,
                cached_blocks=30,
                total_blocks=100,
                generated_tokens=1234,
                prompt_tokens=1000,
                cached_prompt_tokens=250,
                rounds=617,
                scored_tokens=4321,
                drafters=[
                    common_pb2.DrafterLoad(
                        drafter="draft_pool",
                        rounds=300,
                        drafted_tokens=1200,
                        accepted_tokens=600,
                        timeouts=4,
                        draft_ms=900,
                        queue_age_ms=12,
                        replicas=2,
                    ),
                    common_pb2.DrafterLoad(drafter="suffix"),
                ],
            ),
            verifier_replicas=1,
            experts=self.experts,
        )


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    fake = FakeServer()
    completion_pb2_grpc.add_CompletionServiceServicer_to_server(fake, server)
    context_pb2_grpc.add_ContextServiceServicer_to_server(fake, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    fake.released.set()
    server.stop(None).wait(10)
