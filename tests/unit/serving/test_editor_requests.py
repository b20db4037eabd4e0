"""What the service does for editors: documents of sessions, one completion for a document, suggestions, outcomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zenray.api.service import VerifierLoad
from zenray.config_load import load_config
from zenray.context.cursors import OffsetPosition, PositionUnit
from zenray.context.document_events import DocumentEdited, DocumentOpened, SessionEnded, TextEdit
from zenray.context.pieces import ContextSource
from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState, TextPrompt, TrackedEditor
from zenray.context.suggestion.model import CompletionFinal, CompletionStarted
from zenray.context.suggestion.outcomes import Outcome, OutcomeReport
from zenray.engine.request import (
    Delta,
    Final,
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    Limits,
    Priority,
    Sampling,
    Started,
    Timings,
    Usage,
)
from zenray.errors import DeadlineExceeded, InvalidRequest, StaleDocument, Unavailable
from zenray.model.tokenizer import ByteTokenizer
from zenray.serving.completion import ClusterCompletionService
from zenray.serving.prompts import Prompts
from zenray.v1 import common_pb2

TEXT = "return width * height"
DOCUMENT = "def area(width, height):\n    "


class FakeVerifiers:
    """A token for each word of TEXT; while `hold` is unset each waits for it after the first two."""

    num_reruns = 0

    def __init__(self) -> None:
        self.requests: list[tuple[GenerateRequest, float]] = []
        self.num_open = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def generate(
        self, request: GenerateRequest, affinity: str, deadline_s: float
    ) -> AsyncGenerator[GenerateEvent, None]:
        self.requests.append((request, deadline_s))
        self.num_open += 1
        try:
            num_prompt = len(request.prompt_token_ids)
            yield Started(num_prompt, num_prompt // 2)
            words = TEXT.split(" ")
            for number, word in enumerate(words):
                if number == 2:
                    await self.hold.wait()
                yield Delta(0, word if number == 0 else f" {word}", (number,))
            usage = Usage(num_prompt, len(words), num_prompt // 2, saved_tokens=9)
            yield Final(0, TEXT, FinishReason.SCOPE_END, usage, Timings(1, 2, 3))
        finally:
            self.num_open -= 1

    async def loads(self) -> dict[str, VerifierLoad]:
        return {}

    def check_available(self) -> None: ...

    async def info(self) -> common_pb2.ModelInfo:
        return common_pb2.ModelInfo(name="tiny", context_length=4096, vocab_size=512)


@pytest.fixture
def verifiers() -> FakeVerifiers:
    return FakeVerifiers()


@pytest.fixture
async def service(verifiers: FakeVerifiers, tmp_path: Path) -> AsyncGenerator[ClusterCompletionService, None]:
    settings = [f"suggestion.outcome_log={tmp_path}", "context.version_wait_ms=20", "context.max_prompt_tokens=1024"]
    config = load_config("tiny", None, settings)
    made = ClusterCompletionService(config, ByteTokenizer(), verifiers)  # type: ignore[arg-type]
    following = asyncio.create_task(made.follow_verifiers())
    async with asyncio.timeout(5):
        while True:
            try:
                made.model_info()
                break
            except Unavailable:
                await asyncio.sleep(0.001)
    yield made
    following.cancel()
    await made.drain(5)


def at_end(text: str, request_id: str = "r", **fields: object) -> CompletionRequest:
    editor = EditorState("area.py", "python", text, len(text))
    request = CompletionRequest(request_id, editor, "editor-1", limits=Limits(64), suggestion=FOR_EDITORS)
    return replace(request, **fields)  # type: ignore[arg-type]


def tracked(version: int, offset: int) -> CompletionRequest:
    given = TrackedEditor("area.py", "python", version, "", OffsetPosition(offset), PositionUnit.CODE_POINT)
    return at_end("", input=given)


async def run(service: ClusterCompletionService, request: CompletionRequest) -> list[GenerateEvent]:
    return [event async for event in service.complete(request)]


def count(service: ClusterCompletionService, name: str, **labels: str) -> float | None:
    return service.metrics.registry.get_sample_value(name, labels)


async def settle(verifiers: FakeVerifiers, num_requests: int) -> None:
    """Until the verifiers had so many requests and said of the last what they say at once."""
    async with asyncio.timeout(10):
        while len(verifiers.requests) < num_requests:
            await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_first_event_says_where_the_prompt_comes_from_and_the_last_what_to_offer(
    service: ClusterCompletionService,
) -> None:
    events = await run(service, at_end(DOCUMENT))
    started, final = events[0], events[-1]
    assert isinstance(started, CompletionStarted)
    assert not started.reused
    assert sum(num_tokens for _, num_tokens in started.attribution) == started.prompt_tokens
    sources = [source for source, _ in started.attribution]
    assert ContextSource.PREFIX in sources
    assert len(sources) == len(set(sources))
    assert isinstance(final, CompletionFinal)
    assert final.suggestion is not None
    assert final.suggestion.text == TEXT
    assert count(service, "zenray_saved_tokens_total", reason="scope_end") == 9


async def test_a_plain_prompt_gets_no_suggestion_and_shares_nothing(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    plain = CompletionRequest("r", TextPrompt("def f("), "editor-1", limits=Limits(4))
    for _ in range(2):
        final = (await run(service, plain))[-1]
        assert isinstance(final, CompletionFinal)
        assert final.suggestion is None
    assert len(verifiers.requests) == 2


async def test_a_cursor_in_a_document_of_the_session_is_enough(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    await service.apply_document_event("editor-1", DocumentOpened("area.py", "python", "def are:\n    ", 1))
    at = OffsetPosition(7)
    edit = TextEdit(at, at, PositionUnit.CODE_POINT, "a(width, height)")
    await service.apply_document_event("editor-1", DocumentEdited("area.py", 1, 2, (edit,)))
    await run(service, tracked(2, len(DOCUMENT)))
    await run(service, at_end(DOCUMENT, session_id="editor-2"))
    from_session, from_text = (
        ByteTokenizer().decode(list(request.prompt_token_ids)) for request, _ in verifiers.requests
    )
    assert DOCUMENT in from_text
    assert DOCUMENT in from_session


async def test_a_version_on_its_way_is_waited_for_and_one_that_does_not_come_is_asked_for(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    await service.apply_document_event("editor-1", DocumentOpened("area.py", "python", DOCUMENT, 1))
    waiting = asyncio.create_task(run(service, tracked(2, len(DOCUMENT))))
    await settle(verifiers, 0)
    assert not waiting.done()
    end = OffsetPosition(len(DOCUMENT))
    edit = TextEdit(end, end, PositionUnit.CODE_POINT, "x")
    await service.apply_document_event("editor-1", DocumentEdited("area.py", 1, 2, (edit,)))
    assert isinstance((await waiting)[-1], Final)
    with pytest.raises(StaleDocument, match=r"area\.py.*send"):
        await run(service, tracked(3, 0))
    assert count(service, "zenray_requests_total", priority="interactive", outcome="FAILED_PRECONDITION") == 1


async def test_keystrokes_leave_one_stream_and_what_agrees_joins_it(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    verifiers.hold.clear()
    asked = []
    for number, typed in enumerate(("", "x", "xy", "xyz", "xyzreturn wi")):
        asked.append(asyncio.create_task(run(service, at_end(DOCUMENT + typed))))
        await settle(verifiers, min(number + 1, 4))
        assert verifiers.num_open == 1
    verifiers.hold.set()
    finals = [events[-1] for events in await asyncio.gather(*asked)]
    assert [final.text for final in finals if isinstance(final, CompletionFinal)] == [
        *["return width"] * 3,
        TEXT,
        TEXT.removeprefix("return wi"),
    ]
    assert [final.finish_reason.value for final in finals if isinstance(final, CompletionFinal)] == [
        *["SUPERSEDED"] * 3,
        *["SCOPE_END"] * 2,
    ]
    assert [final.suggestion is None for final in finals if isinstance(final, CompletionFinal)] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert verifiers.num_open == 0
    assert len(verifiers.requests) == 4
    assert count(service, "zenray_superseded_total") == 3
    assert count(service, "zenray_wasted_tokens_total", reason="superseded") == 3 * 2
    assert count(service, "zenray_joined_total") == 1


async def test_typing_through_a_suggestion_asks_no_verifier(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    await run(service, at_end(DOCUMENT))
    for num_typed in range(1, len(TEXT)):
        events = await run(service, at_end(DOCUMENT + TEXT[:num_typed]))
        assert isinstance(events[0], CompletionStarted)
        assert events[0].reused
        assert isinstance(events[-1], CompletionFinal)
        assert events[-1].text == TEXT[num_typed:]
    assert len(verifiers.requests) == 1
    assert count(service, "zenray_reused_total") == len(TEXT) - 1
    assert count(service, "zenray_prompt_tokens_count") == 1
    await service.apply_document_event("editor-1", SessionEnded())
    await run(service, at_end(DOCUMENT))
    assert len(verifiers.requests) == 2


async def test_the_deadline_of_a_listener_is_not_that_of_the_verifier(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    verifiers.hold.clear()
    patient = asyncio.create_task(run(service, at_end(DOCUMENT)))
    await settle(verifiers, 1)
    hasty = at_end(DOCUMENT + "return", limits=Limits(64, deadline_ms=20))
    final = (await run(service, hasty))[-1]
    assert isinstance(final, Final)
    assert (final.finish_reason, final.text) == (FinishReason.DEADLINE, " width")
    with pytest.raises(DeadlineExceeded):
        await run(service, at_end(DOCUMENT + TEXT[:20], limits=Limits(64, deadline_ms=20)))
    verifiers.hold.set()
    assert isinstance((await patient)[-1], Final)
    ((_, deadline_s),) = verifiers.requests
    assert deadline_s - time.monotonic() > 500


async def test_a_prefetch_waits_at_batch_priority_for_its_request(
    service: ClusterCompletionService, verifiers: FakeVerifiers
) -> None:
    assert await service.prefetch(at_end(DOCUMENT)) == len(TEXT.split(" "))
    assert verifiers.requests[0][0].priority is Priority.BATCH
    events = await run(service, at_end(DOCUMENT + "ret"))
    assert isinstance(events[-1], Final)
    assert events[-1].text == TEXT[3:]
    assert len(verifiers.requests) == 1
    assert count(service, "zenray_prefetches_total", outcome="KEPT") == 1


async def test_what_a_prefetch_expects_is_no_edit(service: ClusterCompletionService) -> None:
    await run(service, at_end(DOCUMENT))
    before = await service.assemble(at_end("y = 1\n", input=EditorState("other.py", "python", "y = 1\n", 6)))
    await service.prefetch(at_end(DOCUMENT + "zzz = 1\n"))
    after = await service.assemble(at_end("y = 1\n", input=EditorState("other.py", "python", "y = 1\n", 6)))
    assert after.token_ids == before.token_ids


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"session_id": ""}, "request is .*session_id"),
        ({"input": TextPrompt("x")}, "request is .*editor"),
        ({"sampling": Sampling(seed=1)}, "sampling is .*no seed"),
        ({"suggestion": replace(FOR_EDITORS, reuse=False)}, r"suggestion\.reuse is False"),
    ],
)
async def test_a_prefetch_that_nothing_could_use_is_refused(
    service: ClusterCompletionService, fields: dict[str, object], named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        await service.prefetch(at_end(DOCUMENT, **fields))


async def test_a_draining_service_takes_no_documents(service: ClusterCompletionService) -> None:
    await service.drain(5)
    with pytest.raises(Unavailable, match="draining"):
        await service.apply_document_event("editor-1", DocumentOpened("area.py", "python", DOCUMENT, 1))


async def test_nobody_waits_for_a_prompt_beyond_the_deadline(
    service: ClusterCompletionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Prompts, "assemble", never)
    alone = at_end(DOCUMENT, session_id="", limits=Limits(deadline_ms=5))
    with pytest.raises(DeadlineExceeded, match="assembled"):
        await run(service, alone)
    with pytest.raises(DeadlineExceeded, match="assembled"):
        await service.assemble(alone)


async def test_an_outcome_is_counted_and_logged(service: ClusterCompletionService, tmp_path: Path) -> None:
    await run(service, at_end(DOCUMENT, "r-7"))
    await service.report_outcome(OutcomeReport("r-7", Outcome.ACCEPTED, "editor-1", elapsed_ms=800))
    assert count(service, "zenray_suggestion_outcomes_total", language="python", outcome="accepted") == 1
    assert count(service, "zenray_accepted_characters_total", language="python") == len(TEXT)
    await service.drain(5)
    (row,) = pq.read_table(tmp_path).to_pylist()
    assert (row["request_id"], row["language"], row["finish_reason"]) == ("r-7", "python", "SCOPE_END")


async def test_no_log_holds_source_text(
    service: ClusterCompletionService, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    marker = "hunter2_in_source"
    with caplog.at_level("DEBUG"):
        await service.apply_document_event("editor-1", DocumentOpened("area.py", "python", f"{marker} = ", 1))
        await run(service, tracked(1, 5))
        await run(service, at_end(f"{marker} = "))
        with pytest.raises(StaleDocument):
            await run(service, tracked(9, 0))
        async with aclosing(service.complete(at_end(f"def {marker}("))) as left:
            await anext(left)
        await service.prefetch(at_end(f"class {marker}:"))
        await service.report_outcome(OutcomeReport("r", Outcome.ACCEPTED, "editor-1"))
        await service.drain(5)
    assert caplog.records
    logged = repr([vars(record) for record in caplog.records])
    written = repr(pq.read_table(tmp_path).to_pylist())
    assert "python" in written
    for text in (marker, TEXT):
        assert text not in logged
        assert text not in written
