"""What a job reads: one input, as a user names it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from zenray.errors import ConfigError


class InputKind(Enum):
    """How the bytes at a location become documents."""

    FOLDER = "folder"
    GIT = "git"
    ARCHIVE = "archive"  # .tar, .tar.gz, .zip, .whl and the like: a folder in one file.
    JSONL = "jsonl"
    PARQUET = "parquet"


ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip", ".whl")
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PARQUET = (".parquet",)


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns, tried in order; of the text there must be one."""

    text: tuple[str, ...] = ("text", "content", "code")
    path: tuple[str, ...] = ("path", "file_path", "max_stars_repo_path")
    repository: tuple[str, ...] = ("repository", "repo_name", "repo", "max_stars_repo_name")
    revision: tuple[str, ...] = ("revision", "commit", "revision_id", "max_stars_repo_head_hexsha")


_COLUMN_NAMES = tuple(each.name for each in fields(Columns))


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input. `location` is a path or a URL that pyarrow or fsspec can open; of a git repository one that git can.

    `name` stands for the input in provenance, in place of paths of this machine. `subdirectory` is read alone, and
    paths stay relative to the root. `suffixes` (such as ".py") are those of the paths to read; empty reads all text.
    """

    kind: InputKind
    location: str
    revision: str = ""
    subdirectory: str = ""
    name: str = ""
    suffixes: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        if not self.location or "\0" in self.location:
            raise ConfigError(f"input location is {self.location!r}; allowed: a path or URL")
        if self.revision and self.kind is not InputKind.GIT:
            raise ConfigError(f"input {self.location!r} has revision {self.revision!r}; only git+… inputs have one")
        if PurePosixPath(self.subdirectory).is_absolute() or ".." in PurePosixPath(self.subdirectory).parts:
            raise ConfigError(f"subdirectory is {self.subdirectory!r}; allowed: a relative path without ..")

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """An input as a command line names it: `[KIND+]LOCATION[@REVISION][#OPTION=VALUE&…]`.

        As pip has it: `git+https://host/repo.git@v1.2#subdirectory=lib`, `git+./checkout@HEAD`. KIND may be left out
        where the ending of LOCATION tells it; anything else is a folder. Options: name, subdirectory, suffixes
        (with commas), text, path, repository, revision (columns of a table). Raises ConfigError.
        """
        body, _, options = text.partition("#")
        prefix, plus, rest = body.partition("+")
        if plus and prefix in {kind.value for kind in InputKind}:
            kind, location = InputKind(prefix), rest
        elif plus and "://" in rest and "/" not in prefix:
            raise ConfigError(f"input {text!r} is of kind {prefix!r}; allowed: {', '.join(k.value for k in InputKind)}")
        else:
            kind, location = _kind_of(body), body
        revision = ""
        if kind is InputKind.GIT:
            location, revision = _split_revision(location)
        return _with_options(cls(kind, location, revision), options)

    @property
    def display_name(self) -> str:
        """`name`, or what it is taken for: a URL without credentials, the last part of a local path."""
        if self.name:
            return self.name
        if "://" in self.location and not self.location.startswith("file://"):
            parts = urlsplit(self.location)
            return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        name = PurePosixPath(os.path.abspath(self.location)).name or "root"
        if self.kind is InputKind.ARCHIVE:
            return name.removesuffix(next((ending for ending in _longest_first(ARCHIVES) if name.endswith(ending)), ""))
        return name.removesuffix(".git")


def _kind_of(location: str) -> InputKind:
    lower = location.lower()
    if lower.endswith(ARCHIVES):
        return InputKind.ARCHIVE
    if lower.endswith(JSON_LINES):
        return InputKind.JSONL
    if lower.endswith(PARQUET):
        return InputKind.PARQUET
    return InputKind.FOLDER


def _split_revision(location: str) -> tuple[str, str]:
    """The revision behind the last @ of the path; one before a host's name belongs to the address."""
    start = location.find("://") + 3 if "://" in location else 0
    path_start = location.find("/", start)
    at = location.rfind("@")
    if at < 0 or ("://" in location and (path_start < 0 or at < path_start)):
        return location, "HEAD"
    return location[:at], location[at + 1 :] or "HEAD"


def _with_options(spec: InputSpec, options: str) -> InputSpec:
    for key, value in parse_qsl(options, keep_blank_values=True):
        if key == "name":
            spec = replace(spec, name=value)
        elif key == "subdirectory":
            spec = replace(spec, subdirectory=value)
        elif key == "suffixes":
            spec = replace(spec, suffixes=tuple(each for each in value.split(",") if each))
        elif key in _COLUMN_NAMES:
            spec = replace(spec, columns=replace(spec.columns, **{key: (value,)}))
        else:
            allowed = ", ".join(("name", "subdirectory", "suffixes", *_COLUMN_NAMES))
            raise ConfigError(f"input option is {key!r}; allowed: {allowed}")
    return spec


def _longest_first(endings: tuple[str, ...]) -> list[str]:
    return sorted(endings, key=len, reverse=True)
