"""The aggregator's service: what it adds to a request, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from zenray.api.service import VerifierLoad
from zenray.config import ZenrayConfig
from zenray.config_load import load_config
from zenray.context.request import CompletionRequest, TextPrompt
from zenray.engine.request import (
    Delta,
    DrafterLoad,
    EngineLoad,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Sampling,
    Started,
    Timings,
    Usage,
)
from zenray.errors import Overloaded, Unavailable
from zenray.experts.placement import ExpertPlacement
from zenray.experts.status import ExpertStatus
from zenray.model.tokenizer import ByteTokenizer
from zenray.serving.completion import ClusterCompletionService
from zenray.v1 import common_pb2

HOMELESS = ExpertStatus(ExpertPlacement(3, {0: ((),)}), (), {}, 0, 0.0, 0.0, 0, 0.0, 0.0, "an expert has no place")


class FakeClient:
    """One token, then the end; `hold` keeps streams open after the token."""

    num_reruns = 0

    def __init__(self) -> None:
        self.unavailable: str | None = None
        self.requests: list[tuple[GenerateRequest, str, float]] = []
        self.hold: asyncio.Event | None = None
        self.error: Exception | None = None

    async def generate(
        self, request: GenerateRequest, affinity: str, deadline_s: float
    ) -> AsyncGenerator[GenerateEvent, None]:
        self.requests.append((request, affinity, deadline_s))
        if self.error is not None:
            raise self.error
        yield Started(len(request.prompt_token_ids), 0)
        yield Delta(0, "a", (97,))
        if self.hold is not None:
            await self.hold.wait()
        yield Final(0, "a", FinishReason.EOS, Usage(1, 1, 0), Timings(0, 0, 0))

    async def loads(self) -> dict[str, VerifierLoad]:
        suffix = DrafterLoad("suffix", rounds=2, drafted_tokens=9, accepted_tokens=4)
        both = (suffix, DrafterLoad("recycling"))
        return {
            "a": VerifierLoad(EngineLoad(free_blocks=3, total_blocks=5, rounds=6, drafters=(suffix,))),
            "b": VerifierLoad(EngineLoad(free_blocks=4, total_blocks=5, rounds=1, drafters=both), HOMELESS),
        }

    def check_available(self) -> None:
        if self.unavailable is not None:
            raise Unavailable(self.unavailable)

    async def info(self) -> common_pb2.ModelInfo:
        return common_pb2.ModelInfo(name="tiny", context_length=256, vocab_size=512)


@pytest.fixture
def config() -> ZenrayConfig:
    return load_config("tiny", None, ["server.max_ongoing_requests=2"])


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
async def service(config: ZenrayConfig, client: FakeClient) -> AsyncGenerator[ClusterCompletionService, None]:
    made = ClusterCompletionService(config, ByteTokenizer(), client)  # type: ignore[arg-type]
    following = asyncio.create_task(made.follow_verifiers())
    async with asyncio.timeout(5):
        while True:
            try:
                await made.check_ready()
                break
            except Unavailable:
                await asyncio.sleep(0.001)
    yield made
    following.cancel()


REQUEST = CompletionRequest("r-1", TextPrompt("abc"), session_id="editor", limits=Limits(max_tokens=4))


async def run(service: ClusterCompletionService, request: CompletionRequest = REQUEST) -> list[GenerateEvent]:
    return [event async for event in service.complete(request)]


def outcomes(service: ClusterCompletionService) -> dict[str, float]:
    lines = service.metrics.text().decode().splitlines()
    counted = [line for line in lines if line.startswith("zenray_requests_total")]
    return {line.split('outcome="')[1].split('"')[0]: float(line.split()[-1]) for line in counted}


async def test_a_request_gets_a_seed_a_deadline_and_a_key(
    service: ClusterCompletionService, client: FakeClient, config: ZenrayConfig
) -> None:
    await run(service)
    await run(service, replace(REQUEST, session_id="", sampling=Sampling(seed=5), limits=Limits(4, deadline_ms=700)))
    (first, key, deadline_s), (second, other_key, other_deadline_s) = client.requests
    assert first.sampling.seed is not None
    assert 0 <= first.sampling.seed < 2**63
    assert (key, first.session_id, second.session_id) == ("editor", "editor", "")
    assert second.sampling.seed == 5
    assert other_key not in ("", "editor")
    assert config.defaults.deadline_ms / 1000 - 30 < deadline_s - time.monotonic() < config.defaults.deadline_ms / 1000
    assert other_deadline_s - time.monotonic() < 0.7
    assert outcomes(service) == {"EOS": 2}


async def test_beyond_its_limit_a_request_is_refused_and_counted(
    service: ClusterCompletionService, client: FakeClient
) -> None:
    client.hold = asyncio.Event()
    async with aclosing(service.complete(REQUEST)) as one, aclosing(service.complete(REQUEST)) as two:
        await anext(one)
        await anext(two)
        with pytest.raises(Overloaded, match="max_ongoing_requests"):
            await run(service)
    assert outcomes(service) == {"RESOURCE_EXHAUSTED": 1, "CANCELLED": 2}
    client.hold = None
    assert len(await run(service)) == 3


async def test_errors_are_counted_by_their_status(service: ClusterCompletionService, client: FakeClient) -> None:
    for error, status in ((Unavailable("x"), "UNAVAILABLE"), (KeyError("x"), "INTERNAL")):
        client.error = error
        with pytest.raises(type(error)):
            await run(service)
        assert outcomes(service)[status] == 1


async def test_draining_refuses_new_requests_and_waits_for_running_ones(
    service: ClusterCompletionService, client: FakeClient
) -> None:
    client.hold = asyncio.Event()
    stream = service.complete(REQUEST)
    await anext(stream)
    draining = asyncio.create_task(service.drain(30))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="draining"):
        await run(service)
    with pytest.raises(Unavailable):
        await service.check_ready()
    assert not draining.done()
    client.hold.set()
    rest = [event async for event in stream]
    assert isinstance(rest[-1], Final)
    await asyncio.wait_for(draining, 5)


async def test_load_is_summed_over_the_replicas(service: ClusterCompletionService) -> None:
    found = await service.load()
    assert (found.load.free_blocks, found.load.total_blocks, found.load.rounds) == (7, 10, 7)
    assert found.load.drafters == (DrafterLoad("suffix", 4, 18, 8), DrafterLoad("recycling"))


async def test_a_verifier_whose_experts_have_no_place_is_shown_but_not_counted(
    service: ClusterCompletionService,
) -> None:
    found = await service.load()
    assert found.verifier_replicas == 1
    assert found.experts == {"b": HOMELESS}


async def test_a_service_is_ready_exactly_while_a_verifier_takes_requests(
    service: ClusterCompletionService, client: FakeClient
) -> None:
    client.unavailable = "no verifier replica is ready: an expert has no place"
    with pytest.raises(Unavailable, match="an expert has no place"):
        await service.check_ready()
    client.unavailable = None
    await service.check_ready()


async def test_the_log_has_no_text_of_a_request(
    service: ClusterCompletionService, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "zenray"):
        await run(service, replace(REQUEST, input=TextPrompt("secret = 'hunter2'")))
    record = next(record for record in caplog.records if record.message == "request")
    assert (record.request_id, record.outcome, record.completion_tokens) == ("r-1", "EOS", 1)  # type: ignore[attr-defined]
    assert "hunter2" not in repr(vars(record))
