"""Only a model that means the same by every token id may draft."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.config import DraftSettings, ModelSettings, ZenrayConfig
from zenray.errors import ConfigError
from zenray.model.load import load_tokenizer
from zenray.model.tokenizer import ByteTokenizer, Tokenizer
from zenray.speculative.draft_model import load_draft_model
from zenray.speculative.vocabulary import check_same_vocabulary, vocabulary_digest


class Spelled(Tokenizer):
    """A vocabulary given as a list; `control` ids steer."""

    def __init__(self, words: list[bytes], control: dict[int, str] | None = None) -> None:
        super().__init__(len(words), control or {}, eos_token_ids=())
        self._words = words

    def _encode(self, text: str, data: bytes) -> list[int]:
        return [self._words.index(data[i : i + 1]) for i in range(len(data))]

    def token_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._control_tokens else self._words[token_id]


def test_padding_of_the_embedding_makes_no_difference() -> None:
    narrow, padded = Spelled([b"a", b"b"]), Spelled([b"a", b"b", b"", b""])
    check_same_vocabulary(narrow, padded, "draft", "verifier")
    assert vocabulary_digest(narrow) == vocabulary_digest(padded)


@pytest.mark.parametrize(
    "other",
    [
        Spelled([b"b", b"a"]),
        Spelled([b"a", b"b", b"c"]),
        Spelled([b"a"]),
        Spelled([b"a", b"b"], {1: "b"}),
        Spelled([b"ab", b""]),
    ],
    ids=["swapped", "more", "fewer", "control", "joined"],
)
def test_any_other_meaning_is_refused(other: Tokenizer) -> None:
    verifier = Spelled([b"a", b"b"])
    assert vocabulary_digest(other) != vocabulary_digest(verifier)
    with pytest.raises(ConfigError, match="another vocabulary") as refusal:
        check_same_vocabulary(other, verifier, "small", "large")
    assert "speculation.drafters" in str(refusal.value)
    assert "'small'" in str(refusal.value)


def test_a_mismatched_draft_is_refused_when_it_is_loaded() -> None:
    config = ZenrayConfig(
        model=ModelSettings(name="preset:tiny", weight_format="bf16", preset_overrides={"vocab_size": 300}),
        draft=DraftSettings(model="preset:tiny", weight_format="bf16"),
    )
    with pytest.raises(ConfigError, match="token 264 is unused to the draft and b' t264' to the verifier"):
        load_draft_model(config)


def test_the_configured_draft_is_loaded_in_its_own_format_and_trimmed() -> None:
    config = ZenrayConfig(
        model=ModelSettings(name="preset:tiny", weight_format="bf16"),
        draft=DraftSettings(model="preset:tiny", weight_format="int4", head_tokens=100),
    )
    draft = load_draft_model(config, ByteTokenizer())
    assert draft.info.weight_format == "int4"
    assert draft.decoder.weights.head.shape[0] == 100


def test_no_configured_draft_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match=r"draft\.model is not set"):
        load_draft_model(ZenrayConfig(model=ModelSettings(name="preset:tiny")))


@pytest.mark.real_model
def test_a_byte_vocabulary_is_not_that_of_qwen(real_model_05b: Path) -> None:
    qwen = load_tokenizer(real_model_05b)
    check_same_vocabulary(qwen, qwen, "draft", "verifier")
    with pytest.raises(ConfigError, match="another vocabulary"):
        check_same_vocabulary(ByteTokenizer(qwen.vocab_size), qwen, "draft", "verifier")
