"""Which shards are finished. While a job runs a journal tells, one line a shard; in the end the manifest.

The journal's lines come in the order in which shards finished, so it can be no part of a finished output. The manifest
is sorted, depends on the shards alone and takes the journal's place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from zenray.batch.output.disk import Disk, write_durably, write_whole
from zenray.batch.output.layout import JOURNAL, MANIFEST, check_companion_name, shard_name
from zenray.batch.rows import canonical_json
from zenray.errors import OutputDamaged


@dataclass(frozen=True, slots=True)
class CompanionEntry:
    """A file beside a shard, of the same name in a folder of its own. It has some of the shard's rows, or all."""

    rows: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        _check_fields(self.sha256, self.rows, self.bytes)


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A finished shard with its companions by name."""

    shard: int
    file: str
    rows: int
    tokens: int
    bytes: int
    sha256: str
    companions: Mapping[str, CompanionEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_fields(self.sha256, self.shard, self.rows, self.tokens, self.bytes)
        if self.file != shard_name(self.shard):
            raise ValueError(f"has the file {self.file!r} for shard {self.shard}")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ShardEntry:
        """Raises ValueError, TypeError, AttributeError for what is no entry."""
        companions = {name: CompanionEntry(**each) for name, each in value.get("companions", {}).items()}
        return cls(**{**value, "companions": companions})

    def to_json(self) -> dict[str, Any]:
        """Without companions where there are none: as it was before anything had some."""
        value = asdict(self)
        return value if self.companions else {name: each for name, each in value.items() if name != "companions"}


def _check_fields(sha256: object, *numbers: object) -> None:
    if not all(type(each) is int and each >= 0 for each in numbers) or not isinstance(sha256, str):
        raise ValueError("has numbers that are none")


def entry_of(index: int, files: Mapping[str, bytes], num_rows: Mapping[str, int], num_tokens: int) -> ShardEntry:
    """Of a shard's file under no name and its companions' by theirs, and their rows."""
    facts = {name: (num_rows[name], len(data), sha256(data).hexdigest()) for name, data in files.items()}
    rows, num_bytes, digest = facts.pop("")
    companions = {name: CompanionEntry(*its) for name, its in facts.items()}
    return ShardEntry(index, shard_name(index), rows, num_tokens, num_bytes, digest, companions)


@dataclass(frozen=True, slots=True)
class Contents:
    """The finished shards of an output by index, and whether that is all there will be. `companions` are the names of
    those that every shard has."""

    job_sha256: str
    num_shards: int
    shards: Mapping[int, ShardEntry]
    complete: bool
    companions: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.shards.values())

    @property
    def tokens(self) -> int:
        return sum(each.tokens for each in self.shards.values())

    @property
    def bytes(self) -> int:
        """Of all files, companions included."""
        entries = self.shards.values()
        return sum(each.bytes + sum(its.bytes for its in each.companions.values()) for each in entries)

    def head(self) -> dict[str, Any]:
        """What a list of shards begins with."""
        head: dict[str, Any] = {"job_sha256": self.job_sha256, "num_shards": self.num_shards}
        return {**head, "companions": list(self.companions)} if self.companions else head


def manifest_bytes(contents: Contents) -> bytes:
    """The one spelling of the manifest of complete contents."""
    value = {
        **contents.head(),
        "rows": contents.rows,
        "tokens": contents.tokens,
        "shards": [contents.shards[index].to_json() for index in sorted(contents.shards)],
    }
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def load_contents(output: Path) -> Contents | None:
    """What the journal says, else the manifest, else None: nothing was begun. Raises OutputDamaged.

    While there is a journal the output is not complete, even if a manifest stands beside it already. That order also
    lets anyone read without the lease: the manifest is there before the journal goes.
    """
    for name, parse in ((JOURNAL, _parse_journal), (MANIFEST, _parse_manifest)):
        try:
            data = (output / name).read_bytes()
        except FileNotFoundError:
            continue
        try:
            return parse(data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"{output / name} is damaged ({error}); put it back, or begin a new output folder"
            raise OutputDamaged(message) from error
    return None


class Journal:
    """Appends entries durably. Whatever an earlier run or a failed append left behind is written anew first."""

    def __init__(self, output: Path, contents: Contents, disk: Disk) -> None:
        self._path, self._disk = output / JOURNAL, disk
        self._doubtful = True
        self._rewrite(contents)

    def append(self, entry: ShardEntry, contents: Contents) -> None:
        """`contents` has the entry already. Raises OSError; the shard is then not in the journal for anybody here."""
        if self._doubtful:
            self._rewrite(contents)
            return
        self._doubtful = True
        descriptor = self._disk.open_to_append(self._path)
        try:
            write_whole(descriptor, _line(entry.to_json()), self._disk)
            self._disk.fsync(descriptor)
        finally:
            self._disk.close(descriptor)
        self._doubtful = False

    def _rewrite(self, contents: Contents) -> None:
        """A torn end goes, and what only memory may hold since an fsync failed is on the disk again."""
        lines = [_line(contents.head()), *(_line(each.to_json()) for each in contents.shards.values())]
        write_durably(self._path, b"".join(lines), self._disk)
        self._doubtful = False


def _line(value: Mapping[str, Any]) -> bytes:
    return canonical_json(value).encode() + b"\n"


def _parse_journal(data: bytes) -> Contents:
    """Without a torn last line: its shard was not finished. A line that is no entry anywhere else is an error."""
    first, *lines = data.split(b"\n")
    head = json.loads(first)  # Whole from the start: the file was renamed into place.
    if lines:
        lines.pop()  # Empty, or torn.
    return _contents(head, map(json.loads, lines), complete=False)


def _parse_manifest(data: bytes) -> Contents:
    value = json.loads(data)
    contents = _contents(value, value["shards"], complete=True)
    if manifest_bytes(contents) != data:
        raise ValueError("is not spelled as zenray spells it; its totals or its order may be wrong")
    if missing := contents.num_shards - len(contents.shards):
        raise ValueError(f"lists {len(contents.shards)} shards, {missing} fewer than planned")
    return contents


def _contents(head: Mapping[str, Any], entries: Iterable[Mapping[str, Any]], complete: bool) -> Contents:
    job_sha256, num_shards = head["job_sha256"], head["num_shards"]
    companions = tuple(head.get("companions", ()))
    if not isinstance(job_sha256, str) or type(num_shards) is not int or num_shards < 0:
        raise ValueError("does not say of which job it is, or of how many shards")
    for name in companions:
        check_companion_name(name)
    shards: dict[int, ShardEntry] = {}
    for fields in entries:
        entry = ShardEntry.from_json(fields)
        if sorted(entry.companions) != sorted(companions):
            raise ValueError(f"lists shard {entry.shard} with other companions than {list(companions)}")
        if entry.shard >= num_shards:
            raise ValueError(f"lists shard {entry.shard} of {num_shards}")
        if shards.setdefault(entry.shard, entry) != entry:
            raise ValueError(f"lists shard {entry.shard} twice with different content")
    return Contents(job_sha256, num_shards, shards, complete, companions)
