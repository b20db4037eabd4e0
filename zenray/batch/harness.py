"""A small job for tests: some rows of text, a stage that continues them with the model, a stage that looks at them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pyarrow as pa

from zenray.batch.job import Generator, RowError, Say, ServedModel, StagePlan
from zenray.batch.rows import ERROR, ROW_ID, Row, derive_seed, row_id
from zenray.engine.request import Limits, Sampling

HOPELESS, BROKEN, TOO_LONG = "hopeless", "broken", "too long"
"""Texts whose rows fail: with a RowError, with an exception nobody expected, with an InvalidRequest."""
ANSWERS = "answers"
"""A companion: the tokens of what the model said, of rows that it answered."""


@dataclass(frozen=True)
class EchoJob:
    """`num_rows` rows, every one continued by `max_tokens` tokens in `num_choices` choices if `with_model`."""

    num_rows: int = 24
    rows_per_shard: int = 4
    with_model: bool = True
    seed: int = 7
    max_tokens: int = 12
    num_choices: int = 2
    num_bad_rows: int = 0
    rows_at_once: int = 8

    name = "echo"
    version = 1
    schema = pa.schema(
        [("row_id", pa.string()), ("text", pa.string()), ("continued", pa.list_(pa.string())),
         ("length", pa.int64()), ("error", pa.string())]
    )  # fmt: skip
    companions: ClassVar[Mapping[str, pa.Schema]] = {
        ANSWERS: pa.schema([("row_id", pa.string()), ("token_ids", pa.list_(pa.list_(pa.int32())))])
    }

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {"max_tokens": self.max_tokens, "num_choices": self.num_choices, "with_model": self.with_model}

    @property
    def inputs(self) -> tuple[Mapping[str, Any], ...]:
        return ({"num_rows": self.num_rows, "num_bad_rows": self.num_bad_rows},)

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        generate = StagePlan(
            "generate",
            partial(ContinueStage, self.seed, self.max_tokens, self.num_choices),
            needs_model=True,
            num_cpus=0.1,
            rows_at_once=self.rows_at_once,
        )
        measure = StagePlan("measure", MeasureStage, num_cpus=0.1, rows_at_once=self.rows_at_once)
        return (generate, measure) if self.with_model else (measure,)

    def rows(self, say: Say, model: ServedModel | None) -> list[Row]:
        assert (model is not None) == self.with_model
        bad = [HOPELESS, BROKEN, TOO_LONG]
        texts = [f"def f{index}(" for index in range(self.num_rows - self.num_bad_rows)]
        for index in range(self.num_bad_rows):  # Spread over the shards.
            texts.insert(index * 5 % self.num_rows, f"{bad[index % 3]} {index}")
        return [{ROW_ID: row_id(text), "text": text} for text in texts]

    def record(self, row: Row) -> Mapping[str, Any]:
        continued = row.get("continued")
        return {
            "row_id": row[ROW_ID],
            "text": row.get("text"),
            "continued": continued and [choice["text"] for choice in continued],
            "length": row.get("length"),
            "error": row.get(ERROR),
        }

    def companion(self, name: str, row: Row) -> Mapping[str, Any] | None:
        continued = row.get("continued")
        return continued and {"row_id": row[ROW_ID], "token_ids": [choice["token_ids"] for choice in continued]}

    def num_tokens(self, row: Row) -> int:
        return sum(len(choice["token_ids"]) for choice in row.get("continued", ()))

    def tokens_to_do(self, row: Row) -> int | None:
        return None

    def finish(self, output: Path, say: Say) -> None:
        pass


class ContinueStage:
    """Asks the model."""

    def __init__(self, seed: int, max_tokens: int, num_choices: int) -> None:
        self._seed, self._max_tokens, self._num_choices = seed, max_tokens, num_choices

    async def open(self, generator: Generator | None) -> None:
        assert generator is not None
        self._generator = generator

    async def process(self, row: Row) -> Row:
        text = row["text"] * (1000 if row["text"].startswith(TOO_LONG) else 1)
        sampling = Sampling(temperature=1.0, seed=derive_seed(self._seed, row[ROW_ID], "continue"), n=self._num_choices)
        choices = await self._generator.generate(
            self._generator.tokenizer.encode(text), sampling, Limits(max_tokens=self._max_tokens)
        )
        continued = [{"text": choice.text, "token_ids": list(choice.token_ids)} for choice in choices]
        return {**row, "continued": continued}

    async def close(self) -> None:
        pass


class MeasureStage:
    """Needs no model."""

    async def open(self, generator: Generator | None) -> None:
        assert generator is None

    async def process(self, row: Row) -> Row:
        text = row["text"]
        if text.startswith(HOPELESS):
            raise RowError("nothing can be done with this text")
        if text.startswith(BROKEN):
            raise ZeroDivisionError(f"of {object()}")
        return {**row, "length": sum(len(choice["text"]) for choice in row.get("continued", ())) + len(text)}

    async def close(self) -> None:
        pass


def stage_processes() -> list[psutil.Process]:
    """The running workers of all stages on the Ray this process started, whoever drives them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and "".join(process.cmdline()).startswith("ray::MapWorker"):
                found.append(process)
    return found


def drivers_code(job: EchoJob, output: Path, address: str) -> str:
    """What `python -c` runs to be a driver of `job` on the Ray at `address`."""
    return (
        "from pathlib import Path\n"
        "from zenray.batch.harness import EchoJob\n"
        "from zenray.batch.running.pipeline import RunSettings, run_job\n"
        f"run_job({job!r}, Path({str(output)!r}), RunSettings(address={address!r}))\n"
    )
