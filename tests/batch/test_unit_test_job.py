"""The unit-test job from a folder of Python to a tree that pytest runs, with a model that says what it was told to.

All else is real: mining, prompts, the sandbox, shards, the report, and the second look at every kept test.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.unit.batch.unit_tests.test_prompts import ChatTokenizer
from zenray.batch.inputs.spec import InputKind, InputSpec
from zenray.batch.job import Generated, ModelIdentity
from zenray.batch.output.read import read_shards
from zenray.batch.output.store import OutputStore
from zenray.batch.output.verify import verify_output
from zenray.batch.running.pipeline import job_spec
from zenray.batch.running.shard_table import shard_tables
from zenray.batch.running.shard_text import decode_row, encode_row
from zenray.batch.running.stage_rows import process_rows
from zenray.batch.sandbox.pool import SandboxPool
from zenray.batch.unit_tests.job import UnitTestJob
from zenray.batch.unit_tests.prompting.generate import GenerateSettings
from zenray.batch.unit_tests.results.recheck import recheck, summary
from zenray.batch.unit_tests.settings import UnitTestSettings
from zenray.batch.unit_tests.validation.settings import ValidationSettings
from zenray.engine.request import FinishReason, Limits, Sampling
from zenray.model.tokenizer import Tokenizer

SOURCE = '''\
"""Numbers and words."""

import random
import re

_WORD = re.compile(r"[a-z]+")


def clamp(value, low, high):
    """`value`, or the bound that it exceeds."""
    if low > high:
        raise ValueError("low is above high")
    if value < low:
        return low
    return high if value > high else value


def count_words(text, least=1):
    """How often each word of at least `least` letters stands in `text`."""
    counts = {}
    for word in _WORD.findall(text.lower()):
        if len(word) >= least:
            counts[word] = counts.get(word, 0) + 1
    return counts


class Span:
    """From start to end."""

    def __init__(self, start, end):
        self.start = start
        self.end = end

    def overlap(self, other):
        """How much of the two spans is common."""
        first = max(self.start, other.start)
        last = min(self.end, other.end)
        return max(0, last - first)


def pick(items):
    """One of several."""
    chosen = random.choice(items)
    if chosen is None:
        return items[0]
    return chosen


def zero():
    return 0
'''

ANSWERS = {
    "clamp": (
        "():\n    assert clamp(5, 0, 9) == 5\n    assert clamp(-1, 0, 9) == 0\n    assert clamp(11, 0, 9) == 9\n",
        "():\n    with pytest.raises(ValueError):\n        clamp(1, 2, 0)\n",
        "():\n    assert clamp(5, 0, 9) == 9\n",  # Wrong.
        "():\n    assert clamp(0, 0, 9) == sum(0 for _ in range(10**10))\n",  # Never ends.
        "():\n    clamp(1, 2, 3)\n",  # Asserts nothing.
    ),
    "count_words": ("():\n    assert count_words('a bc a', 1) == {'a': 2, 'bc': 1}\n",),
    "Span": ("():\n    assert Span(1, 5).overlap(Span(3, 9)) == 2\n    assert Span(1, 2).overlap(Span(3, 9)) == 0\n",),
}
BODIES = {
    "clamp": (
        "    if low > high:\n        raise ValueError(low)\n    return min(high, max(low, value))\n",
        "    return low\n",
    ),
    "count_words": ("    return {word: text.split().count(word) for word in text.split() if len(word) >= least}\n",),
    "Span": ("        return max(0, min(self.end, other.end) - max(self.start, other.start))\n",),
}


@dataclass
class Script:
    """A `Generator` that knows the answers. `asked` holds the prompts that it was given."""

    model = ModelIdentity("script", "0" * 64, "float32", context_length=4096, vocab_size=302)
    tokenizer: Tokenizer = field(default_factory=ChatTokenizer)
    asked: list[str] = field(default_factory=list)

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, limits: Limits
    ) -> tuple[Generated, ...]:
        prompt = self.tokenizer.decode(prompt_token_ids)
        self.asked.append(prompt)
        imported = re.findall(r"from focal import (\w+)", prompt)
        texts: Iterable[str]
        if imported:
            texts = ANSWERS[imported[-1]]
        else:
            texts = next(bodies for name, bodies in BODIES.items() if re.search(rf"`{name}\b", prompt))
        return tuple(Generated(text, (1, 2, 3), FinishReason.STOP) for text in list(texts)[: sampling.n])


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "words.py").write_text(SOURCE)
    (folder / "LICENSE").write_text("Do what you like.")
    return folder


def make_job(repository: Path, max_functions: int | None = None) -> UnitTestJob:
    settings = UnitTestSettings(
        max_functions=max_functions,
        rows_per_shard=1,
        generation=GenerateSettings(num_test_answers=5, num_implementations=2),
        validation=ValidationSettings(reference_runs=2, max_mutants=8, test_cpu_s=0.3, test_wall_s=3),
    )
    return UnitTestJob([InputSpec(InputKind.FOLDER, str(repository), name="words")], 7, settings)


def run(job: UnitTestJob, output: Path, generator: Script, shards_before_kill: int | None = None) -> None:
    """The pipeline without its cluster: the same stages, rows as text between them, the same store."""

    async def through_stages() -> None:
        rows = job.rows(lambda what: None, None)
        shards = [rows[start : start + job.rows_per_shard] for start in range(0, len(rows), job.rows_per_shard)]
        with OutputStore.open(output, job_spec(job, rows, generator.model), len(shards)) as store:
            stages = [(plan, plan.make()) for plan in job.stages]
            try:
                for plan, stage in stages:
                    await stage.open(generator if plan.needs_model else None)
                for index in sorted(set(range(len(shards))) - store.finished):
                    if len(store.finished) == shards_before_kill:
                        raise Killed
                    data = [encode_row(row) for row in shards[index]]
                    for plan, stage in stages:
                        places = asyncio.Semaphore(plan.rows_at_once)
                        data = await process_rows(plan.name, stage, data, places, lambda: None)
                    table, _, done = shard_tables(job, [decode_row(each) for each in data])
                    store.write(index, table, sum(map(job.num_tokens, done)))
                store.complete()
            finally:
                for _, stage in stages:
                    await stage.close()

    asyncio.run(through_stages())
    job.finish(output, lambda what: None)


def promised(output: Path) -> dict[str, bytes]:
    """Every file of an output that is a function of its job."""
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("runs/")}


@pytest.fixture(scope="module")
def output(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output") / "whole"
    run(make_job(repository), folder, Script())
    return folder


def test_tests_that_hold_are_kept_and_the_others_say_why_not(output: Path) -> None:
    report = verify_output(output)
    assert report.complete and report.sound and report.rows == 3
    records = {row["qualified_name"]: row for table in read_shards(output) for row in table.to_pylist()}
    clamp = records["clamp"]
    verdicts = {test["source"].partition("():\n    ")[2].strip(): test["verdict"] for test in clamp["tests"]}
    assert verdicts["assert clamp(-1, 0, 9) == 0"] == "kept"
    assert verdicts["with pytest.raises(ValueError):\n        clamp(1, 2, 0)"] == "kept"
    assert verdicts["assert clamp(5, 0, 9) == 9"] == "fails_on_reference"
    assert next(verdict for body, verdict in verdicts.items() if "range(10" in body) == "limit_exceeded"
    assert "clamp(1, 2, 3)" in " ".join(text["text"] for text in clamp["rejected_texts"])
    assert clamp["line_coverage"] == clamp["branch_coverage"] == 1.0
    assert clamp["mutation_score"] > 0.5  # Some mutants mean the same, such as < for <=.
    assert [one["agrees"] for one in clamp["implementations"]] == [True, False]
    assert clamp["agreement"] == 0.5
    assert clamp["model"]["name"] == "script"
    assert clamp["provenance"]["licence_file"] == "LICENSE"
    assert all(any(test["kept"] for test in record["tests"]) for record in records.values())


def test_every_function_is_a_row_or_has_a_reason(output: Path) -> None:
    skipped = pq.read_table(output / "report" / "skipped.parquet").to_pylist()
    reasons = {row["qualified_name"]: row["reason"] for row in skipped}
    assert reasons == {"Span.__init__": "special_method", "pick": "nondeterministic", "zero": "trivial"}


def test_plain_pytest_and_coverage_find_what_the_record_says(output: Path) -> None:
    with SandboxPool(2) as pool:
        told = summary(asyncio.run(recheck(output, pool, sample=2)))
    assert told["problems"] == []
    assert told["tests"] == told["tests_passed"] >= 4
    assert (told["functions"], told["sampled"], told["sampled_agreeing"]) == (3, 2, 2)
    recorded = {figure["name"]: figure["recorded"] for figure in told["figures"]}
    assert recorded["mutants killed"] > 3 and recorded["lines covered"] > 3


def test_the_second_look_sees_what_was_changed_behind_the_records_back(output: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    for name, data in promised(output).items():
        if "/test_words_clamp" in name:
            data = data.replace(b"clamp(-1, 0, 9) == 0", b"clamp(-1, 0, 9) == 1")
        (changed / name).parent.mkdir(parents=True, exist_ok=True)
        (changed / name).write_bytes(data)
    with SandboxPool(1) as pool:
        told = summary(asyncio.run(recheck(changed, pool, sample=0)))
    assert told["tests_passed"] == told["tests"] - 1
    assert len(told["problems"]) == 1 and "test_clamp" in told["problems"][0]


def test_a_killed_job_goes_on_to_the_same_bytes(repository: Path, output: Path, tmp_path: Path) -> None:
    resumed = tmp_path / "resumed"
    with pytest.raises(Killed):
        run(make_job(repository), resumed, Script(), shards_before_kill=1)
    again = Script()
    run(make_job(repository), resumed, again)
    assert promised(resumed) == promised(output)
    asked_for = {name for name in ANSWERS for prompt in again.asked if f"from focal import {name}" in prompt}
    assert len(asked_for) == 2  # What was finished is not asked for again.
