"""The stage asks what its settings say, with seeds that follow from the row, and books what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.batch.unit_tests.focal_examples import CLAMP, mined
from tests.unit.batch.unit_tests.test_prompts import ChatTokenizer
from zenray.batch.client.local import LocalGenerator
from zenray.batch.job import Generated, ModelIdentity
from zenray.batch.rows import ROW_ID, canonical_json
from zenray.batch.unit_tests.codec import from_row, to_row
from zenray.batch.unit_tests.model import CANDIDATES, FUNCTION, Candidates, MinedFunction
from zenray.batch.unit_tests.prompting.generate import GenerateSettings, GenerateStage
from zenray.batch.unit_tests.prompting.prompts import Opening
from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.request import FinishReason, Limits, Sampling
from zenray.errors import InvalidRequest
from zenray.model.tokenizer import Tokenizer


class Scribe:
    """A `Generator` that writes what it was told to, and remembers what it was asked."""

    model = ModelIdentity("scribe", "", "float32", context_length=4096, vocab_size=302)
    tokenizer: Tokenizer = ChatTokenizer()

    def __init__(self, tests: Sequence[str], bodies: Sequence[str]) -> None:
        self._tests, self._bodies = tests, bodies
        self.asked: list[tuple[str, Sampling, Limits]] = []

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, limits: Limits
    ) -> tuple[Generated, ...]:
        prompt = self.tokenizer.decode(prompt_token_ids)
        self.asked.append((prompt, sampling, limits))
        texts = self._tests if "import pytest" in prompt else self._bodies
        return tuple(Generated(text, (1, 2, 3), FinishReason.STOP) for text in texts[: sampling.n])


async def processed(function: MinedFunction, scribe: Any, settings: GenerateSettings, seed: int = 1) -> Candidates:
    stage = GenerateStage(settings, seed)
    await stage.open(scribe)
    row = await stage.process({ROW_ID: function.row_id, FUNCTION: to_row(function)})
    await stage.close()
    return from_row(Candidates, json.loads(canonical_json(row))[CANDIDATES])


SETTINGS = GenerateSettings(
    openings=(Opening.NAME, Opening.ERRORS), num_test_answers=2, num_implementations=2, temperature=0.7
)
TESTS = ("():\n    assert clamp(1, 0, 9) == 1\n", "():\n    assert clamp(-1, 0, 9) == 0\n")
BODIES = ("    return min(high, max(low, value))\n", "    return 1 if")


async def test_answers_become_candidates() -> None:
    found = await processed(CLAMP, Scribe(TESTS, BODIES), SETTINGS.model_copy(update={"openings": (Opening.NAME,)}))
    assert [test.source.splitlines()[-1].strip() for test in found.tests] == [
        "assert clamp(1, 0, 9) == 1",
        "assert clamp(-1, 0, 9) == 0",
    ]
    assert [each.module_source.splitlines()[-1].strip() for each in found.implementations] == [
        "return min(high, max(low, value))"
    ]
    assert [each.kind for each in found.rejected] == ["implementation"]
    assert found.num_generated_tokens == 12


async def test_every_request_has_a_seed_of_its_own() -> None:
    scribe = Scribe(TESTS, BODIES)
    found = await processed(CLAMP, scribe, SETTINGS)
    assert [sampling.n for _, sampling, _ in scribe.asked] == [2, 2, 2]
    assert all(sampling.temperature == 0.7 for _, sampling, _ in scribe.asked)
    assert tuple(sampling.seed for _, sampling, _ in scribe.asked) == found.seeds
    assert len(set(found.seeds)) == 3
    assert (await processed(CLAMP, scribe, SETTINGS)).seeds == found.seeds
    assert not set((await processed(CLAMP, scribe, SETTINGS, seed=2)).seeds) & set(found.seeds)


async def test_what_cannot_be_reimplemented_is_not_asked_for() -> None:
    scribe = Scribe(TESTS, BODIES)
    unnamed = mined("def f(x):\n    return x * 2\n", "f")
    found = await processed(unnamed, scribe, GenerateSettings(openings=(Opening.NAME,)))
    assert len(scribe.asked) == 1
    assert any("no docstring" in each.reason for each in found.rejected)


async def test_a_function_without_room_is_the_rows_error() -> None:
    long = mined("def f(x):\n" + "    x = x + 1\n" * 1000 + "    return x\n", "f", "Adds.")
    with pytest.raises(InvalidRequest, match="prompt of f"):
        await processed(long, Scribe(TESTS, BODIES), GenerateSettings())


async def test_a_header_without_room_is_only_not_asked_for_anew() -> None:
    documented = f"def f(x):\n    {'words ' * 900!r}\n    return x\n"
    function = replace(mined(documented, "f", "Words."), source="def f(x):\n    return x\n")
    scribe = Scribe(("():\n    assert f(1) == 1\n",), ())
    found = await processed(function, scribe, GenerateSettings(openings=(Opening.NAME,)))
    assert len(found.tests) == len(scribe.asked) == 1
    assert any("prompt of f" in each.reason for each in found.rejected)


async def test_the_same_row_gives_the_same_bytes_from_a_real_engine() -> None:
    """The tiny model writes noise, which comes out as noise does: rejected, and the same every time."""
    settings = GenerateSettings(max_test_tokens=12, max_implementation_tokens=12, num_test_answers=3)
    found = []
    for _ in range(2):
        config = load_config("tiny", None, ["model.context_length=1024"])
        async with LocalGenerator.running(build_engine(config)) as generator:
            found.append(await processed(CLAMP, generator, settings))
    assert found[0] == found[1]
    assert found[0].num_generated_tokens > 0
    assert {each.kind for each in found[0].rejected} == {"test", "implementation"}
