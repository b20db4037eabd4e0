"""A document that is opened is read at once, not when the first key is pressed."""

from __future__ import annotations

from typing import Any

import pytest

from zenray.config import ContextSettings
from zenray.context.document_events import DocumentClosed, DocumentOpened
from zenray.context.prompt import gather
from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.surroundings import Document
from zenray.engine.request import Limits
from zenray.model.tokenizer import ByteTokenizer
from zenray.serving.prompts import Prompts

SHAPES = "def perimeter_of_rectangle(width, height):\n    return 2 * (width + height)\n"
USER = "from shapes import perimeter_of_rectangle\n\nprint(perimeter_of_rectangle("


async def test_an_opened_document_is_read_once_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    really = gather.read_document

    def noted(document: Document) -> Any:
        read.append(document.path)
        return really(document)

    monkeypatch.setattr(gather, "read_document", noted)
    prompts = Prompts(ContextSettings(max_prompt_tokens=2000), ByteTokenizer())
    try:
        await prompts.apply("s", DocumentOpened("shapes.py", "python", SHAPES, 1))
        await prompts.apply("s", DocumentOpened("other.py", "python", "x = 1\n", 1))
        await prompts.apply("s", DocumentClosed("other.py"))
        editor = EditorState("main.py", "python", USER, len(USER))
        request = CompletionRequest("r", editor, "s", limits=Limits(16), suggestion=FOR_EDITORS)
        prompt = await prompts.assemble(await prompts.resolve(request), 4096)
    finally:
        prompts.close()
    assert sorted(read) == ["main.py", "other.py", "shapes.py"]
    assert "def perimeter_of_rectangle" in prompt.text
