"""The tokenizer of a real model on its way from a verifier to a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from zenray.model.load import load_tokenizer
from zenray.model.tokenizer_json import tokenizer_from_bytes, tokenizer_to_bytes
from zenray.serving.verifier_service import TOKENIZER_PART_BYTES

pytestmark = pytest.mark.real_model


def test_what_arrives_encodes_and_decodes_alike(real_model_05b: Path) -> None:
    tokenizer = load_tokenizer(real_model_05b)
    data = tokenizer_to_bytes(tokenizer)
    assert len(data) > TOKENIZER_PART_BYTES, "it takes several parts"
    again = tokenizer_from_bytes(data)
    text = Path(__file__).read_text() + "<|fim_prefix|> é 日本 🙂\t\r\n"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == text
    assert all(again.token_bytes(each) == tokenizer.token_bytes(each) for each in range(tokenizer.vocab_size))
    assert (again.fim, again.eos_token_ids) == (tokenizer.fim, tokenizer.eos_token_ids)
