"""The real 0.5B model upcycled: it must go on answering as itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zenray.model import upcycle_calibration
from zenray.model.convert import open_source
from zenray.model.evaluate import chunked_logits, code_texts, token_windows
from zenray.model.load import load_unconverted
from zenray.model.upcycle import upcycle
from zenray.model.upcycle_settings import Upcycling

pytestmark = pytest.mark.real_model


def test_halves_in_float16_answer_as_the_quantised_source(
    real_model_05b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upcycle_calibration, "MAX_TOKENS", 256)  # the router's balance is not what is asked here
    torch.set_num_threads(2)
    folder = tmp_path / "moe"
    source = open_source(real_model_05b)
    upcycle(source, folder, Upcycling(num_experts=4, top_k=2, expert_dim=2432))

    before, after = source.tokenizer(), open_source(folder).tokenizer()
    assert after.to_json() == before.to_json()
    assert after.definition == before.definition
    assert after.fim is not None

    dense, moe = (load_unconverted(path, "float32").decoder for path in (real_model_05b, folder))
    assert moe.config.num_experts == 4
    texts = dict(list(code_texts().items())[:2])
    agreed = total = 0
    for window in token_windows(before, texts, 512):
        for expected, got in zip(chunked_logits(dense, window), chunked_logits(moe, window), strict=True):
            agreed += int((expected.argmax(-1) == got.argmax(-1)).sum())
            total += len(expected)
    assert total == 1024
    assert agreed / total >= 0.999
