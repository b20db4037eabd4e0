"""Editors on a running platform: keystrokes, suggestions typed through, documents of a session, outcomes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import count
from pathlib import Path
from random import Random

import httpx
import pytest
import ray

from zenray.api.client import AsyncClient, CallFailed, Client
from zenray.errors import StaleDocument
from zenray.serving.app import Platform
from zenray.serving.harness import eventually
from zenray.v1 import common_pb2, completion_pb2, context_pb2

DOCUMENT = "def area(width, height):\n    "
MARKER = "hunter2_in_source"

Events = Generator[completion_pb2.CompleteEvent, None, None]
_sessions = count()


@pytest.fixture
def session_id() -> str:
    return f"editor-{next(_sessions)}"


def at_end(session_id: str, text: str, max_tokens: int = 24) -> completion_pb2.CompleteRequest:
    """A completion at the end of a document that runs to max_tokens."""
    message = completion_pb2.CompleteRequest(session_id=session_id)
    message.editor.path, message.editor.language, message.editor.text = "area.py", "python", text
    message.editor.cursor.offset = len(text.encode())
    return long(message, max_tokens)


def long(message: completion_pb2.CompleteRequest, max_tokens: int) -> completion_pb2.CompleteRequest:
    message.limits.max_tokens, message.limits.ignore_eos = max_tokens, True
    options = message.suggestion
    options.scope_end = options.suffix_match = options.repetition = False
    options.single_line = options.heal_tokens = False
    return message


def tracked(session_id: str, version: int, text: str, max_tokens: int = 24) -> completion_pb2.CompleteRequest:
    message = completion_pb2.CompleteRequest(session_id=session_id)
    message.editor.path = "area.py"
    message.editor.cursor.offset = len(text.encode())
    message.editor.tracked.version = version
    message.editor.tracked.content_hash = hashlib.sha256(text.encode()).hexdigest()
    return long(message, max_tokens)


def opened(session_id: str, text: str, version: int) -> context_pb2.UpdateDocumentsRequest:
    document = context_pb2.DocumentOpened(path="area.py", text=text, version=version)
    return context_pb2.UpdateDocumentsRequest(session_id=session_id, opened=document)


def read_until(stream: Events, num_characters: int) -> str:
    """What a stream has said once it is so long."""
    text = ""
    while len(text) < num_characters:
        text += next(stream).delta.text
    return text


def generated(client: Client) -> int:
    return client.load().load.generated_tokens


def metric(platform: Platform, sample: str) -> float:
    lines = httpx.get(f"{platform.http_url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(sample))


def test_six_keystrokes_leave_one_running_generation(client: Client, session_id: str) -> None:
    typed, streams = "", []
    for _ in range(6):
        streams.append(client.complete(at_end(session_id, DOCUMENT + typed, max_tokens=2000)))
        said = read_until(streams[-1], 1)
        typed += "x" if said[0] != "x" else "y"
    eventually(lambda: client.load().load.running_sequences == 1, "one generation runs")
    with ThreadPoolExecutor(5) as pool:
        ends = list(pool.map(lambda stream: list(stream)[-1].final, streams[:5]))
    assert {end.finish_reason for end in ends} == {common_pb2.FINISH_REASON_SUPERSEDED}
    assert client.load().load.running_sequences == 1
    assert read_until(streams[5], 5)
    streams[5].close()  # The fixture sees that every block is free again.


def test_a_suggestion_is_typed_through_without_the_verifier(
    platform: Platform, client: Client, session_id: str
) -> None:
    text = client.complete_once(at_end(session_id, DOCUMENT, max_tokens=60)).choices[0].text
    before, reused = generated(client), metric(platform, "zenray_reused_total")
    for num_typed in range(1, len(text) - 16):
        events = list(client.complete(at_end(session_id, DOCUMENT + text[:num_typed], max_tokens=60)))
        assert events[0].started.reused
        assert events[-1].final.text == text[num_typed:]
        assert "".join(event.delta.text for event in events) == text[num_typed:]
    again = client.complete_once(at_end(session_id, DOCUMENT, max_tokens=60)).choices[0]
    assert again.text == text
    assert again.usage.completion_tokens == 0
    assert generated(client) == before
    assert metric(platform, "zenray_reused_total") - reused == len(text) - 16


def test_what_agrees_joins_a_running_completion(platform: Platform, client: Client, session_id: str) -> None:
    before, joined = generated(client), metric(platform, "zenray_joined_total")
    first = client.complete(at_end(session_id, DOCUMENT, max_tokens=800))
    said = read_until(first, 8)
    second = client.complete(at_end(session_id, DOCUMENT + said[:5], max_tokens=800))
    assert read_until(second, 1)[0] == said[5]
    assert client.load().load.running_sequences == 1
    whole, rest = list(first)[-1].final, list(second)[-1].final
    assert rest.text == whole.text[5:]
    assert rest.finish_reason == whole.finish_reason == common_pb2.FINISH_REASON_LENGTH
    assert generated(client) - before == whole.usage.completion_tokens == 800
    assert metric(platform, "zenray_joined_total") - joined == 1


def test_a_cursor_in_a_document_of_the_session_is_enough(client: Client, session_id: str) -> None:
    """Typed with tracked edits, the document gives the same text as sent whole."""
    edited = context_pb2.DocumentEdited(path="area.py", base_version=1, version=2)
    edit = edited.edits.add(text="area(width, height):\n    ")
    edit.start.line_column.line = edit.end.line_column.line = 0
    edit.start.line_column.column = edit.end.line_column.column = 4
    events = [
        opened(session_id, "def ", 1),
        context_pb2.UpdateDocumentsRequest(edited=edited),
    ]
    assert client.update_documents(events) == 2
    from_session = client.complete_once(tracked(session_id, 2, DOCUMENT)).choices[0].text
    assert client.complete_once(at_end(f"{session_id}-whole", DOCUMENT)).choices[0].text == from_session


def test_a_document_the_server_does_not_have_is_asked_for(client: Client, session_id: str) -> None:
    client.update_documents([opened(session_id, "def ", 1)])
    with pytest.raises(StaleDocument, match=r"area\.py") as stale:
        client.complete_once(tracked(session_id, 3, DOCUMENT))
    assert "DocumentOpened" in stale.value.remedy
    client.update_documents([opened(session_id, DOCUMENT, 3)])
    assert client.complete_once(tracked(session_id, 3, DOCUMENT)).choices[0].text


def test_a_prefetch_is_what_the_next_request_gets(platform: Platform, client: Client, session_id: str) -> None:
    asked = at_end(session_id, DOCUMENT + "return ", max_tokens=40)
    assert client.prefetch(asked) == 40
    before = generated(client)
    (started, *_, end) = client.complete(asked)
    assert started.started.reused
    assert len(end.final.text) > 0
    assert generated(client) == before


def test_outcomes_are_in_the_metrics(platform: Platform, client: Client, session_id: str) -> None:
    asked = at_end(session_id, DOCUMENT)
    asked.request_id = f"{session_id}-r"
    shown = client.complete_once(asked).choices[0].suggestion.text
    report = completion_pb2.ReportOutcomeRequest(request_id=asked.request_id, session_id=session_id, elapsed_ms=450)
    accepted = 'zenray_suggestion_outcomes_total{language="python",outcome="accepted"}'
    characters = 'zenray_accepted_characters_total{language="python"}'
    before = metric(platform, accepted), metric(platform, characters)
    for outcome in (completion_pb2.OUTCOME_SHOWN, completion_pb2.OUTCOME_ACCEPTED):
        report.outcome = outcome
        client.report_outcome(report)
    assert metric(platform, accepted) - before[0] == 1
    assert metric(platform, characters) - before[1] == len(shown)


def test_restless_editors_get_whole_answers_and_leave_nothing(platform: Platform, client: Client) -> None:
    """Several at once type, delete, give up and prefetch; the fixture sees that no block is lost. What was just
    superseded is in the engine's queue until its next step, so a burst may be refused."""

    async def edit(seed: int) -> None:
        random = Random(seed)
        text, running = DOCUMENT, []
        async with AsyncClient(platform.grpc_address) as editor:
            for _ in range(40):
                text = random.choice([text + random.choice("abc =(\n"), text[: -random.randint(1, 4)] or "x"])
                message = at_end(f"restless-{seed}", text, max_tokens=random.choice([4, 40]))
                if random.random() < 0.1:
                    running.append(asyncio.create_task(editor.prefetch(message)))
                else:
                    num_events = random.choice([1, 3, 1000])
                    running.append(asyncio.create_task(follow(editor, message, num_events)))
                await asyncio.sleep(random.choice([0, 0, 0.01]))
            for outcome in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    assert isinstance(outcome, CallFailed)
                    assert outcome.code == "RESOURCE_EXHAUSTED"

    async def follow(editor: AsyncClient, message: completion_pb2.CompleteRequest, num_events: int) -> None:
        events: list[completion_pb2.CompleteEvent] = []
        async with aclosing(editor.complete(message)) as stream:
            async for event in stream:
                events.append(event)
                if len(events) == num_events:
                    return
        deltas = [event.delta for event in events if event.HasField("delta")]
        final = events[-1].final
        assert events[0].HasField("started")
        assert final.text == "".join(delta.text for delta in deltas)
        assert final.usage.completion_tokens == sum(delta.token_count for delta in deltas)

    async def all_of_them() -> None:
        await asyncio.gather(*(edit(seed) for seed in range(5)))

    asyncio.run(all_of_them())


def test_no_log_of_the_platform_holds_source_text(client: Client, session_id: str) -> None:
    client.update_documents([opened(session_id, f"{MARKER} = ", 1)])
    client.complete_once(tracked(session_id, 1, f"{MARKER} = "))
    client.complete_once(at_end(session_id, f"class {MARKER}:\n    "))
    with pytest.raises(StaleDocument):
        client.complete_once(tracked(session_id, 9, MARKER))
    client.prefetch(at_end(session_id, f"def {MARKER}("))
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    texts = {path: path.read_bytes() for path in logs.rglob("*") if path.is_file()}
    assert any(session_id.encode() in text or b'"message": "request"' in text for text in texts.values())
    assert not [path for path, text in texts.items() if MARKER.encode() in text]
