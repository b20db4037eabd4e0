"""The one writer of a job's output. Each shard is written exactly once, however often the job is killed.

A shard is finished when the journal says so, and the journal says so last: encode, write aside, fsync, read back and
compare, rename, fsync the folder, the same for each of its companions, append to the journal. Killed between any two
of these, the next run finds either a finished shard or one that was never begun.

- A shard under its name that the journal does not list is not trusted but made again: it costs one shard at most, as
  there is one writer, and what it would save is the one case in which a file's content is nobody's word but its own.
- A listed shard that is missing or has other bytes is made again as well, and must come out with the listed SHA-256.
  A job is a function of its spec, so another result means that the promise is broken: that is an error.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from zenray.batch.job import JobSpec
from zenray.batch.output.disk import (
    LOCAL_DISK,
    Disk,
    aside,
    disk_errors,
    is_temporary,
    make_folders,
    publish,
    read_back,
    remove_temporaries,
    write_durably,
    write_new,
)
from zenray.batch.output.layout import (
    JOB,
    JOURNAL,
    LEASE,
    MANIFEST,
    RUNS,
    SHARDS,
    check_companion_name,
    shard_path,
)
from zenray.batch.output.lease import Lease
from zenray.batch.output.manifest import (
    Contents,
    Journal,
    ShardEntry,
    entry_of,
    load_contents,
    manifest_bytes,
)
from zenray.batch.output.plan import Schemas, ShardPlan, check_schemas
from zenray.batch.output.row_ids import RowIdCheck
from zenray.batch.output.shard import decode_shard, encode_shard, own_schema, row_ids_of, shard_schema
from zenray.batch.output.spec import job_bytes, spec_differences
from zenray.batch.rows import ROW_ID
from zenray.errors import OutputDamaged, OutputNotWritten, OutputOfAnotherJob

log = logging.getLogger(__name__)


class OutputStore:
    """An output folder and the lease on it: a context manager, made by `open`. For one thread."""

    def __init__(
        self,
        path: Path,
        spec: JobSpec,
        num_shards: int,
        row_ids: Sequence[str] | None,
        companions: Sequence[str],
        lease: Lease,
        disk: Disk,
    ) -> None:
        self._path, self._spec, self._lease, self._disk = path, spec, lease, disk
        self._plan = ShardPlan(num_shards, spec.rows_per_shard, row_ids)
        self._companions = tuple(sorted(companions))
        remove_temporaries(path, disk, besides=path / RUNS)
        self._contents = contents = self._begin(Contents(spec.digest, num_shards, {}, False, self._companions))
        self._shards = dict(contents.shards)
        self._lost = {index: reason for index, entry in self._shards.items() if (reason := self._differs(entry))}
        for index, reason in self._lost.items():
            log.warning("%s: %s; it is made again", shard_path(path, index), reason)
        self._schemas: Schemas = {}
        self._journal: Journal | None = None
        if not contents.complete:
            self._journal = Journal(path, self._listed(), disk)

    @classmethod
    def open(
        cls,
        path: Path,
        spec: JobSpec,
        num_shards: int,
        row_ids: Sequence[str] | None = None,
        companions: Sequence[str] = (),
        disk: Disk = LOCAL_DISK,
    ) -> OutputStore:
        """Begin an output or go on with it.

        With the planned `row_ids`, a shard of other rows is refused when it is written; without, all of them are
        compared in the end alone. `companions` are the names of the further tables that every shard has.

        Raises OutputBusy when another driver has it, OutputOfAnotherJob when it was begun with another spec,
        OutputDamaged when it is no output or cannot be trusted, OutputNotWritten when the disk refuses.
        """
        for name in companions:
            check_companion_name(name)
        with disk_errors(path):
            refuse_foreign_folder(path)
            make_folders(path / RUNS, disk)
            lease = Lease.take(path / LEASE, spec.digest)
        try:
            with disk_errors(path):
                return cls(path, spec, num_shards, row_ids, companions, lease, disk)
        except BaseException:
            lease.release()
            raise

    def __enter__(self) -> OutputStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lease back. What is finished stays finished."""
        self._lease.release()

    @property
    def finished(self) -> set[int]:
        """Indices of the shards that need no work any more; each was compared with its SHA-256 by this driver."""
        return set(self._shards) - set(self._lost)

    @property
    def lost(self) -> Mapping[int, str]:
        """Shards that were finished once and are gone or changed, with what is wrong. They are to be made again."""
        return dict(self._lost)

    def write(
        self, shard_index: int, table: pa.Table, num_tokens: int, companions: Mapping[str, pa.Table] | None = None
    ) -> None:
        """Make a shard finished, its companions (by name) with it. On return all are on the disk, verified and listed;
        on an error nothing of them counts.

        Raises OutputDamaged when the tables are not what the job planned, OutputNotWritten, OutputBusy.
        """
        assert shard_index not in self.finished and 0 <= shard_index < self._contents.num_shards
        tables = {"": table, **(companions or {})}
        assert tables.keys() == {"", *self._companions}
        path = shard_path(self._path, shard_index)
        with disk_errors(path):
            self._check_plan(shard_index, tables)
        files = {
            name: encode_shard(each, self._spec.digest, shard_index, num_tokens, name) for name, each in tables.items()
        }
        num_rows = {name: each.num_rows for name, each in tables.items()}
        entry = entry_of(shard_index, files, num_rows, num_tokens)
        listed = self._shards.get(shard_index)
        if listed is not None and listed != entry:
            raise OutputDamaged(
                f"{path} was lost and has come out differently: {_digests(entry)}, listed {_digests(listed)}. "
                "The job is not a function of its spec here (other software or hardware?): begin a new output folder"
            )
        for name, data in files.items():
            self._write_file(shard_path(self._path, shard_index, name), data, tables[name])
        if listed is None:
            with disk_errors(path):
                self._append(entry)
        self._lost.pop(shard_index, None)

    def complete(self) -> None:
        """The manifest takes the journal's place. All shards must be finished.

        Raises OutputDamaged when the rows are not, in order and each once, the planned ones; OutputNotWritten.
        """
        assert self.finished == set(range(self._contents.num_shards))
        if self._journal is None:
            return
        with disk_errors(self._path / MANIFEST):
            self._check_rows()
            self._lease.check()
            write_durably(self._path / MANIFEST, manifest_bytes(self._listed()), self._disk)
            with suppress(FileNotFoundError):  # Gone already, where only the folder's fsync failed.
                self._disk.remove(self._path / JOURNAL)
            self._disk.fsync_folder(self._path)
        self._journal = None

    def _begin(self, nothing: Contents) -> Contents:
        """job.json, places for shards and their companions, and a journal of `nothing` finished, or what is there
        already and is ours."""
        try:
            begun = self._disk.read(self._path / JOB)
        except FileNotFoundError:
            write_durably(self._path / JOB, job_bytes(self._spec), self._disk)
            begun = job_bytes(self._spec)
        if begun != job_bytes(self._spec):
            raise OutputOfAnotherJob(str(self._path), spec_differences(begun, self._spec))
        contents = load_contents(self._path)
        if contents is not None:
            self._refuse_other(contents, nothing)
        folders = [self._path / name for name in (SHARDS, *self._companions)]
        for folder in folders:
            make_folders(folder, self._disk)
        if contents is not None:
            return contents
        if any(any(folder.iterdir()) for folder in folders):
            raise OutputDamaged(
                f"{self._path} has shards but neither {MANIFEST} nor {JOURNAL}, so which of them are finished is not "
                "known: put it back, or begin a new output folder"
            )
        Journal(self._path, nothing, self._disk)
        return nothing

    def _refuse_other(self, found: Contents, expected: Contents) -> None:
        if found.job_sha256 != expected.job_sha256 or found.num_shards != expected.num_shards:
            raise OutputDamaged(
                f"{self._path}: its list of shards is of job {found.job_sha256[:12]} with {found.num_shards} shards, "
                f"not of {expected.job_sha256[:12]} with {expected.num_shards}"
            )
        if found.companions != expected.companions:
            raise OutputDamaged(
                f"{self._path}: its shards have the companions {', '.join(found.companions) or 'none'}, the job's "
                f"{', '.join(expected.companions) or 'none'}"
            )

    def _listed(self) -> Contents:
        return replace(self._contents, shards=self._shards)

    def _write_file(self, path: Path, data: bytes, table: pa.Table) -> None:
        with aside(path, self._disk) as temporary:
            write_new(temporary, data, self._disk)
            self._verify(temporary, sha256(data).hexdigest(), row_ids_of(table), own_schema(table.schema))
            self._lease.check()
            publish(temporary, path, self._disk)

    def _append(self, entry: ShardEntry) -> None:
        assert self._journal is not None
        self._shards[entry.shard] = entry
        try:
            self._journal.append(entry, self._listed())
        except BaseException:
            del self._shards[entry.shard]
            raise

    def _differs(self, entry: ShardEntry) -> str | None:
        """What is wrong with a shard, or else with a companion of it."""
        for name, digest in [("", entry.sha256), *((name, each.sha256) for name, each in entry.companions.items())]:
            path = shard_path(self._path, entry.shard, name)
            what = f"companion {name} " if name else ""
            try:
                data = self._disk.read(path)
            except FileNotFoundError:
                return f"{what}missing"
            except OSError as error:
                if error.errno != errno.EIO:  # Whatever may pass by itself must not cost shards.
                    raise
                return f"{what}unreadable"
            if sha256(data).hexdigest() != digest:
                return f"{what}has changed"
        return None

    def _check_plan(self, index: int, tables: Mapping[str, pa.Table]) -> None:
        self._plan.check(index, tables)
        if not self._schemas and self.finished:
            first = min(self.finished)
            files = {name: self._disk.read(shard_path(self._path, first, name)) for name in tables}
            self._schemas = {name: shard_schema(data) for name, data in files.items()}
        self._schemas = check_schemas(index, tables, self._schemas)

    def _check_rows(self) -> None:
        """All rows are the planned ones, in order and each once."""
        check = RowIdCheck()
        for index in range(self._contents.num_shards):
            check.add(row_ids_of(decode_shard(self._disk.read(shard_path(self._path, index)), columns=[ROW_ID])))
        if check.repeated():
            raise OutputDamaged(f"{self._path}: rows {check.repeated()[0]} (from 0) are one row twice")
        if self._spec.row_ids_sha256 not in ("", check.hexdigest):
            raise OutputDamaged(f"{self._path}: its rows are not the planned ones in the planned order")

    def _verify(self, path: Path, digest: str, row_ids: list[str], schema: pa.Schema) -> None:
        """What is on the disk is the shard. A full disk need not have failed any call until here."""
        data = read_back(path, self._disk)
        if sha256(data).hexdigest() != digest:
            raise OutputNotWritten(f"{path} reads back differently from what was written; see to the disk")
        table = decode_shard(data)
        if row_ids_of(table) != row_ids or not own_schema(table.schema).equals(schema, check_metadata=True):
            raise OutputNotWritten(f"{path} reads back with other rows or columns than were written")


def _digests(entry: ShardEntry) -> str:
    digests = [entry.sha256, *(each.sha256 for each in entry.companions.values())]
    return "SHA-256 " + ", ".join(each[:12] for each in digests)


def refuse_foreign_folder(path: Path) -> None:
    """A folder that has things in it but no job is somebody's, not an output that was begun. Raises OutputDamaged."""
    if (path / JOB).exists() or not path.exists():
        return
    foreign = sorted(each.name for each in path.iterdir() if each.name != RUNS and not is_temporary(each.name))
    if foreign:
        raise OutputDamaged(f"{path} has no {JOB} but {', '.join(foreign[:5])}: no output folder; choose another")
