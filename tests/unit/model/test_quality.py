"""The measurements of weight formats: right on models small enough to check by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from zenray.model import parity, quality
from zenray.model.evaluate import code_texts, sequence_logits, token_windows
from zenray.model.load import load_model

TEXTS = {"a.py": "def f(x):\n    return x + 1\n" * 3, "b.py": "class A:\n    pass\n"}


def test_a_format_loses_nothing_against_itself(model_path: Path) -> None:
    report = quality.compare(model_path, "bf16", TEXTS)
    assert report.mean_kl == pytest.approx(0.0, abs=1e-9)
    assert report.top1_agreement == 1.0
    assert report.perplexity_ratio == 1.0
    assert all(error.relative_rms < 2**-8 for error in report.tensors)


def test_the_numbers_are_those_of_the_logits(model_path: Path) -> None:
    report = quality.compare(model_path, "int4", TEXTS, tokens_each=40)
    reference, model = (load_model(model_path, weight_format=name) for name in ("bf16", "int4"))  # type: ignore[arg-type]
    windows = token_windows(model.tokenizer, TEXTS, 40)
    p, q = (
        torch.cat([sequence_logits(loaded.decoder, window).log_softmax(-1) for window in windows])
        for loaded in (reference, model)
    )
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    assert report.num_positions == len(p) == 40 + len(TEXTS["b.py"])
    assert report.mean_kl == pytest.approx(float(divergence), rel=1e-4)
    assert report.top1_agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()))
    losses = [
        -sequence_logits(model.decoder, window)[:-1].log_softmax(-1).gather(1, torch.tensor(window[1:])[:, None]).sum()
        for window in windows
    ]
    predicted = sum(len(window) - 1 for window in windows)
    assert report.perplexity == pytest.approx(math.exp(float(sum(losses)) / predicted), rel=1e-4)
    assert report.bytes_per_token == model.decoder.weight_bytes_per_token


def test_fewer_bits_lose_more(model_path: Path) -> None:
    reports = [quality.compare(model_path, name, TEXTS) for name in ("int8", "int4")]  # type: ignore[arg-type]
    assert 0 < reports[0].mean_kl < reports[1].mean_kl
    worst = [report.tensors[0].relative_rms for report in reports]
    assert worst[0] < 0.01 < worst[1] < 0.15
    assert [error.relative_rms for error in reports[1].tensors] == sorted(
        (error.relative_rms for error in reports[1].tensors), reverse=True
    )


def test_one_matrix_may_be_held_better(model_path: Path) -> None:
    plain = quality.compare(model_path, "int4", TEXTS, with_tensors=False)
    better = quality.compare(model_path, "int4", TEXTS, with_tensors=False, overrides={"down": "int8", "qkv": "int8"})
    assert better.weight_format == "int4 down=int8 qkv=int8"
    assert better.bytes_per_token > plain.bytes_per_token
    assert better.mean_kl < plain.mean_kl


def test_the_default_texts_are_there() -> None:
    assert all(len(text) > 1000 for text in code_texts().values())


def test_the_commands_print_their_tables(
    tmp_path: Path, write_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model_path = write_model(tmp_path / "model.gguf", vocab=257)
    text = tmp_path / "text.py"
    text.write_text(TEXTS["a.py"])
    arguments = ["--model", str(model_path), "--text", str(text), "--tokens", "24"]
    quality.main([*arguments, "--formats", "int8", "--tensors", "1", "--markdown"])
    assert "| int8 |" in capsys.readouterr().out
    assert parity.main(arguments) == 0
    assert "24 of 24 positions agree" in capsys.readouterr().out
    assert parity.main([*arguments, "--format", "int4"]) == 1
