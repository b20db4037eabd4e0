"""The prompt of an editor with surroundings: exact, whole lines, nothing secret, and the same for the same request."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits
from zenray.context.pieces import ContextSource, Snippet
from zenray.context.prompt.memory import PromptMemory
from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState, SuggestionOptions
from zenray.context.surroundings import Document, RecentEdit, Surroundings, ViewedRange
from zenray.engine.request import Limits
from zenray.errors import InvalidRequest
from zenray.model.tokenizer import ByteTokenizer

LIMITS = PromptLimits(context_length=8192, max_prompt_tokens=2000, suffix_share=0.25)
NO_HEALING = replace(FOR_EDITORS, heal_tokens=False)

SHAPES = Document(
    "src/shapes.py",
    "python",
    "class Circle:\n    def __init__(self, radius):\n        self.radius = radius\n\n"
    "    def circumference(self):\n        return 2 * 3.14159 * self.radius\n",
)
CODE = "from shapes import Circle\n\n\ndef rim(circle):\n    return circle.circum\n\n\ndef other():\n    pass\n"
CURSOR = CODE.index("circum\n") + len("circum")


class PlainTokenizer(ByteTokenizer):
    """Infills, but has seen no repositories."""

    def __init__(self, *, infills: bool = True) -> None:
        super().__init__()
        assert self.fim is not None
        self.fim = replace(self.fim, repo_name=None, file_sep=None) if infills else None


def prompt_of(
    text: str,
    cursor: int,
    around: Surroundings,
    limits: PromptLimits = LIMITS,
    tokenizer: ByteTokenizer | None = None,
    options: SuggestionOptions = NO_HEALING,
    memory: PromptMemory | None = None,
    path: str = "src/main.py",
) -> AssembledPrompt:
    request = CompletionRequest(
        "id", EditorState(path, "python", text, cursor), "s", limits=Limits(max_tokens=20), suggestion=options
    )
    prompt = assemble(request, tokenizer or ByteTokenizer(), limits, around, memory)
    assert sum(piece.token_count for piece in prompt.pieces) == len(prompt.token_ids) <= prompt.token_budget
    assert sum(tokens for _, tokens in prompt.attribution) == len(prompt.token_ids)
    return prompt


def texts_of(prompt: AssembledPrompt, source: ContextSource) -> list[str]:
    return [piece.text for piece in prompt.pieces if piece.source is source]


def only(prompt: AssembledPrompt, source: ContextSource) -> str:
    (text,) = texts_of(prompt, source)
    return text


class TestLayout:
    def test_other_files_stand_before_the_current_one_as_a_repository(self) -> None:
        prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(SHAPES,), workspace="geometry"))
        assert prompt.text.startswith("<|repo_name|>geometry\n<|file_sep|>src/shapes.py\nclass Circle:\n")
        assert "<|file_sep|>src/main.py\n<|fim_prefix|>from shapes" in prompt.text
        assert prompt.text.endswith("circle.circum<|fim_suffix|>\n\n\ndef other():\n    pass\n<|fim_middle|>")

    def test_without_anything_to_show_the_layout_is_bare(self) -> None:
        prompt = prompt_of(CODE, CURSOR, Surroundings(now_s=3.0))
        assert prompt.text == f"<|fim_prefix|>{CODE[:CURSOR]}<|fim_suffix|>{CODE[CURSOR:]}<|fim_middle|>"

    def test_spm_puts_what_follows_first(self) -> None:
        prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(SHAPES,)), replace(LIMITS, order="spm"))
        assert prompt.text.endswith(f"<|fim_prefix|><|fim_suffix|>{CODE[CURSOR:]}<|fim_middle|>{CODE[:CURSOR]}")

    def test_a_model_that_knows_no_repositories_reads_comments(self) -> None:
        prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(SHAPES,)), tokenizer=PlainTokenizer())
        assert prompt.text.startswith("<|fim_prefix|># File: src/shapes.py\nclass Circle:\n")
        assert "\n# File: src/main.py\nfrom shapes import Circle\n" in prompt.text

    def test_a_model_that_cannot_infill_reads_on(self) -> None:
        prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(SHAPES,)), tokenizer=PlainTokenizer(infills=False))
        assert prompt.text.startswith("# File: src/shapes.py\nclass Circle:\n")
        assert prompt.text.endswith("return circle.circum")

    def test_a_long_rest_of_the_file_stands_in_front_and_its_beginning_behind_the_cursor(self) -> None:
        rest = "".join(f"line_{number} = {number}\n" for number in range(200))
        prompt = prompt_of("x = 1\n" + rest, 6, Surroundings(now_s=1.0))
        behind, distant = only(prompt, ContextSource.SUFFIX), texts_of(prompt, ContextSource.SAME_FILE)[-1]
        assert rest.startswith(behind + distant)
        assert len(behind) < len(distant)

    def test_pieces_name_the_lines_they_are(self) -> None:
        text = "".join(f"name_{number} = compute({number})\n" for number in range(400))
        cursor = text.index("name_200")
        prompt = prompt_of(text, cursor, Surroundings(documents=(SHAPES,)))
        lines = text.splitlines(keepends=True)
        own = [piece for piece in prompt.pieces if piece.path == "src/main.py" and "HEADER" not in piece.source.value]
        assert {piece.source for piece in own} == {
            ContextSource.PREFIX,
            ContextSource.SUFFIX,
            ContextSource.SAME_FILE,
        }
        for piece in own:
            assert piece.text == "".join(lines[piece.start_line : piece.end_line])


class TestSources:
    def test_every_source_may_speak(self) -> None:
        class Index:
            def definitions(self, names: object, language: str, limit: int) -> list[Snippet]:
                assert language == "python"
                return [Snippet(ContextSource.DEFINITION, "src/base.py", "def circumscribed(shape):\n    ...\n", 7)]

            def exports(self, modules: object, importer_path: str, language: str, limit: int) -> list[Snippet]:
                assert (modules, importer_path) == (("shapes",), "src/main.py")
                return [Snippet(ContextSource.IMPORT, "src/shapes_extra.py", "def draw(circle): ...\n")]

        viewed = Document("src/notes.py", "python", "GREETING = 'hello there'\nANSWER = 42\n")
        around = Surroundings(
            documents=(SHAPES, viewed),
            edits=(RecentEdit("src/old.py", 3, "circle.rim()\n", "circle.circumference()\n", 90.0),),
            viewed=(ViewedRange("src/notes.py", 0, 1, 95.0),),
            clipboard="length = circle.circumference()",
            snippets=(Snippet(ContextSource.SNIPPET, "lib/client.py", "def from_the_client(): ...\n"),),
            symbols=Index(),
            now_s=100.0,
        )
        prompt = prompt_of(CODE, CURSOR, around)
        assert {source for source, _ in prompt.attribution} == {
            *(ContextSource.CONTROL, ContextSource.PREFIX, ContextSource.SUFFIX, ContextSource.FILE_HEADER),
            *(ContextSource.OPEN_FILE, ContextSource.RECENT_EDIT, ContextSource.DEFINITION, ContextSource.IMPORT),
            *(ContextSource.VIEWED, ContextSource.CLIPBOARD, ContextSource.SNIPPET),
        }
        assert "-circle.rim()\n+circle.circumference()\n" in only(prompt, ContextSource.RECENT_EDIT)
        assert all(piece.score > 0 for piece in prompt.pieces if piece.source is ContextSource.DEFINITION)

    def test_a_definition_in_an_open_file_comes_before_what_only_shares_words(self) -> None:
        talk = "".join(f"# circle rim return circum {number}\n\n" for number in range(60))
        around = Surroundings(documents=(Document("src/talk.py", "python", talk), SHAPES))
        text = CODE.replace("circle.circum\n", "circle.circumference() + \n")
        prompt = prompt_of(text, text.index(" + \n") + 3, around, replace(LIMITS, max_prompt_tokens=900))
        assert "def circumference" in "".join(texts_of(prompt, ContextSource.OPEN_FILE))

    def test_of_a_large_chunk_only_the_definition_is_shown(self) -> None:
        methods = "".join(f"    def method_{n}(self):\n        first_{n}()\n        second_{n}()\n\n" for n in range(9))
        around = Surroundings(documents=(Document("src/wide.py", "python", "class Wide:\n" + methods),))
        text = "wide.method_4("
        prompt = prompt_of(text, len(text), around, replace(LIMITS, max_prompt_tokens=600))
        assert (
            only(prompt, ContextSource.OPEN_FILE) == "    def method_4(self):\n        first_4()\n        second_4()\n"
        )
        (piece,) = (each for each in prompt.pieces if each.source is ContextSource.OPEN_FILE)
        assert (piece.start_line, piece.end_line) == (17, 20)

    def test_small_files_are_shown_whole_where_there_is_room(self) -> None:
        methods = "".join(f"    def method_{n}(self):\n        first_{n}()\n        second_{n}()\n\n" for n in range(9))
        whole = "class Wide:\n" + methods
        around = Surroundings(documents=(Document("src/wide.py", "python", whole),))
        text = "wide.method_4("
        prompt = prompt_of(text, len(text), around, replace(LIMITS, max_prompt_tokens=1600))
        assert only(prompt, ContextSource.OPEN_FILE).strip() == whole.strip()

    def test_of_a_long_definition_the_head_is_shown_before_it_is_left_out(self) -> None:
        body = "".join(f"    step_{number} = radius * {number}\n" for number in range(35))
        long = Document("src/long.py", "python", f"def rim(radius, unit):\n{body}    return step_1\n")
        code = "from long import rim\n\n\ndef f():\n    return rim(\n"
        limits = replace(LIMITS, max_prompt_tokens=1200)  # the allowance is less than the definition
        prompt = prompt_of(code, len(code) - 1, Surroundings((long,)), limits)
        (piece,) = [piece for piece in prompt.pieces if piece.source is ContextSource.OPEN_FILE]
        assert piece.text.startswith("def rim(radius, unit):\n")
        assert long.text.startswith(piece.text)
        assert piece.text.endswith("\n")

    def test_what_is_typed_at_the_cursor_is_no_recent_edit(self) -> None:
        edit = RecentEdit("src/main.py", 4, "    return circle\n", "    return circle.circum\n", 1.0)
        prompt = prompt_of(CODE, CURSOR, Surroundings(edits=(edit,), now_s=2.0))
        assert texts_of(prompt, ContextSource.RECENT_EDIT) == []

    def test_what_the_window_shows_or_another_snippet_says_is_left_out_and_reported(self) -> None:
        around = Surroundings(
            documents=(SHAPES,),
            clipboard="def rim(circle):\n    return circle.circum\n",
            snippets=(Snippet(ContextSource.SNIPPET, "src/shapes_copy.py", SHAPES.text),),
        )
        prompt = prompt_of(CODE, CURSOR, around)
        assert prompt.text.count("class Circle:") == 1
        dropped = {(piece.source, piece.reason) for piece in prompt.dropped_pieces}
        assert (ContextSource.CLIPBOARD, "duplicate") in dropped
        assert dropped & {(ContextSource.OPEN_FILE, "duplicate"), (ContextSource.SNIPPET, "duplicate")}

    def test_what_does_not_fit_is_reported_best_first(self) -> None:
        body = "".join(f"def circumference_{number}(circle):\n    return {number}\n\n\n" for number in range(200))
        prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(Document("src/many.py", "python", body),)))
        over = [piece for piece in prompt.dropped_pieces if piece.reason == "budget"]
        assert len(over) > 5
        assert [piece.score for piece in over] == sorted((piece.score for piece in over), reverse=True)


class TestPrivacy:
    KEY = "AKIAIOSFODNN7REALKEY"

    def test_secrets_never_enter_wherever_they_stand(self) -> None:
        secret = f'AWS_ACCESS_KEY_ID = "{self.KEY}"\n'
        around = Surroundings(
            documents=(Document("src/settings.py", "python", secret + SHAPES.text),),
            edits=(RecentEdit("src/old.py", 0, f"circle = 1\n{secret}", "circle = 2\n", 1.0),),
            clipboard=secret,
            snippets=(Snippet(ContextSource.SNIPPET, "a.py", secret),),
        )
        text = secret + CODE + secret
        prompt = prompt_of(text, len(secret) + CURSOR, around)
        assert prompt.text_stops is not None
        for shown in (prompt.text, prompt.text_stops.before, prompt.text_stops.after):
            assert self.KEY not in shown
            assert "AWS_ACCESS_KEY_ID" in shown

    def test_a_private_key_longer_than_a_snippet_never_enters_in_part(self) -> None:
        body = [hashlib.sha256(bytes([line])).hexdigest() for line in range(60)]
        key = "\n".join(("-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----", ""))
        circle = "circle.circumference(1)\n"
        around = Surroundings(
            edits=(RecentEdit("src/old.py", 0, f"{key}circle = 1\n", f"{key}circle = 2\n", 1.0),),
            clipboard=key + circle,
            snippets=(Snippet(ContextSource.SNIPPET, "a.py", circle * 30 + key + circle),),
        )
        prompt = prompt_of(CODE, CURSOR, around, replace(LIMITS, context_length=16_384, max_prompt_tokens=16_000))
        assert "circumference(1)" in prompt.text
        assert not any(line in prompt.text for line in body)

    @settings(deadline=None)
    @given(st.integers(0, 60))
    def test_a_cursor_inside_a_secret_shows_neither_half(self, offset: int) -> None:
        text = f'x = 1\nkey = "{self.KEY}"\n'
        prompt = prompt_of(text, min(offset, len(text)), Surroundings(now_s=1.0))
        assert "IOSFODNN" not in prompt.text

    def test_secret_files_and_ignored_files_never_enter(self) -> None:
        around = Surroundings(
            documents=(replace(SHAPES, path=".env"), replace(SHAPES, path="generated/shapes.py")),
            snippets=(Snippet(ContextSource.SNIPPET, "generated/more.py", SHAPES.text),),
            is_private=lambda path: path == ".env" or path.startswith("generated/"),
        )
        prompt = prompt_of(CODE, CURSOR, around)
        assert "class Circle" not in prompt.text
        assert {(piece.path, piece.reason) for piece in prompt.dropped_pieces} == {
            (".env", "secret"),
            ("generated/shapes.py", "ignored"),
            ("generated/more.py", "ignored"),
        }


class TestHealingAndStops:
    def test_in_a_withheld_file_nothing_is_completed(self) -> None:
        around = Surroundings((SHAPES,), is_withheld=lambda path: path == "src/main.py")
        with pytest.raises(InvalidRequest, match=r"editor\.path.*zenrayignore"):
            prompt_of(CODE, CURSOR, around)

    def test_the_word_at_the_cursor_is_written_again(self) -> None:
        prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(SHAPES,)), options=FOR_EDITORS)
        assert prompt.forced_prefix
        assert (only(prompt, ContextSource.PREFIX) + prompt.forced_prefix).endswith("circle.circum")
        assert only(prompt, ContextSource.PREFIX) == CODE[: CURSOR - len(prompt.forced_prefix)]

    @pytest.mark.parametrize(
        ("rest", "single"),
        [("", False), ("  ", False), (")", False), ('"]);', False), ("):", False), (" + 1", True), ("(x)", True)],
    )
    def test_mid_line_means_one_line(self, rest: str, single: bool) -> None:
        prompt = prompt_of(f"x = f({rest}\ny\n", len("x = f("), Surroundings(now_s=1.0))
        assert prompt.text_stops is not None
        assert prompt.text_stops.single_line is single

    def test_stops_see_whole_lines_before_and_the_beginning_of_what_follows(self) -> None:
        text = "".join(f"a_line_of_some_length_{number}\n" for number in range(2000))
        cursor = len(text) // 2
        stops = prompt_of(text, cursor, Surroundings(now_s=1.0)).text_stops
        assert stops is not None
        assert text[:cursor].endswith("\n" + stops.before)
        assert 7_900 < len(stops.before) <= 8_000
        assert stops.after == text[cursor : cursor + 2_000]
        assert stops.language == "python"


fragments = st.sampled_from(
    [*"ab \n\t({})", "é", "🙂", "\r\n", "def f(x):\n", "    return x\n", "\n\n", "class C:\n", "<|fim_middle|>"]
)
sources = st.lists(fragments, max_size=120).map("".join)


@st.composite
def places(draw: st.DrawFn) -> tuple[str, int]:
    text = draw(sources | st.text(max_size=60))
    return text, draw(st.integers(0, len(text)))


@st.composite
def surroundings(draw: st.DrawFn) -> Surroundings:
    documents = tuple(
        Document(f"d{n}.py", "python", text) for n, text in enumerate(draw(st.lists(sources, max_size=3)))
    )
    edits = draw(st.lists(st.builds(RecentEdit, st.just("d0.py"), st.integers(0, 9), sources, sources, st.just(1.0))))
    viewed = draw(
        st.lists(st.builds(ViewedRange, st.just("d1.py"), st.integers(0, 9), st.integers(0, 20), st.just(1.0)))
    )
    given_ones = draw(
        st.lists(st.builds(Snippet, st.just(ContextSource.SNIPPET), st.just("s.py"), sources), max_size=2)
    )
    return Surroundings(tuple(documents), tuple(edits), tuple(viewed), draw(sources), tuple(given_ones), now_s=2.0)


EDITED = Surroundings(edits=(RecentEdit("d0.py", 0, "a", "", 1.0),), clipboard="a", now_s=2.0)


@settings(max_examples=200, deadline=None)
@example(("a", 0), EDITED, 45, 1.0, 1.0, "psm")
@example(("a\n" * 200, 200), EDITED, 45, 1.0, 1.0, "spm")
@given(places(), surroundings(), st.integers(8, 600), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["psm", "spm"]))
def test_any_text_any_cursor_any_budget(
    place: tuple[str, int], around: Surroundings, budget: int, suffix: float, snippets: float, order: str
) -> None:
    """Never over by one; the text at the cursor is an end and a beginning of what stands there; deterministic; nothing
    a user wrote becomes a control token."""
    text, cursor = place
    limits = PromptLimits(8192, budget, suffix, snippets, "psm" if order == "psm" else "spm")
    tokenizer = ByteTokenizer()
    prompt = prompt_of(text, cursor, around, limits, tokenizer)
    assert text[:cursor].endswith(only(prompt, ContextSource.PREFIX))
    assert text[cursor:].startswith(only(prompt, ContextSource.SUFFIX))
    own = len(tokenizer.encode(only(prompt, ContextSource.PREFIX)))
    assert own >= min(len(tokenizer.encode(text[:cursor])), (budget - 3) // 20)
    controls = [piece for piece in prompt.pieces if piece.source is ContextSource.CONTROL]
    assert sum(token_id in tokenizer.control_token_ids for token_id in prompt.token_ids) == len(controls)
    assert replace(prompt_of(text, cursor, around, limits), assemble_ms=0.0) == replace(prompt, assemble_ms=0.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(places(), surroundings()), min_size=1, max_size=5), st.integers(8, 400))
def test_a_session_of_any_requests_stays_within_budget(
    requests: list[tuple[tuple[str, int], Surroundings]], budget: int
) -> None:
    """What is remembered of one request never breaks the next, however little they have in common."""
    memory = PromptMemory.of(ByteTokenizer())
    for (text, cursor), around in requests:
        prompt = prompt_of(text, cursor, around, replace(LIMITS, max_prompt_tokens=budget), memory=memory)
        assert text[:cursor].endswith(only(prompt, ContextSource.PREFIX))


def test_snippets_are_whole_lines_of_their_files() -> None:
    body = "".join(f"def circle_{number}(rim):\n    return rim\n\n\n" for number in range(50))
    document = Document("src/many.py", "python", body)
    prompt = prompt_of(CODE, CURSOR, Surroundings(documents=(document, SHAPES)))
    lines = body.splitlines(keepends=True)
    shown = [each for each in prompt.pieces if (each.path, each.source) == ("src/many.py", ContextSource.OPEN_FILE)]
    assert shown
    for piece in shown:
        assert piece.text == "".join(lines[piece.start_line : piece.end_line])
        assert piece.text.startswith("def circle_")


def test_a_line_of_a_megabyte_costs_what_fits() -> None:
    endless = "x = [" + "1, " * 350_000 + "]\n"
    around = Surroundings(documents=(Document("data.py", "python", endless),), clipboard=endless)
    for cursor in (0, 5, 500_000, len(endless)):
        prompt = prompt_of(endless, cursor, around)
        assert len(prompt.token_ids) <= 2000
        assert cursor == 0 or len(only(prompt, ContextSource.PREFIX)) > min(cursor, 500) // 2


def test_a_short_deadline_shrinks_the_prompt() -> None:
    text = "".join(f"number_{number} = {number}\n" for number in range(1000))
    request = CompletionRequest(
        "id", EditorState("a.py", "python", text, len(text)), limits=Limits(max_tokens=20, deadline_ms=100)
    )
    sizes = [
        len(
            assemble(
                request, ByteTokenizer(), replace(LIMITS, prefill_tokens_per_s=rate), Surroundings(now_s=1.0)
            ).token_ids
        )
        for rate in (None, 100_000.0, 10_000.0, 100.0)
    ]
    assert sizes[0] == sizes[1] > 1500
    assert 250 < sizes[2] <= 500
    assert 64 < sizes[3] <= 128


def test_lines_stay_lines_of_a_file_when_many_go_behind_what_is_shown() -> None:
    top = "def area_of_circle(radius):\n    return 3 * radius\n" + "a = 1\n" * 60 + "b = area_of_circle("
    memory = PromptMemory.of(ByteTokenizer())
    shown = []
    for behind in ("\n" * 900, ""):
        far = "\n" + "c = 2\n" * 60 + "def area_of_circle_twice(radius):\n    return area_of_circle(radius) * 2\n"
        prompt = prompt_of(top + far + behind, len(top), Surroundings(documents=(SHAPES,)), LIMITS, memory=memory)
        shown += [piece.start_line for piece in prompt.pieces if piece.source is ContextSource.SAME_FILE]
    assert len(shown) > 1
    assert min(shown) >= 0
