"""A home of its own for every test, and a toy tokenizer to put beside tiny checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from zenray.model.bpe import bpe_definition, byte_to_char
from zenray.model.pre_tokenizers import pre_tokenizer

WriteTokenizer = Callable[..., None]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and lose much when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Conversions of a test go under its own folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("ZENRAY_HOME", str(home))
    return home


@pytest.fixture
def write_tokenizer() -> WriteTokenizer:
    """`write_tokenizer(folder, control_tokens, merges=())`: a byte-level tokenizer.json with a normaliser and
    added tokens, as Hugging Face writes one."""

    def write(folder: Path, control_tokens: Mapping[str, int], merges: Sequence[tuple[str, str]] = ()) -> None:
        vocab = {char: byte for byte, char in byte_to_char().items()}
        for left, right in merges:
            vocab[left + right] = len(vocab)
        definition = bpe_definition(vocab, merges, pre_tokenizer("qwen2"))
        definition["normalizer"] = {"type": "NFC"}
        definition["added_tokens"] = [
            {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": not text.startswith("<tool"),
            }
            for text, token_id in control_tokens.items()
        ]
        (folder / "tokenizer.json").write_text(json.dumps(definition))

    return write
