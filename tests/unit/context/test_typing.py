"""While someone types, a prompt begins as the one before it did: the prefix cache has at least nine tenths of it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from zenray.bench.aggregation import library_documents, reused_tokens, type_through
from zenray.context.assemble import assemble
from zenray.context.budget import PromptLimits
from zenray.context.pieces import ContextSource, Snippet
from zenray.context.prompt.memory import PromptMemory
from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.surroundings import Document, Surroundings
from zenray.engine.request import Limits
from zenray.model.load import load_tokenizer
from zenray.model.tokenizer import ByteTokenizer, Tokenizer


class WordTokenizer(ByteTokenizer):
    """A token per word, run of spaces, line end or sign: about as long as those of a real one."""

    _PIECE = re.compile(r"\n+| ?\w{1,7}|[^\S\n]{1,16}|[^\w\s]{1,2}")

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []

    def _encode(self, text: str, data: bytes) -> list[int]:
        ids = []
        for piece in self._PIECE.findall(text):
            if piece not in self._ids:
                self._ids[piece] = 264 + len(self._pieces)
                self._pieces.append(piece)
            ids.append(self._ids[piece])
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id - 264].encode() if token_id >= 264 else super().token_bytes(token_id)


@pytest.fixture(scope="module")
def library() -> tuple[Document, Surroundings]:
    return library_documents()


def share(tokenizer: Tokenizer, budget: int, place: float, library: tuple[Document, Surroundings]) -> float:
    """Of the prompts of 240 keystrokes from `place` of the file on, what the cache had."""
    document, around = library
    start = document.text.index("\n", int(place * len(document.text))) + 1
    limits = PromptLimits(32_768, budget, suffix_share=0.25)
    typed = type_through(document, start, 240, around, limits, tokenizer, PromptMemory.of(tokenizer))
    prompts = [prompt.token_ids for prompt in typed]
    assert all(0.7 * budget < len(ids) <= budget for ids in prompts)
    return sum(map(reused_tokens, prompts, prompts[1:])) / sum(map(len, prompts[1:]))


@pytest.mark.parametrize("budget", [1024, 2048, 8192])
@pytest.mark.parametrize("place", [0.31, 0.55, 0.83])
def test_typing_reuses_nine_tenths(library: tuple[Document, Surroundings], budget: int, place: float) -> None:
    assert share(WordTokenizer(), budget, place, library) >= 0.9


@pytest.mark.real_model
def test_typing_reuses_nine_tenths_with_a_real_vocabulary(
    real_model_05b: Path, library: tuple[Document, Surroundings]
) -> None:
    assert share(load_tokenizer(real_model_05b), 1024, 0.4, library) >= 0.9


class Session:
    """One editor session over a small workspace."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.memory = PromptMemory.of(WordTokenizer())

    def prompt(self, text: str, cursor: int) -> tuple[tuple[int, ...], list[str]]:
        """The ids, and the paths of other files that are shown, in order."""
        request = CompletionRequest(
            "id",
            EditorState("main.py", "python", text, cursor),
            "s",
            limits=Limits(max_tokens=64),
            suggestion=FOR_EDITORS,
        )
        limits = PromptLimits(8192, 2048, suffix_share=0.25)
        made = assemble(request, self.memory.tokenizer, limits, self.around, self.memory)
        return made.token_ids, [each.path for each in made.pieces if each.source is ContextSource.OPEN_FILE]


def workspace() -> Surroundings:
    def module(name: str) -> Document:
        body = "".join(
            f"def {name}_{part}(subject):\n" + f"    {name}_{part}_total = subject.{name}\n" * 8 + "\n\n"
            for part in ("open", "read", "close")
        )
        return Document(f"{name}.py", "python", body)

    return Surroundings(documents=tuple(module(name) for name in ("invoice", "customer", "parcel", "address")))


def test_a_call_of_something_else_brings_its_definition_and_leaves_the_rest_in_place() -> None:
    session = Session(workspace())
    text = "\n".join(f"local_{n} = {n}" for n in range(40)) + "\ninvoice_read(order)\ncustomer_open(order)\n"
    _, before = session.prompt(text, len(text))
    assert {"invoice.py", "customer.py"} <= set(before)
    typed = text + "parcel_close("
    _, after = session.prompt(typed, len(typed))
    assert "parcel.py" in after
    assert [path for path in after if path in before][: len(before)] == [path for path in before if path in after]


def test_a_file_that_changed_elsewhere_is_shown_as_it_is_now() -> None:
    session = Session(workspace())
    text = "invoice_read(order)\n"
    session.prompt(text, len(text))
    renamed = replace(session.around.documents[0], text="def invoice_read(subject, currency):\n    return currency\n")
    session.around = replace(session.around, documents=(renamed, *session.around.documents[1:]))
    ids, _ = session.prompt(text, len(text))
    shown = session.memory.tokenizer.decode(ids)
    assert "currency" in shown
    assert "invoice_read_total" not in shown


def test_a_file_that_became_private_is_shown_no_more() -> None:
    class Index:
        def definitions(self, names: object, language: str, limit: int) -> list[Snippet]:
            return [Snippet(ContextSource.DEFINITION, "hidden.py", "def hidden(subject):\n    return subject\n")]

        def exports(self, modules: object, importer_path: str, language: str, limit: int) -> list[Snippet]:
            return []

    session = Session(Surroundings(symbols=Index()))
    text = "hidden(order)\n"
    shown = session.memory.tokenizer.decode(session.prompt(text, len(text))[0])
    assert "def hidden" in shown
    session.around = replace(session.around, is_private=lambda path: path == "hidden.py")
    assert "def hidden" not in session.memory.tokenizer.decode(session.prompt(text, len(text))[0])


def test_a_closed_file_is_shown_no_more() -> None:
    session = Session(workspace())
    text = "invoice_read(order)\n"
    assert "invoice.py" in session.prompt(text, len(text))[1]
    session.around = replace(session.around, documents=session.around.documents[1:])
    assert "invoice.py" not in session.prompt(text, len(text))[1]


def test_new_lines_above_do_not_move_the_distant_text() -> None:
    session = Session(Surroundings(now_s=1.0))
    rest = "".join(f"rest_of_the_file_{n} = {n}\n" for n in range(200))
    prompts = []
    for typed in range(0, 120, 4):
        text = "start = 0\n" + "a = 1\n\n"[: typed % 8] + "b = 2\n" * (typed // 8)
        prompts.append(session.prompt(text + rest, len(text))[0])
    distant = [ids[: ids.index(session.memory.tokenizer.fim.prefix)] for ids in prompts if session.memory.tokenizer.fim]
    assert len(distant) == len(prompts)
    assert len(set(distant)) == 1
    assert len(distant[0]) > 100


def test_sessions_and_documents_do_not_share_their_choices() -> None:
    """Without a session, the same request gives the same prompt whatever came before it."""
    around = workspace()
    memory = PromptMemory.of(WordTokenizer())
    limits = PromptLimits(8192, 1024, suffix_share=0.25)

    def prompt(text: str, session_id: str) -> tuple[int, ...]:
        editor = EditorState("main.py", "python", text, len(text))
        request = CompletionRequest("id", editor, session_id, limits=Limits(max_tokens=64))
        return assemble(request, memory.tokenizer, limits, around, memory).token_ids

    first = prompt("parcel_close(", "")
    for session_id, text in itertools.product(("a", "b", ""), ("invoice_read(", "customer_open(")):
        prompt(text, session_id)
    assert prompt("parcel_close(", "") == first
