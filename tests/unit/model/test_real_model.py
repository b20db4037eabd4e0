"""The real 0.5B model against numbers transformers gave for the same file.

`data/qwen2.5-coder-0.5b.json` holds a text written for this test, its token ids, the most likely next
token of every position with its margin over the second, and log-probabilities, computed by transformers
in float32. `python -m zenray.model.parity` repeats the comparison live, on any text.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from zenray.model.convert import open_source
from zenray.model.decoder import Decoder
from zenray.model.evaluate import BLOCK_SIZE, sequence_logits, step_batch
from zenray.model.load import load_unconverted
from zenray.model.source import ModelSource

pytestmark = pytest.mark.real_model
GOLDEN = Path(__file__).parent / "data" / "qwen2.5-coder-0.5b.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def source(real_model_05b: Path) -> ModelSource:
    return open_source(real_model_05b)


@pytest.fixture(scope="module")
def decoder(real_model_05b: Path) -> Decoder:
    torch.set_num_threads(2)
    return load_unconverted(real_model_05b, "float32").decoder


def test_the_text_is_tokenised_as_by_transformers(source: ModelSource, golden: dict[str, Any]) -> None:
    assert source.tokenizer().encode(golden["text"]) == golden["token_ids"]


def test_the_most_likely_token_is_that_of_transformers(decoder: Decoder, golden: dict[str, Any]) -> None:
    logits = sequence_logits(decoder, golden["token_ids"])
    same = logits.argmax(-1) == torch.tensor(golden["top1"])
    assert float(same.float().mean()) >= 0.995
    # Where they differ at all, transformers itself was undecided.
    assert all(margin < 1e-3 for margin, equal in zip(golden["margin"], same.tolist(), strict=True) if not equal)
    chosen = torch.tensor(golden["token_ids"][1:])[:, None]
    logprobs = logits[:-1].log_softmax(-1).gather(1, chosen)[:, 0]
    assert float((logprobs - torch.tensor(golden["logprobs"])).abs().max()) < 1e-3


def test_decoding_with_the_cache_equals_the_full_forward(decoder: Decoder, golden: dict[str, Any]) -> None:
    ids = golden["token_ids"][:48]
    caches = decoder.new_caches(-(-len(ids) // BLOCK_SIZE), BLOCK_SIZE)
    edges = [0, 30, *range(31, 49)]
    spans = itertools.pairwise(edges)
    steps = [decoder.forward(step_batch([(ids[a:b], a)], max_tokens=48), caches) for a, b in spans]
    assert float((torch.cat(steps) - sequence_logits(decoder, ids)).abs().max()) < 1e-3
