"""What prompts are made from besides the request: uploaded files, and how long prompts have taken."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

import pytest

from zenray.config import ContextSettings
from zenray.context.document_events import DocumentOpened, FileUploaded, SessionEnded
from zenray.context.pieces import ContextSource
from zenray.context.prompt.memory import PromptMemory
from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.surroundings import Document
from zenray.engine.request import Final, FinishReason, Limits, Timings, Usage
from zenray.model.tokenizer import ByteTokenizer
from zenray.serving.prompts import MAX_READ_AHEAD, PrefillRate, Prompts
from zenray.serving.uploads import Uploads

SHAPES = "def perimeter_of_rectangle(width, height):\n    return 2 * (width + height)\n"
USER = "from shapes import perimeter_of_rectangle\n\nprint(perimeter_of_rectangle("


@pytest.fixture
async def prompts() -> AsyncGenerator[Prompts, None]:
    made = Prompts(ContextSettings(max_prompt_tokens=2000, snippet_share=0.5), ByteTokenizer())
    yield made
    made.close()


async def test_what_was_uploaded_is_found_by_the_next_prompt_until_it_is_forgotten(prompts: Prompts) -> None:
    editor = EditorState("main.py", "python", USER, len(USER))
    request = CompletionRequest("r", editor, "s", limits=Limits(16), suggestion=FOR_EDITORS)
    alone = await prompts.assemble(await prompts.resolve(request), 4096)
    await prompts.apply("s", FileUploaded("shapes.py", SHAPES))
    informed = await prompts.assemble(await prompts.resolve(request), 4096)
    await prompts.apply("s", FileUploaded("shapes.py", ""))
    forgotten = await prompts.assemble(await prompts.resolve(request), 4096)
    sources = [{piece.source for piece in prompt.pieces} for prompt in (alone, informed, forgotten)]
    found = {ContextSource.DEFINITION, ContextSource.IMPORT}
    assert [bool(found & each) for each in sources] == [False, True, False]


async def test_documents_opened_faster_than_they_are_read_do_not_pile_up(
    prompts: Prompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, read = threading.Event(), []

    def slowly(_: PromptMemory, document: Document) -> None:
        may_go_on.wait()
        read.append(document.path)

    monkeypatch.setattr(PromptMemory, "read_ahead", slowly)
    for number in range(3 * MAX_READ_AHEAD):
        await prompts.apply("s", DocumentOpened(f"{number}.py", "python", SHAPES, 1))
    may_go_on.set()
    await prompts.apply("s", FileUploaded("shapes.py", SHAPES))  # waits for its turn behind them
    assert read == [f"{number}.py" for number in range(MAX_READ_AHEAD)]
    await prompts.apply("s", DocumentOpened("last.py", "python", SHAPES, 1))
    await prompts.apply("s", FileUploaded("shapes.py", SHAPES))
    assert read[MAX_READ_AHEAD:] == ["last.py"]


async def test_uploads_are_indexed_in_order_and_nobody_waits_for_more() -> None:
    with ThreadPoolExecutor(1) as executor:
        uploads = Uploads(executor)
        await uploads.settled()
        index = uploads.new_index()
        for number in range(5):
            index.put("a.py", f"def number_{number}():\n    pass\n")
        index.put("b.py", SHAPES)
        index.remove("b.py")
        await uploads.settled()
        names = [f"number_{number}" for number in range(5)]
        assert [snippet.text for snippet in index.definitions(names, "python", 9)] == ["def number_4():\n    pass\n"]
        assert index.definitions(["perimeter_of_rectangle"], "python", 9) == []


def final(num_prompt: int, num_cached: int, queue_ms: float, first_token_ms: float) -> Final:
    usage = Usage(num_prompt, 1, num_cached)
    return Final(0, "x", FinishReason.EOS, usage, Timings(queue_ms, first_token_ms, first_token_ms))


def test_the_rate_of_prompts_follows_what_was_computed() -> None:
    rate = PrefillRate()
    rate.observe(final(1000, 990, 0, 5))  # too few tokens to tell
    rate.observe(final(1000, 0, 0, 0))  # nothing came
    assert rate.tokens_per_s is None
    rate.observe(final(1000, 500, 100, 600))
    assert rate.tokens_per_s == pytest.approx(1000)
    rate.observe(final(400, 0, 0, 200))
    assert rate.tokens_per_s is not None
    assert 1000 < rate.tokens_per_s < 2000


async def test_the_end_of_a_session_is_the_end_of_what_was_shown_for_it(prompts: Prompts) -> None:
    await prompts.apply("s", DocumentOpened("shapes.py", "python", SHAPES, 1))
    editor = EditorState("main.py", "python", USER, len(USER))
    request = CompletionRequest("r", editor, "s", limits=Limits(16), suggestion=FOR_EDITORS)
    informed = await prompts.assemble(await prompts.resolve(request), 4096)
    await prompts.apply("s", SessionEnded())
    forgotten = await prompts.assemble(await prompts.resolve(request), 4096)
    assert "shapes.py" in informed.text
    assert "shapes.py" not in forgotten.text
