"""The unit-test job: functions of Python repositories in, validated unit tests for them out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from zenray.batch.derived import replaced_folder
from zenray.batch.inputs.document import InputAccount, SourceDocument
from zenray.batch.inputs.read import account_of, read_documents
from zenray.batch.inputs.spec import InputKind, InputSpec
from zenray.batch.job import Say, ServedModel, StagePlan
from zenray.batch.output.read import read_job, read_shards
from zenray.batch.rows import ROW_ID, Row
from zenray.batch.unit_tests.choose import choose_functions
from zenray.batch.unit_tests.codec import to_row
from zenray.batch.unit_tests.mining.mine import Mined, mine_functions
from zenray.batch.unit_tests.model import CANDIDATES, FUNCTION, MinedFunction, Skipped, SkipReason
from zenray.batch.unit_tests.prompting.generate import GenerateStage
from zenray.batch.unit_tests.results.record import SCHEMA, to_record
from zenray.batch.unit_tests.results.report import write_report
from zenray.batch.unit_tests.results.tree import write_tree
from zenray.batch.unit_tests.settings import UnitTestSettings
from zenray.batch.unit_tests.validation.validate_stage import ValidateStage, sandbox_versions

_ROWS_GENERATED_AT_ONCE = 16  # Each has one request under way: as many as an engine runs together.
_ROWS_VALIDATED_AT_ONCE = 4  # They share the sandboxes of a process, one per core.


class UnitTestJob:
    """Mines functions, asks the model for tests, runs these and keeps what holds. A `zenray.batch.job.Job`."""

    name = "unit-tests"
    version = 2
    schema: pa.Schema = SCHEMA
    companions: Mapping[str, pa.Schema] = {}

    def __init__(self, inputs: Sequence[InputSpec], seed: int, settings: UnitTestSettings) -> None:
        self.seed = seed
        self._specs = tuple(_python_of(spec) for spec in inputs)
        self._settings = settings
        self._accounts: tuple[InputAccount, ...] = ()
        self._mined: Mined | None = None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Every setting of every stage, those without an option included, as another default makes another job; and
        the versions of what runs the tests. Raises SandboxUnavailable where there is no Python for a sandbox."""
        return {
            "max_functions": self._settings.max_functions,
            "mining": to_row(self._settings.mining.settings()),
            "generation": self._settings.generation.model_dump(mode="json"),
            "validation": self._settings.validation.model_dump(mode="json"),
            "versions": sandbox_versions(),
        }

    @property
    def inputs(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(account.to_json() for account in self._accounts)

    @property
    def rows_per_shard(self) -> int:
        return self._settings.rows_per_shard

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        generate = partial(GenerateStage, self._settings.generation, self.seed)
        validate = partial(ValidateStage, self._settings.validation, versions=sandbox_versions())
        return (
            StagePlan("generate", generate, needs_model=True, rows_at_once=_ROWS_GENERATED_AT_ONCE),
            StagePlan("validate", validate, rows_at_once=_ROWS_VALIDATED_AT_ONCE),
        )

    def rows(self, say: Say, model: ServedModel | None) -> list[Row]:
        chosen, skipped = self._functions(say)
        say(self._what_was_mined(len(chosen), skipped))
        return [{ROW_ID: function.row_id, FUNCTION: to_row(function)} for function in chosen]

    def record(self, row: Row) -> Mapping[str, Any]:
        return to_record(row)

    def companion(self, name: str, row: Row) -> None:
        return None

    def num_tokens(self, row: Row) -> int:
        candidates: dict[str, Any] = row.get(CANDIDATES, {})
        return int(candidates.get("num_generated_tokens", 0))

    def tokens_to_do(self, row: Row) -> int | None:
        return None

    def finish(self, output: Path, say: Say) -> None:
        """Writes `tests/`, the tree that pytest runs, and `report/`."""
        _, skipped = self._functions(say)
        records = partial(_records, output)
        say("writing the tree of tests")
        with replaced_folder(output, "tests") as folder:
            write_tree(folder, records())
        say("writing the report")
        with replaced_folder(output, "report") as folder:
            write_report(folder, read_job(output), records, skipped)

    def _functions(self, say: Say) -> tuple[list[MinedFunction], list[Skipped]]:
        """The functions that become rows, and all others with their reasons."""
        if self._mined is None:
            self._accounts = tuple(account_of(spec) for spec in self._specs)
            self._mined = mine_functions(self._documents(say), self._settings.mining.settings())
        chosen = choose_functions(self._mined.functions, self._settings.max_functions)
        taken = {function.row_id for function in chosen}
        beyond = [
            Skipped(function.qualified_name, *_place(function), SkipReason.NOT_CHOSEN)
            for function in self._mined.functions
            if function.row_id not in taken
        ]
        return chosen, [*self._mined.skipped, *beyond]

    def _what_was_mined(self, num_chosen: int, skipped: Sequence[Skipped]) -> str:
        """Above all for those whose functions are not among the rows."""
        num_files = sum(account.num_documents for account in self._accounts)
        num_not_read = sum(account.num_passed_over for account in self._accounts)
        reasons = Counter(each.reason.value.replace("_", " ") for each in skipped)
        text = f"files: {num_files} read, {num_not_read} passed over; functions: {num_chosen} to write tests for"
        left_out = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        return f"{text}; left out: {left_out}" if left_out else text

    def _documents(self, say: Say) -> Iterator[SourceDocument]:
        for spec, account in zip(self._specs, self._accounts, strict=True):
            say(f"reading {spec.display_name}")
            yield from read_documents(spec, account)


def _place(function: MinedFunction) -> tuple[str, str]:
    return function.provenance.repository, function.provenance.path


def _python_of(spec: InputSpec) -> InputSpec:
    """The Python files of a tree, unless others were asked for; a table may name its texts as it likes."""
    is_tree = spec.kind in (InputKind.FOLDER, InputKind.GIT, InputKind.ARCHIVE)
    return replace(spec, suffixes=(".py",)) if is_tree and not spec.suffixes else spec


def _records(output: Path) -> Iterator[Mapping[str, Any]]:
    """The job's rows as they were written, one shard in memory at a time."""
    for table in read_shards(output):
        yield from table.to_pylist()
