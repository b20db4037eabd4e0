"""Reading what a job wrote, every byte of it checked.

Parquet's own page checksums leave out its footer and whatever is not read, so a file is compared with the SHA-256 that
the job's list of shards has of it before anything is made of its bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from zenray.batch.output.layout import JOB, JOURNAL, MANIFEST, shard_path
from zenray.batch.output.manifest import Contents, ShardEntry, load_contents
from zenray.batch.output.shard import decode_shard
from zenray.errors import NotFound, OutputDamaged

_REMEDY = "the command that made it makes it again; `zenray jobs verify` lists all that is wrong"


@dataclass(frozen=True, slots=True)
class CheckedShard:
    """A shard's Parquet file, and those of its companions by name, byte for byte as they were written."""

    entry: ShardEntry
    data: bytes
    companions: Mapping[str, bytes]


def read_contents(output: Path) -> Contents:
    """Which shards are finished. Raises OutputDamaged."""
    contents = load_contents(output)
    if contents is None:
        raise OutputDamaged(f"{output} has neither {MANIFEST} nor {JOURNAL}: no output folder, or nothing was begun")
    return contents


def read_job(output: Path) -> dict[str, Any]:
    """job.json: what the shards were made of, by what. Raises OutputDamaged where it is not that of the shards."""
    path, job_sha256 = output / JOB, read_contents(output).job_sha256
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise OutputDamaged(f"{path} is missing") from error
    if not data.endswith(b"\n") or sha256(data[:-1]).hexdigest() != job_sha256:
        raise OutputDamaged(f"{path} has changed since it was written, or is of another job than the shards")
    job: dict[str, Any] = json.loads(data)
    return job


def checked_bytes(output: Path, entry: ShardEntry, companion: str = "") -> bytes:
    """A shard's file, or that of one of its companions. Raises OutputDamaged where it is missing or has changed,
    NotFound where the shards have no such companion."""
    if companion and companion not in entry.companions:
        raise NotFound("companion", companion, entry.companions)
    path = shard_path(output, entry.shard, companion)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise OutputDamaged(f"{path} is missing; {_REMEDY}") from error
    listed = entry.companions[companion].sha256 if companion else entry.sha256
    if sha256(data).hexdigest() != listed:
        raise OutputDamaged(f"{path} has changed since it was written; {_REMEDY}")
    return data


def checked_shards(output: Path, companions: Sequence[str] = ()) -> Iterator[CheckedShard]:
    """The finished shards in their order, one in memory at a time, with the `companions` that are named.

    Raises what `checked_bytes` raises, and OutputDamaged where nothing lists the shards.
    """
    entries = read_contents(output).shards
    for index in sorted(entries):
        entry = entries[index]
        beside = {name: checked_bytes(output, entry, name) for name in companions}
        yield CheckedShard(entry, checked_bytes(output, entry), beside)


def read_shards(output: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The tables of `checked_shards`, without companions."""
    for shard in checked_shards(output):
        yield decode_shard(shard.data, columns)
