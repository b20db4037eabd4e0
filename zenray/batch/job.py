"""What a job is: rows, stages that turn them into results, and a table. The pipeline runs any of them.

A job's output is a function of its `JobSpec` alone. Whatever depends on time or place (durations, replicas, retries)
belongs into logs, never into a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from zenray.batch.rows import Row, canonical_json
from zenray.engine.request import FinishReason, Limits, Sampling
from zenray.engine.scoring import ScoredRows, Scoring
from zenray.model.tokenizer import Tokenizer

Say = Callable[[str], None]
"""Called with what a long preparation is doing now, in a few words."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What answers a job's requests; two with equal fields give equal tokens."""

    name: str
    sha256: str
    weight_format: str
    context_length: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a job plans with: the model that answers its requests, and how text becomes tokens to it."""

    identity: ModelIdentity
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Everything the bytes of an output follow from. A resumed job must have the spec it was begun with.

    `inputs` names each input with its digest or revision; `model` is None for a job that asks none.
    """

    job: str
    job_version: int
    seed: int
    parameters: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]
    model: ModelIdentity | None
    rows_per_shard: int
    row_ids_sha256: str = field(default="")  # Of the planned row ids in order.

    def to_json(self) -> str:
        from dataclasses import asdict

        return canonical_json(asdict(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return sha256(self.to_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Generated:
    """One finished choice. It ended by itself or by its limits, never by a deadline or a lost replica."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


class Generator(Protocol):
    """The verifiers, as a stage sees them."""

    @property
    def model(self) -> ModelIdentity: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    async def generate(
        self, prompt_token_ids: Sequence[int], sampling: Sampling, limits: Limits
    ) -> tuple[Generated, ...]:
        """All `sampling.n` choices, by index. Batch priority; retried until they are whole.

        Raises InvalidRequest for what no retry can help (a row's fault), and Unavailable when no verifier answered
        for as long as the job is willing to wait (nobody's fault: the shard is not written).
        """
        ...

    async def score(self, token_ids: Sequence[int], scoring: Scoring, seed: int) -> ScoredRows:
        """The records of all positions from `scoring.first_scored` on. Batch priority, patience and errors as for
        `generate`."""
        ...


class RowError(Exception):
    """The row cannot be processed and never will be: it is written with this reason. Nothing transient belongs here."""


class Stage(Protocol):
    """One step of a job in a worker process. `process` runs for several rows at once on one event loop."""

    async def open(self, generator: Generator | None) -> None:
        """Before the first row. `generator` is None unless the stage asked for the model."""
        ...

    async def process(self, row: Row) -> Row:
        """The row with what this stage adds. Raises RowError, InvalidRequest: the row gets an `error`."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A stage and what it needs. `make` is picklable and called in the worker (Ray's own pickle, no socket of ours)."""

    name: str
    make: Callable[[], Stage]
    needs_model: bool = False
    num_cpus: float = 0.25
    rows_at_once: int = 64


class Job(Protocol):
    """A job as the pipeline and the command line see it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int:
        """Raised whenever the same rows would give other bytes."""
        ...

    @property
    def seed(self) -> int:
        """What all randomness of its rows is derived from."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What of the job's settings decides its bytes."""
        ...

    @property
    def inputs(self) -> tuple[Mapping[str, Any], ...]:
        """Each input with its revision or digest; known after `rows`."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Of the shards. Has the columns row_id and error. Known after `rows`."""
        ...

    @property
    def companions(self) -> Mapping[str, pa.Schema]:
        """Further tables of every shard, by name, each in a folder of that name: what most readers do not read. Known
        after `rows`; each has the column row_id."""
        ...

    @property
    def rows_per_shard(self) -> int: ...

    @property
    def stages(self) -> tuple[StagePlan, ...]: ...

    def rows(self, say: Say, model: ServedModel | None) -> list[Row]:
        """All rows, in an order that depends on the inputs alone. `model` is None for a job whose stages ask none."""
        ...

    def record(self, row: Row) -> Mapping[str, Any]:
        """A processed row (or one with an error) as a row of `schema`."""
        ...

    def companion(self, name: str, row: Row) -> Mapping[str, Any] | None:
        """Such a row as a row of a companion; None where it has none there."""
        ...

    def num_tokens(self, row: Row) -> int:
        """Tokens the model generated or scored for a row, for the manifest."""
        ...

    def tokens_to_do(self, row: Row) -> int | None:
        """Tokens that the model will generate or score for a planned row; None where nobody can know. They say how far
        a run is more finely than its rows."""
        ...

    def finish(self, output: Path, say: Say) -> None:
        """Derived files (reports, trees) from complete shards. May be run again at any time."""
        ...
