"""Everything that can be asked of an output without running its job again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from zenray.batch.output.disk import is_temporary
from zenray.batch.output.layout import (
    DERIVED,
    JOB,
    JOURNAL,
    MANIFEST,
    RUNS,
    SHARDS,
    shard_name,
)
from zenray.batch.output.manifest import CompanionEntry, Contents, ShardEntry, load_contents
from zenray.batch.output.row_ids import RowIdCheck, is_part_of
from zenray.batch.output.shard import decode_shard, footer_problem, own_schema, row_ids_of
from zenray.batch.rows import canonical_json
from zenray.errors import OutputDamaged


class Problem(Enum):
    """What can be wrong with an output."""

    JOB = "job"  # job.json is missing or not as it was written.
    LIST = "list"  # manifest.json or the journal is missing, unreadable, or of another job.
    MISSING = "missing"  # A listed shard is not there.
    SIZE = "size"
    CONTENT = "content"  # Other bytes than the listed SHA-256.
    UNREADABLE = "unreadable"  # A page checksum, or Parquet's own structure.
    MISPLACED = "misplaced"  # The footer says another job, shard, companion or number of tokens.
    SCHEMA = "schema"  # Other columns than the first one's.
    ROW_COUNT = "row_count"
    REPEATED_ROW = "repeated_row"
    ROW_IDS = "row_ids"  # Not the planned rows, or not in their order; of a companion, not its shard's.
    ROW = "row"  # The job itself cannot read it.
    STRANGER = "stranger"  # A file that belongs to no output.


RowProblems = Callable[[Mapping[str, pa.Table]], Iterable[tuple[str, str]]]
"""What a job finds wrong with rows of a shard (under no name) and its companions (under theirs): whose they are, and
what it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. `file` is relative to the output."""

    problem: Problem
    file: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem.value}: {self.detail}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What is listed as finished, and everything that is wrong with it. That more is to come is no problem."""

    complete: bool
    num_shards: int
    num_finished: int
    rows: int
    tokens: int
    bytes: int
    problems: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return not self.problems


def verify_output(path: Path, row_problems: RowProblems | None = None) -> VerifyReport:
    """Look at every byte of an output, one shard in memory at a time. Takes no lease and changes nothing. A shard
    whose files are as they were written is shown to `row_problems`.

    Problems are findings, never exceptions; OSError where the folder itself cannot be read.
    """
    findings: list[Finding] = []
    job = _check_job(path, findings)
    contents = _check_list(path, findings)
    if job and contents.job_sha256 not in ("", sha256(canonical_json(job).encode()).hexdigest()):
        name = MANIFEST if contents.complete else JOURNAL
        findings.append(Finding(Problem.LIST, name, f"is of job {contents.job_sha256[:12]}, {JOB} is another"))
        job = {}  # It plans nothing for these shards.
    _check_shards(path, job, contents, findings, row_problems)
    _check_strangers(path, contents, findings)
    return VerifyReport(
        complete=contents.complete,
        num_shards=contents.num_shards,
        num_finished=len(contents.shards),
        rows=contents.rows,
        tokens=contents.tokens,
        bytes=contents.bytes,
        problems=tuple(findings),
    )


def _check_job(path: Path, findings: list[Finding]) -> dict[str, Any]:
    """The spec as JSON; empty where there is none."""
    try:
        data = (path / JOB).read_bytes()
        job = json.loads(data)
        if not isinstance(job, dict) or not job or canonical_json(job).encode() + b"\n" != data:
            raise ValueError("not spelled as it was written")
        return job
    except (FileNotFoundError, ValueError) as error:
        detail = "missing" if isinstance(error, FileNotFoundError) else str(error)
        findings.append(Finding(Problem.JOB, JOB, detail))
        return {}


def _check_list(path: Path, findings: list[Finding]) -> Contents:
    """What is listed; nothing where there is no list."""
    try:
        if contents := load_contents(path):
            return contents
        findings.append(Finding(Problem.LIST, MANIFEST, f"missing, and no {JOURNAL} either"))
    except OutputDamaged as error:
        findings.append(Finding(Problem.LIST, JOURNAL if (path / JOURNAL).exists() else MANIFEST, str(error)))
    return Contents("", 0, {}, complete=False)


def _check_shards(
    path: Path, job: dict[str, Any], contents: Contents, findings: list[Finding], row_problems: RowProblems | None
) -> None:
    """The shards and what stands beside them."""
    check, schemas, readable = RowIdCheck(), dict[str, pa.Schema](), []
    for index in sorted(contents.shards):
        entry, num_findings = contents.shards[index], len(findings)
        tables = {}
        for name in ("", *entry.companions):
            file = f"{name or SHARDS}/{entry.file}"
            listed = entry.companions[name] if name else entry
            if (table := _check_bytes(path, file, listed, findings)) is not None:
                tables[name] = table
                problems = _table_problems(table, name, entry, schemas, contents)
                findings += [Finding(problem, file, detail) for problem, detail in problems]
        if "" not in tables:
            continue
        if row_problems is not None and len(findings) == num_findings:
            wrong = row_problems(tables)
            findings += [Finding(Problem.ROW, f"{name or SHARDS}/{entry.file}", detail) for name, detail in wrong]
        shard = tables.pop("")
        readable.append((index, shard.num_rows))
        findings += _planned_problems(entry, contents, job)
        check.add(_check_row_ids(shard, tables, entry, findings))
    for earlier, later in check.repeated():
        (first, first_row), (second, second_row) = _locate(earlier, readable), _locate(later, readable)
        detail = f"row {second_row} has the id of row {first_row} of {shard_name(first)}"
        findings.append(Finding(Problem.REPEATED_ROW, f"{SHARDS}/{shard_name(second)}", detail))
    planned = job.get("row_ids_sha256")
    if contents.complete and planned and len(readable) == contents.num_shards and planned != check.hexdigest:
        findings.append(Finding(Problem.ROW_IDS, MANIFEST, "the rows are not the planned ones in the planned order"))


def _check_bytes(
    path: Path, file: str, listed: ShardEntry | CompanionEntry, findings: list[Finding]
) -> pa.Table | None:
    """The table, as far as there is one."""
    try:
        data = (path / file).read_bytes()
    except FileNotFoundError:
        findings.append(Finding(Problem.MISSING, file, "listed, but not there"))
        return None
    if len(data) != listed.bytes:
        findings.append(Finding(Problem.SIZE, file, f"{len(data)} bytes, listed are {listed.bytes}"))
    if (found := sha256(data).hexdigest()) != listed.sha256:
        findings.append(Finding(Problem.CONTENT, file, f"SHA-256 is {found[:16]}…, listed is {listed.sha256[:16]}…"))
    try:
        return decode_shard(data)
    except OutputDamaged as error:
        findings.append(Finding(Problem.UNREADABLE, file, str(error)))
        return None


def _table_problems(
    table: pa.Table, companion: str, entry: ShardEntry, schemas: dict[str, pa.Schema], contents: Contents
) -> Iterator[tuple[Problem, str]]:
    """Of a shard's table, or of one beside it. `schemas` are those of the first that belong where they are."""
    listed, schema = entry.companions[companion] if companion else entry, own_schema(table.schema)
    if detail := footer_problem(table, contents.job_sha256, entry.shard, entry.tokens, companion):
        yield Problem.MISPLACED, detail
    elif not schema.equals(schemas.setdefault(companion, schema), check_metadata=True):
        yield Problem.SCHEMA, "other columns, types or metadata than the first one's"
    if table.num_rows != listed.rows:
        yield Problem.ROW_COUNT, f"{table.num_rows} rows, listed are {listed.rows}"


def _planned_problems(entry: ShardEntry, contents: Contents, job: dict[str, Any]) -> Iterator[Finding]:
    is_last = entry.shard == contents.num_shards - 1
    planned = job.get("rows_per_shard", entry.rows)
    if entry.rows > planned or (entry.rows < planned and not is_last):
        detail = f"{entry.rows} rows are listed, planned are {planned}"
        yield Finding(Problem.ROW_COUNT, f"{SHARDS}/{entry.file}", detail)


def _check_row_ids(
    shard: pa.Table, companions: Mapping[str, pa.Table], entry: ShardEntry, findings: list[Finding]
) -> list[str]:
    """The shard's; where it has none, others in their number, which keep the count for the shards after it."""
    row_ids = _row_ids(shard, f"{SHARDS}/{entry.file}", findings)
    for name, table in companions.items():
        file = f"{name}/{entry.file}"
        beside = _row_ids(table, file, findings)
        if row_ids is not None and beside is not None and not is_part_of(beside, row_ids):
            findings.append(Finding(Problem.ROW_IDS, file, "has other rows than its shard, or in another order"))
    return [f"{entry.shard}:{row}" for row in range(shard.num_rows)] if row_ids is None else row_ids


def _row_ids(table: pa.Table, file: str, findings: list[Finding]) -> list[str] | None:
    try:
        return row_ids_of(table)
    except OutputDamaged as error:
        findings.append(Finding(Problem.ROW_IDS, file, str(error)))
        return None


def _locate(row: int, shards: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The shard of a row of the output, of shards and their numbers of rows, and the row's place in it."""
    for index, num_rows in shards:
        if row < num_rows:
            return index, row
        row -= num_rows
    raise AssertionError("no shard has the row")


def _check_strangers(path: Path, contents: Contents, findings: list[Finding]) -> None:
    """Files that no output has. Before the end a killed run's leftovers are none: the next run sees to them."""
    folders = (SHARDS, *contents.companions)
    known = {JOB, MANIFEST, RUNS, *folders, *DERIVED}
    listed = {entry.file for entry in contents.shards.values()}
    if not contents.complete:
        known.add(JOURNAL)

    def may_be_begun(name: str) -> bool:
        index = name.removeprefix("part-").removesuffix(".parquet")
        planned = index.isdecimal() and len(index) < 10 and int(index) < contents.num_shards
        return not contents.complete and planned and name == shard_name(int(index))

    strangers = [each.name for each in path.iterdir() if each.name not in known]
    for folder in folders:
        names = [each.name for each in (path / folder).iterdir()] if (path / folder).is_dir() else []
        strangers += [f"{folder}/{name}" for name in names if name not in listed and not may_be_begun(name)]
    findings += [
        Finding(Problem.STRANGER, name, "belongs to no output")
        for name in sorted(strangers)
        if contents.complete or not is_temporary(Path(name).name)
    ]
