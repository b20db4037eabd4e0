"""What a job gets from verifiers that refuse, break, cut and fall silent: whole answers, or a typed error."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import grpc.aio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.batch.client.generator import VerifierGenerator, connected
from zenray.batch.client.remote_tokenizer import fetch_tokenizer
from zenray.batch.client.settings import ClientSettings
from zenray.batch.client.verifiers import OneModel
from zenray.batch.job import Generated, ModelIdentity
from zenray.engine.request import (
    Delta,
    EngineLoad,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Scored,
    ScoreEvent,
    Started,
    Timings,
    Usage,
)
from zenray.engine.scoring import ScoredRows, ScoreFormat, Scoring
from zenray.errors import DeadlineExceeded, InvalidRequest, ModelFileError, Overloaded, Unavailable, ZenrayError
from zenray.model.presets import preset_config
from zenray.model.tokenizer import ByteTokenizer
from zenray.serving.channels import SERVER_OPTIONS, bind
from zenray.serving.directory import Endpoint
from zenray.serving.model_card import model_key
from zenray.serving.verifier_service import VerifierServicer
from zenray.v1 import common_pb2, verifier_pb2, verifier_pb2_grpc

MODEL = common_pb2.ModelInfo(
    name="scripted", sha256="ab" * 32, weight_format="bf16", context_length=4096, vocab_size=264
)
PATIENT = ClientSettings(patience_s=30.0, attempt_timeout_s=10.0, failover_timeout_s=0.2, load_period_s=0.01)
ANSWER = (65, 66, 67)

RECORDS = tuple(
    ScoredRows(
        position,
        np.array([-position], np.float32),
        np.zeros(1, np.float32),
        np.ones(1, np.int32),
        np.zeros(1, np.int32),
        np.zeros(1, np.float32),
        np.zeros(1, np.float32),
        np.zeros((1, 0), np.int32),
    )
    for position in (1, 2, 3)
)

Mishap = Exception | FinishReason
"""What an attempt ends with instead of an answer: an error before or amid the tokens, or an early end."""
TRANSIENT: tuple[Mishap, ...] = (
    Unavailable("starting", 1), DeadlineExceeded("too late"), RuntimeError("a bug"),
    FinishReason.DEADLINE, FinishReason.CANCELLED, FinishReason.SUPERSEDED,
)  # fmt: skip
MISHAPS = st.one_of(
    st.tuples(st.integers(0, 2), st.sampled_from(TRANSIENT)),
    st.just((0, Overloaded("full", 1))),  # Said before anything else.
)


@dataclass
class ScriptedEngine:
    """Answers `ANSWER` once its mishaps are used up. `places` sequences run, the others wait."""

    mishaps: deque[tuple[int, Mishap]] = field(default_factory=deque)
    places: int = 4
    max_waiting: int = 8
    hold: asyncio.Event | None = None
    requests: list[GenerateRequest] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0
    engine = SimpleNamespace(
        model=SimpleNamespace(tokenizer=ByteTokenizer(), config=preset_config("tiny", {})), max_sequence_tokens=4096
    )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        self.requests.append(request)
        count = request.sampling.n
        self.num_open += count
        self.most_open = max(self.most_open, self.num_open)
        after, mishap = self.mishaps.popleft() if self.mishaps else (None, None)
        try:
            yield Started(len(request.prompt_token_ids), 0)
            if self.hold is not None:
                await self.hold.wait()
            for number, token_id in enumerate(ANSWER):
                if number == after and isinstance(mishap, Exception):
                    raise mishap
                for index in range(count):
                    yield Delta(index, chr(token_id + index), (token_id + index,))
            reason = mishap if isinstance(mishap, FinishReason) else FinishReason.LENGTH
            for index in range(count):
                text = "".join(chr(token_id + index) for token_id in ANSWER)
                yield Final(index, text, reason, Usage(1, 3, 0), Timings(0, 1, 2))
        finally:
            self.num_open -= count

    async def score(self, request: GenerateRequest) -> AsyncGenerator[ScoreEvent, None]:
        """A record for every token, in one part each; mishaps as above."""
        self.requests.append(request)
        after, mishap = self.mishaps.popleft() if self.mishaps else (None, None)
        yield Started(len(request.prompt_token_ids), 0)
        for number, part in enumerate(RECORDS):
            if number == after and isinstance(mishap, Exception):
                raise mishap
            yield Scored(part)
        reason = mishap if isinstance(mishap, FinishReason) else FinishReason.LENGTH
        yield Final(0, "", reason, Usage(4, 0, 0), Timings(0, 1, 2))

    def load(self) -> EngineLoad:
        running = min(self.num_open, self.places)
        return EngineLoad(running, self.num_open - running, self.max_waiting)


@asynccontextmanager
async def serving(
    engines: Sequence[ScriptedEngine],
    client: ClientSettings = PATIENT,
    model: common_pb2.ModelInfo = MODEL,
    on_tokens: Callable[[int], None] = lambda count: None,
) -> AsyncIterator[VerifierGenerator]:
    servers, endpoints = [], []
    for number, engine in enumerate(engines):
        server = grpc.aio.server(options=SERVER_OPTIONS)
        servicer = VerifierServicer(engine, MODEL, f"replica-{number}")  # type: ignore[arg-type]
        verifier_pb2_grpc.add_VerifierServiceServicer_to_server(servicer, server)
        endpoints.append(Endpoint(f"replica-{number}", bind(server, "127.0.0.1"), model=model_key(MODEL)))
        servers.append(server)
        await server.start()

    async def listed() -> AsyncGenerator[list[Endpoint], None]:
        yield endpoints
        await asyncio.Event().wait()

    try:
        async with connected(OneModel(listed, model_key(model)), client, on_tokens) as generator:
            yield generator
    finally:
        await asyncio.gather(*(server.stop(0) for server in servers))


async def ask(generator: VerifierGenerator, count: int = 1) -> tuple[Generated, ...]:
    return await generator.generate([1, 2], Sampling(temperature=1.0, seed=5, n=count), Limits(max_tokens=3))


async def ask_for_records(generator: VerifierGenerator) -> ScoredRows:
    return await generator.score([5, 6, 7, 8], Scoring(ScoreFormat(8, 0.9, 0)), seed=2**63 - 1)


def whole(count: int = 1) -> tuple[Generated, ...]:
    texts = ["".join(chr(token_id + index) for token_id in ANSWER) for index in range(count)]
    return tuple(Generated(text, tuple(map(ord, text)), FinishReason.LENGTH) for text in texts)


async def test_all_choices_come_whole_with_the_models_identity_and_tokenizer() -> None:
    engine = ScriptedEngine()
    async with serving([engine]) as generator:
        assert await ask(generator, 3) == whole(3)
        assert generator.model == ModelIdentity("scripted", "ab" * 32, "bf16", 4096, 264)
        assert generator.tokenizer.encode("def é") == ByteTokenizer().encode("def é")
    assert engine.requests[0].priority is Priority.BATCH


@settings(deadline=None, max_examples=8)
@given(st.lists(MISHAPS, max_size=4), st.integers(1, 2))
def test_no_mishap_is_ever_an_answer(mishaps: list[tuple[int, Mishap]], num_replicas: int) -> None:
    bugs = [mishap for _, mishap in mishaps if isinstance(mishap, RuntimeError)]

    async def story() -> None:
        engines = [ScriptedEngine() for _ in range(num_replicas)]
        for engine in engines:
            engine.mishaps = deque(mishaps) if engine is engines[0] else deque()
        async with serving(engines) as generator:
            assert await ask(generator) == whole()

    if len(bugs) < 3:
        asyncio.run(story())


@settings(deadline=None, max_examples=8)
@given(st.lists(MISHAPS, max_size=4), st.integers(1, 2))
def test_no_mishap_is_ever_a_record(mishaps: list[tuple[int, Mishap]], num_replicas: int) -> None:
    bugs = [mishap for _, mishap in mishaps if isinstance(mishap, RuntimeError)]

    async def story() -> None:
        engines = [ScriptedEngine() for _ in range(num_replicas)]
        engines[0].mishaps = deque(mishaps)
        async with serving(engines) as generator:
            rows = await ask_for_records(generator)
        assert (rows.first_position, rows.gold_logprobs_R.tolist()) == (1, [-1.0, -2.0, -3.0])
        assert {request.priority for engine in engines for request in engine.requests} == {Priority.BATCH}
        assert {request.sampling.seed for engine in engines for request in engine.requests} == {2**63 - 1}

    if len(bugs) < 3:
        asyncio.run(story())


async def test_scored_tokens_are_counted_as_they_come_and_bad_requests_are_not_sent_again() -> None:
    counts: list[int] = []
    engine = ScriptedEngine()
    async with serving([engine], on_tokens=counts.append) as generator:
        await ask_for_records(generator)
        assert counts == [1, 1, 1]
        with pytest.raises(InvalidRequest, match=r"token_ids.0. is 264; allowed: 0 to 263"):
            await generator.score([264, 1], Scoring(), seed=0)
    assert len(engine.requests) == 1


async def test_a_long_request_has_the_time_its_tokens_take() -> None:
    """Scoring 4,096 tokens on a busy CPU takes minutes, and an attempt that is cut has lost them all."""
    deadlines_ms: list[int | None] = []

    class Noting(ScriptedEngine):
        async def score(self, request: GenerateRequest) -> AsyncGenerator[ScoreEvent, None]:
            deadlines_ms.append(request.limits.deadline_ms)
            raise InvalidRequest.of("nothing", 0, "more")
            yield

    client = replace(PATIENT, attempt_timeout_s=10.0, scored_token_timeout_s=0.5)
    async with serving([Noting()], client) as generator:
        for num_tokens in (2, 1000):
            with pytest.raises(InvalidRequest):
                await generator.score([1] * num_tokens, Scoring(), seed=0)
    short_ms, long_ms = (each or 0 for each in deadlines_ms)
    assert 0 < short_ms <= 11_000 < 500_000 < long_ms <= 510_000


async def test_what_no_retry_can_help_is_said_at_once() -> None:
    engine = ScriptedEngine(deque([(0, InvalidRequest.of("prompt_token_ids", 9, "8 tokens"))]))
    async with serving([engine]) as generator:
        with pytest.raises(InvalidRequest, match="prompt_token_ids is 9; allowed: 8 tokens"):
            await ask(generator)
        with pytest.raises(InvalidRequest, match=r"sampling\.seed"):
            await generator.generate([1], Sampling(temperature=0.5), Limits(max_tokens=3))
    assert len(engine.requests) == 1


async def test_patience_ends_with_an_error_that_says_how_to_go_on() -> None:
    engine = ScriptedEngine(deque([(0, Unavailable("starting", 1))] * 1000))
    client = ClientSettings(patience_s=0.3, attempt_timeout_s=1.0, failover_timeout_s=0.05)
    async with serving([engine], client) as generator:
        with pytest.raises(Unavailable, match="start the job again with the same output"):
            await ask(generator)


async def test_a_request_is_to_blame_for_bugs_only_where_others_get_tokens() -> None:
    bugs = [(0, RuntimeError("a bug"))] * 1000
    client = ClientSettings(patience_s=0.5, attempt_timeout_s=1.0, failover_timeout_s=0.05)
    async with serving([ScriptedEngine(deque(bugs))], client) as generator:
        with pytest.raises(Unavailable, match="start the job again with the same output"):
            await ask(generator)

    class Choosy(ScriptedEngine):
        """Fails for one prompt."""

        async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
            self.mishaps = deque(bugs[:1] if request.prompt_token_ids == (9,) else ())
            async for event in super().generate(request):
                yield event

    async with serving([Choosy()]) as generator:
        blamed = asyncio.create_task(generator.generate([9], Sampling(seed=5), Limits(max_tokens=3)))
        async with asyncio.timeout(20):
            while not blamed.done():
                assert await ask(generator) == whole()
        with pytest.raises(ZenrayError, match="internal error") as raised:
            await blamed
        assert not isinstance(raised.value, Overloaded)


async def test_a_verifier_of_another_model_is_not_asked() -> None:
    other = common_pb2.ModelInfo(name="other", weight_format="bf16", context_length=4096, vocab_size=264)
    client = ClientSettings(patience_s=0.1)
    with pytest.raises(Unavailable, match=r"serves scripted@abab.*the job began with other"):
        async with serving([ScriptedEngine()], client, other):
            pass


async def test_the_engines_are_full_and_their_queues_short() -> None:
    """Requests without end and two engines of four places: all taken, and nowhere near the eight that may wait."""
    engines = [ScriptedEngine(hold=asyncio.Event()) for _ in range(2)]
    async with serving(engines) as generator:
        requests = [
            asyncio.create_task(generator.generate([number], Sampling(seed=1), Limits(max_tokens=3)))
            for number in range(60)
        ]
        async with asyncio.timeout(10):
            while not all(engine.num_open >= engine.places for engine in engines):
                await asyncio.sleep(0.01)
        for engine in engines:
            assert engine.hold is not None
            engine.hold.set()
        assert all(answer == whole() for answer in await asyncio.gather(*requests))
    assert all(engine.most_open < engine.places + engine.max_waiting for engine in engines)


class _Parts:
    """A stub whose verifier sends these parts."""

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    def GetTokenizer(self, request: verifier_pb2.GetTokenizerRequest, timeout: float) -> _Parts:
        return self

    async def __aiter__(self) -> AsyncGenerator[verifier_pb2.GetTokenizerResponse, None]:
        for part in self._parts:
            yield verifier_pb2.GetTokenizerResponse(part=part)

    def cancel(self) -> None:
        pass


async def test_a_tokenizer_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match="no tokenizer can be read"):
        await fetch_tokenizer(_Parts([b'{"kind": ', b'"other"}']))
    monkeypatch.setattr("zenray.batch.client.remote_tokenizer.MAX_TOKENIZER_BYTES", 100)
    with pytest.raises(ModelFileError, match="more than 100 bytes"):
        await fetch_tokenizer(_Parts([b" " * 60] * 1000))
