"""A request becomes a prompt: within its budget, exactly counted, and never from parsed control tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits, TooManyTokens, encode_within, infill_budget, keep_end, keep_start
from zenray.context.pieces import ContextSource
from zenray.context.request import CompletionInput, CompletionRequest, EditorState, Infill, TextPrompt, TokenPrompt
from zenray.engine.request import Limits, Priority, Sampling
from zenray.errors import InvalidRequest
from zenray.model.tokenizer import ByteTokenizer

LIMITS = PromptLimits(context_length=100, max_prompt_tokens=40, suffix_share=0.25)


class PairTokenizer(ByteTokenizer):
    """A byte tokenizer that merges runs of eight equal bytes, so that counts depend on where a text is cut."""

    MERGED = 264

    def __init__(self, *, fim: bool = True, bos: bool = False) -> None:
        super().__init__(vocab_size=264 + 256)
        self.encoded_characters = 0
        if not fim:
            self.fim = None
        self.add_bos, self.bos_token_id = bos, 256

    def _encode(self, text: str, data: bytes) -> list[int]:
        self.encoded_characters += len(text)
        ids: list[int] = []
        i = 0
        while i < len(data):
            if data[i : i + 8] == data[i : i + 1] * 8:
                ids.append(self.MERGED + data[i])
                i += 8
            else:
                ids.append(data[i])
                i += 1
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id - self.MERGED,)) * 8 if token_id >= self.MERGED else super().token_bytes(token_id)


def request_of(given: CompletionInput, max_tokens: int = 20) -> CompletionRequest:
    return CompletionRequest("id", given, limits=Limits(max_tokens=max_tokens))


def prompt_of(given: CompletionInput, tokenizer: ByteTokenizer | None = None, max_tokens: int = 20) -> AssembledPrompt:
    prompt = assemble(request_of(given, max_tokens), tokenizer or ByteTokenizer(), LIMITS)
    assert sum(piece.token_count for piece in prompt.pieces) == len(prompt.token_ids)
    assert len(prompt.token_ids) <= prompt.token_budget
    assert len(prompt.token_ids) + prompt.max_tokens <= LIMITS.context_length
    return prompt


def test_an_infill_is_prefix_suffix_middle() -> None:
    fim = ByteTokenizer().fim
    assert fim is not None
    prompt = prompt_of(Infill("ab", "c"))
    assert prompt.token_ids == (fim.prefix, *b"ab", fim.suffix, *b"c", fim.middle)
    assert prompt.text == "<|fim_prefix|>ab<|fim_suffix|>c<|fim_middle|>"
    assert set(prompt.stop_token_ids) == {fim.prefix, fim.suffix, fim.middle, fim.pad, fim.repo_name, fim.file_sep}
    assert prompt.dropped_tokens == 0


def test_an_editor_is_the_infill_at_its_cursor() -> None:
    editor = prompt_of(EditorState("src/é.py", "python", "aé🙂b", 3))
    assert editor.token_ids == prompt_of(Infill("aé🙂", "b")).token_ids
    assert [piece.path for piece in editor.pieces if piece.source is ContextSource.PREFIX] == ["src/é.py"]


@given(st.text() | st.sampled_from(["<|fim_middle|>", "a<|endoftext|>", "<|fim_suffix|><|fim_middle|>"]))
def test_user_text_never_becomes_a_control_token(text: str) -> None:
    tokenizer = ByteTokenizer()
    layouts = [TextPrompt(text or "x"), Infill(text, "s"), Infill("p", text), EditorState("", "", text, len(text))]
    for given_input in layouts:
        prompt = assemble(request_of(given_input), tokenizer, PromptLimits(10_000, 10_000, 0.5))
        control = [token_id for token_id in prompt.token_ids if token_id in tokenizer.control_token_ids]
        expected = sum(piece.source is ContextSource.CONTROL for piece in prompt.pieces)
        assert len(control) == expected <= 3


def test_the_engine_gets_the_clipped_request() -> None:
    request = CompletionRequest(
        "id-7",
        Infill("a", "b"),
        sampling=Sampling(seed=3),
        limits=Limits(max_tokens=500, stop=("x",), stop_token_ids=(5, 258)),
        priority=Priority.BATCH,
    )
    prompt = assemble(request, ByteTokenizer(), LIMITS)
    made = prompt.generate_request(request)
    assert made.prompt_token_ids == prompt.token_ids
    assert made.limits.max_tokens == 100 - len(prompt.token_ids)
    assert made.limits.stop_token_ids == (5, 258, 260, 259, 261, 262, 263)
    assert (made.request_id, made.sampling, made.priority) == ("id-7", request.sampling, Priority.BATCH)
    assert made.limits.stop == ("x",)


def test_a_plain_prompt_longer_than_the_context_names_both_numbers() -> None:
    assert prompt_of(TextPrompt("x" * 99)).max_tokens == 1
    with pytest.raises(InvalidRequest, match=r"prompt is 100 tokens long; allowed: at most 99 tokens.* context of 100"):
        prompt_of(TextPrompt("x" * 100))
    with pytest.raises(InvalidRequest, match="prompt_token_ids is 101 tokens long"):
        prompt_of(TokenPrompt((7,) * 101))
    whole = assemble(request_of(TokenPrompt((7,) * 100), max_tokens=0), ByteTokenizer(), LIMITS)
    assert (len(whole.token_ids), whole.max_tokens) == (100, 0)


def test_a_huge_prompt_is_refused_without_reading_it_all() -> None:
    tokenizer = PairTokenizer()
    with pytest.raises(InvalidRequest, match="prompt is"):
        assemble(request_of(TextPrompt("ab" * 2_000_000)), tokenizer, LIMITS)
    assert tokenizer.encoded_characters < 10_000


def test_token_prompts_pass_unchanged_and_read_well() -> None:
    prompt = prompt_of(TokenPrompt((258, 97, 260, 259)))
    assert prompt.token_ids == (258, 97, 260, 259)
    assert prompt.text == "<|fim_prefix|>a<|fim_suffix|><|fim_middle|>"
    assert prompt.stop_token_ids == ()


def test_a_model_without_infill_tokens() -> None:
    tokenizer = PairTokenizer(fim=False)
    assert prompt_of(Infill("ab", ""), tokenizer).token_ids == tuple(b"ab")
    with pytest.raises(InvalidRequest, match=r"infill\.suffix"):
        prompt_of(Infill("ab", "c"), tokenizer)
    editor = prompt_of(EditorState("a.py", "python", "ab\ncd", 3), tokenizer)
    assert (editor.token_ids, editor.dropped_tokens > 0) == (tuple(b"ab\n"), True)
    for empty in (EditorState("a.py", "python", "x", 0), Infill("", "")):
        with pytest.raises(InvalidRequest, match="no infill tokens"):
            prompt_of(empty, tokenizer)


@pytest.mark.parametrize("path", [".env", "deploy/.env.production", "certificates/server.pem", ".aws/config"])
def test_a_file_made_to_hold_secrets_has_no_prompt(path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"editor\.path"):
        prompt_of(EditorState(path, "", "PASSWORD=correcthorse\n", 0))


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_document_is_told_by_its_name(text: str) -> None:
    named = prompt_of(EditorState("a.py", "python", text, 0))
    assert named.text.startswith("<|file_sep|>a.py\n<|fim_prefix|>")
    assert prompt_of(EditorState("", "", text, 0)).text.startswith("<|fim_prefix|>")
    assert "long" not in prompt_of(EditorState("long" * 100, "", text, 0)).text


@pytest.mark.parametrize("given_input", [TextPrompt("ab"), Infill("ab", "c"), EditorState("", "", "abc", 2)])
def test_a_model_that_wants_a_bos_gets_one(given_input: CompletionInput) -> None:
    prompt = prompt_of(given_input, PairTokenizer(bos=True))
    assert prompt.token_ids[0] == 256
    assert prompt.token_ids.count(256) == 1


def test_the_suffix_never_exceeds_its_share_and_the_prefix_takes_the_rest() -> None:
    lines = "".join(f"{i:02}\n" for i in range(90))
    prompt = prompt_of(Infill(lines, lines))
    counts = {piece.source: piece.token_count for piece in prompt.pieces}
    assert counts[ContextSource.SUFFIX] == 9  # three lines of the 37 * 0.25
    assert 14 < counts[ContextSource.PREFIX] <= 28
    assert prompt.dropped_tokens == 2 * 270 - counts[ContextSource.SUFFIX] - counts[ContextSource.PREFIX]
    pieces = {piece.source: piece.text for piece in prompt.pieces}
    assert lines.endswith(pieces[ContextSource.PREFIX])
    assert lines.startswith(pieces[ContextSource.SUFFIX])
    assert pieces[ContextSource.PREFIX][2] == "\n" == pieces[ContextSource.SUFFIX][-1]


def test_a_budget_leaves_room_for_the_completion() -> None:
    assert infill_budget(LIMITS, max_tokens=20) == 40
    assert infill_budget(PromptLimits(100, 99, 0.25), max_tokens=30) == 70
    assert infill_budget(PromptLimits(100, 99, 0.25), max_tokens=4096) == 50


runs = st.lists(st.sampled_from([*"ab \n\t", "é", "🙂", "aaaaaaaa", "        "]), max_size=200).map("".join)
texts = runs | st.text(max_size=100)


@given(texts, st.integers(0, 60))
def test_kept_texts_are_ends_and_starts_within_the_budget(text: str, budget: int) -> None:
    tokenizer = PairTokenizer()
    whole = len(tokenizer.encode(text))
    for kept, side in (
        (keep_end(text, budget, tokenizer), str.endswith),
        (keep_start(text, budget, tokenizer), str.startswith),
    ):
        assert side(text, kept.text)
        assert kept.token_ids == tokenizer.encode(kept.text)
        assert len(kept.token_ids) <= budget
        if whole <= budget:
            assert (kept.text, kept.dropped_tokens) == (text, 0)
        elif budget:
            assert kept.dropped_tokens > 0 or kept.text != text


@given(texts, st.integers(0, 60))
def test_counting_stops_at_the_limit_and_is_exact_below(text: str, limit: int) -> None:
    tokenizer = PairTokenizer()
    ids = tokenizer.encode(text)
    counted = encode_within(text, limit, tokenizer)
    if len(ids) <= limit:
        assert counted == ids
    else:
        assert isinstance(counted, TooManyTokens)
        assert counted.num_tokens == len(ids) if counted.exact else limit < counted.num_tokens <= len(ids)


def test_a_flood_of_spaces_costs_no_more_than_a_window() -> None:
    tokenizer = PairTokenizer()
    flood = EditorState("a.py", "python", " " * 4_000_000, 2_000_000)
    prompt = assemble(request_of(flood), tokenizer, LIMITS)
    assert 20 < len(prompt.token_ids) <= 40
    assert tokenizer.encoded_characters < 8_000


def test_a_start_in_the_prefix_stays_put_while_typing() -> None:
    """The prompt keeps its beginning, so the prefix cache keeps its use."""
    tokenizer = ByteTokenizer()
    document = "".join(f"line {i}\n" for i in range(2000))
    budget = 1000
    starts = []
    for typed in range(0, 512, 3):
        text = document + "x" * typed
        starts.append(len(text) - len(keep_end(text, budget, tokenizer).text))
    assert len(set(starts)) <= 512 // 128 + 1
    assert all(document[start - 1] == "\n" for start in starts)
    kept = [len(document) + typed - start for typed, start in zip(range(0, 512, 3), starts, strict=True)]
    assert min(kept) >= budget * 5 // 8 - len("line 1999\n")


def test_one_endless_line_is_cut_inside() -> None:
    tokenizer = ByteTokenizer()
    text = "é" * 5000
    kept = keep_end(text, 101, tokenizer)
    assert 25 <= len(kept.text) <= 50
    assert len(keep_start(text, 101, tokenizer).text) == 50


def test_a_large_document_costs_what_its_kept_part_costs() -> None:
    tokenizer = PairTokenizer()
    document = "def f(x):\n    return x\n" * 200_000
    assemble(request_of(EditorState("a.py", "python", document, len(document) // 2)), tokenizer, LIMITS)
    assert tokenizer.encoded_characters < 2_000
