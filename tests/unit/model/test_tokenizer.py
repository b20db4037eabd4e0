"""Control tokens cannot be typed, and nothing of a text is lost."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.errors import InvalidRequest, ModelFileError
from zenray.model import pre_tokenizers
from zenray.model.bpe import BpeTokenizer, bpe_definition, byte_to_char
from zenray.model.gguf_tokenizer import tokenizer_from_gguf
from zenray.model.hf_tokenizer import tokenizer_from_hf
from zenray.model.presets import PRESETS
from zenray.model.sentencepiece import SentencePieceTokenizer
from zenray.model.tokenizer import ByteTokenizer, Tokenizer, discover_fim, end_tokens
from zenray.model.tokenizer_json import tokenizer_from_bytes, tokenizer_from_json, tokenizer_to_bytes

QWEN_ADDED = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
"""Every added token of Qwen2.5's tokenizer, special or not."""
MERGES = tuple(tuple(merge.split()) for merge in ("Ġ Ġ", "< |", "| >", "f i", "fi m", "i m", "d e", "de f", "Ġ def"))
ODDITIES = ("    ", "\t\t", "\r\n", "e\u0301", "\u00ad", "▁", "Ġ", "\ufffd", "🙂", "一", "١٢٣", "'LL", "𝒳", "\x00")


def bpe(pre: str, spaces: dict[str, int] | None = None) -> BpeTokenizer:
    """A small byte-level BPE with Qwen's added tokens, whose merges come as close to them as merges can."""
    vocab = {char: byte for byte, char in byte_to_char().items()}
    for left, right in MERGES:
        vocab[left + right] = len(vocab)
    control = {len(vocab) + index: text for index, text in enumerate(QWEN_ADDED)}
    shifted = {text: len(vocab) + len(control) + index for index, text in enumerate(spaces or {})}
    definition = bpe_definition(
        vocab,
        MERGES,
        pre_tokenizers.pre_tokenizer(pre),
        ignore_merges=pre in pre_tokenizers.WHOLE_WORDS,
        whitespace_tokens=shifted,
    )
    names = {text: token_id for token_id, text in control.items()}
    fim = discover_fim(names)
    size = len(vocab) + len(control) + len(shifted) + 10
    return BpeTokenizer(json.dumps(definition), size, control, end_tokens(names, (), fim), fim=fim)


TOKENIZERS: dict[str, Tokenizer] = {
    "bytes": ByteTokenizer(),
    "spaces": bpe("qwen2", spaces={"    ": 0, "\t\t": 0}),
    **{pre: bpe(pre) for pre in pre_tokenizers.KNOWN},
}
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(QWEN_ADDED),
        st.sampled_from([text[:cut] for text in QWEN_ADDED for cut in (1, 2, 5)]),
        st.sampled_from(ODDITIES),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_text_survives_and_never_becomes_a_control_token(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not tokenizer.control_token_ids & set(ids)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


@pytest.mark.parametrize("text", QWEN_ADDED)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_spelled_control_token_is_plain_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    for document in (text, f"x{text}y", f" {text}\n", text * 2):
        ids = tokenizer.encode(document)
        assert not tokenizer.control_token_ids & set(ids)
        assert tokenizer.decode(ids) == document


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_id_of_the_vocabulary_has_bytes(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    for token_id in range(tokenizer.vocab_size):
        assert isinstance(tokenizer.token_bytes(token_id), bytes)
    for token_id in tokenizer.control_token_ids:
        assert tokenizer.token_bytes(token_id) == b""
        assert tokenizer.control_token_text(token_id)
    assert tokenizer.control_token_text(0) is None
    assert tokenizer.fim is not None
    assert {tokenizer.fim.prefix, tokenizer.fim.suffix, tokenizer.fim.middle} <= tokenizer.control_token_ids


def test_merges_are_applied_and_bytes_are_exact() -> None:
    tokenizer = TOKENIZERS["qwen2"]
    (token_id,) = tokenizer.encode(" def")
    assert tokenizer.token_bytes(token_id) == b" def"
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("é")] == [b"\xc3", b"\xa9"]
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"


def test_whitespace_tokens_are_text() -> None:
    tokenizer = TOKENIZERS["spaces"]
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("a    b\t\t")] == [b"a", b"    ", b"b", b"\t\t"]


def test_a_lone_surrogate_is_a_named_error() -> None:
    for tokenizer in (TOKENIZERS["bytes"], TOKENIZERS["qwen2"]):
        with pytest.raises(InvalidRequest, match="lone surrogate at 2"):
            tokenizer.encode("ab\ud800")


@pytest.mark.parametrize(
    ("prefix", "suffix", "middle"),
    [
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        ("▁<PRE>", "▁<SUF>", "▁<MID>"),
        ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),
    ],
)
def test_fim_tokens_are_found_by_their_names(prefix: str, suffix: str, middle: str) -> None:
    fim = discover_fim({"<s>": 0, prefix: 1, suffix: 2, middle: 3})
    assert fim is not None
    assert (fim.prefix, fim.suffix, fim.middle, fim.pad) == (1, 2, 3, None)
    assert discover_fim({prefix: 1, suffix: 2}) is None


def test_ids_a_file_states_win_over_names() -> None:
    fim = discover_fim({"<|fim_prefix|>": 1, "<|fim_suffix|>": 2, "<|fim_middle|>": 3}, {"prefix": 7, "pad": 9})
    assert fim is not None
    assert (fim.prefix, fim.suffix, fim.pad) == (7, 2, 9)


def test_a_model_that_starts_the_next_file_has_ended_this_one() -> None:
    names = {"<|endoftext|>": 0, "<|file_sep|>": 4, "<|fim_prefix|>": 1, "<|fim_suffix|>": 2, "<|fim_middle|>": 3}
    assert end_tokens(names, (8,), discover_fim(names)) == {0, 4, 8}


def test_hugging_face_files_are_taken_apart(tmp_path: Path, write_tokenizer: Callable[..., None]) -> None:
    control = {text: 300 + index for index, text in enumerate(QWEN_ADDED)}
    write_tokenizer(tmp_path, control | {"      ": 350}, merges=MERGES)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": True, "bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"})
    )
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, 301]}))
    tokenizer = tokenizer_from_hf(tmp_path, PRESETS["tiny"].replace({"vocab_size": 400}))
    assert (tokenizer.bos_token_id, tokenizer.add_bos) == (301, True)
    assert tokenizer.eos_token_ids >= {300, 301, 302}
    text = "e\u0301<tool_call>      <|im_start|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("      ") == [350]
    assert not tokenizer.control_token_ids & set(tokenizer.encode(text))


def test_a_name_that_merges_spell_is_text(tmp_path: Path, write_tokenizer: Callable[..., None]) -> None:
    """A vocabulary trained on HTML may know `</s>` as a word; one that merely lists `<EOT>` means the control."""
    write_tokenizer(tmp_path, {}, merges=(("<", "/"), ("</", "s"), ("</s", ">")))
    data = json.loads((tmp_path / "tokenizer.json").read_text())
    data["model"]["vocab"]["<EOT>"] = 300
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    tokenizer = tokenizer_from_hf(tmp_path, PRESETS["tiny"].replace({"vocab_size": 400}))
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("</s>")] == [b"</", b"s", b">"]
    assert tokenizer.control_token_ids == {300}
    assert tokenizer.eos_token_ids == {300}


SPM_PIECES = ("▁", "▁d", "de", "def", "▁def", "in", "▁in", "▁▁", "▁▁▁▁", "é", "ef", "<", "▁<", "PRE", "RE", ">")


def sentencepiece_vocabulary() -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types as a GGUF file of a CodeLlama-like model holds them."""
    controls = ["<unk>", "<s>", "</s>", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]
    tokens = controls + [f"<0x{byte:02X}>" for byte in range(256)] + list(SPM_PIECES)
    tokens += sorted({char for piece in SPM_PIECES for char in piece} - set(SPM_PIECES))
    scores = [0.0] * (len(controls) + 256) + [-float(index) for index in range(len(tokens) - len(controls) - 256)]
    types = [2, 3, 3, 1, 1, 1, 1] + [6] * 256 + [1] * (len(tokens) - len(controls) - 256)
    return tokens, scores, types


@functools.cache
def sentencepiece_gguf() -> Tokenizer:
    tokens, scores, types = sentencepiece_vocabulary()
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return tokenizer_from_gguf(metadata, len(tokens) + 3, Path("model.gguf"))


@settings(deadline=None, max_examples=200)
@given(text=st.one_of(TEXTS, st.text(alphabet="▁ <PRE>SUFMIDEOTdefin\n", max_size=30)))
def test_sentencepiece_text_survives_too(text: str) -> None:
    tokenizer = sentencepiece_gguf()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not tokenizer.control_token_ids & set(ids)


def test_sentencepiece_merges_follow_the_scores() -> None:
    tokenizer = sentencepiece_gguf()
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode(" def in    x")] == [
        b" def",
        b" in",
        b"    ",
        b"x",
    ]
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("▁")] == [b"\xe2", b"\x96", b"\x81"]
    assert tokenizer.fim is not None
    assert (tokenizer.fim.prefix, tokenizer.fim.suffix, tokenizer.fim.middle) == (3, 4, 5)
    assert tokenizer.eos_token_ids == {2, 6}
    assert (tokenizer.bos_token_id, tokenizer.add_bos) == (1, True)


def test_sentencepiece_tokenizer_json_gives_the_same_tokens(tmp_path: Path) -> None:
    """Hugging Face stores the merges that GGUF leaves to be derived from scores."""
    tokens, _, types = sentencepiece_vocabulary()
    gguf_tokenizer = sentencepiece_gguf()
    assert isinstance(gguf_tokenizer, SentencePieceTokenizer)
    definition = json.loads(gguf_tokenizer.definition)
    definition["model"]["vocab"] = {text: i for i, text in enumerate(tokens)}
    definition["normalizer"] = {"type": "Prepend", "prepend": "▁"}
    definition["added_tokens"] = [{"id": i, "content": tokens[i]} for i in range(7)]
    assert types[3] == 1
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    ours = tokenizer_from_hf(tmp_path, PRESETS["tiny"].replace({"vocab_size": len(tokens)}))
    for text in (" def f(x):\n    in <PRE> ▁<PRE>", "é日本"):
        assert ours.encode(text) == gguf_tokenizer.encode(text)
    again = tokenizer_from_json(ours.definition, json.loads(json.dumps(ours.to_json())))
    assert isinstance(again, SentencePieceTokenizer)
    assert again.encode(" def ▁") == ours.encode(" def ▁")


def test_other_kinds_of_tokenizer_are_refused(tmp_path: Path, write_tokenizer: Callable[..., None]) -> None:
    config = PRESETS["tiny"].replace({"vocab_size": 400})
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is missing"):
        tokenizer_from_hf(tmp_path, config)
    write_tokenizer(tmp_path, {"<|endoftext|>": 500})
    with pytest.raises(ModelFileError, match="token id 500, but the embedding has 400 rows"):
        tokenizer_from_hf(tmp_path, config)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    with pytest.raises(ModelFileError, match="Unigram tokenizer; supported: byte-level and SentencePiece BPE"):
        tokenizer_from_hf(tmp_path, config)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelFileError, match="cannot be read as JSON"):
        tokenizer_from_hf(tmp_path, config)


@pytest.mark.parametrize("name", [*TOKENIZERS, "sentencepiece"])
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
def test_a_tokenizer_survives_its_own_json(name: str, texts: list[str]) -> None:
    tokenizer, again = _with_its_copy(name)
    assert type(again) is type(tokenizer)
    assert (again.vocab_size, again.eos_token_ids, again.bos_token_id, again.add_bos, again.fim) == (
        tokenizer.vocab_size, tokenizer.eos_token_ids, tokenizer.bos_token_id, tokenizer.add_bos, tokenizer.fim,
    )  # fmt: skip
    assert again.control_token_ids == tokenizer.control_token_ids
    for text in texts:
        assert again.encode(text) == tokenizer.encode(text)
        assert again.decode(tokenizer.encode(text)) == text


@functools.cache
def _with_its_copy(name: str) -> tuple[Tokenizer, Tokenizer]:
    tokenizer = TOKENIZERS[name] if name in TOKENIZERS else sentencepiece_gguf()
    again = tokenizer_from_bytes(tokenizer_to_bytes(tokenizer))
    assert all(again.token_bytes(each) == tokenizer.token_bytes(each) for each in range(tokenizer.vocab_size))
    return tokenizer, again


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"{", b'{"kind": "byte-level"}', b'{"kind": "bytes", "vocab_size": 3}']
)
def test_what_is_no_tokenizer_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(ModelFileError, match="no tokenizer can be read"):
        tokenizer_from_bytes(data)
