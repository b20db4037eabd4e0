"""A git repository at a revision, straight from its objects: no working tree is made or touched, no hook runs.

A local repository is read where it is. One at a URL that the user named is fetched by git into a bare repository of
the cache, the one commit if the server gives it. Git's own settings of the user hold (credentials, proxies).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from zenray.batch.inputs.document import (
    MAX_FILE_BYTES,
    Documents,
    InputAccount,
    InputError,
    SourceDocument,
    is_below,
    is_wanted,
    text_of,
)
from zenray.batch.inputs.filesystem import local_path
from zenray.batch.inputs.licence import Licences
from zenray.batch.inputs.spec import InputSpec
from zenray.config import home

_FETCH_TIMEOUT_S = 1800
_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false")
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "LC_ALL": "C",
}
_CREDENTIALS = ("GIT_ASKPASS", "GIT_SSH", "GIT_SSH_COMMAND")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REVISION = re.compile(r"(?!-)[^\s:*?\[\\]+")
_REGULAR_FILES = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class _Blob:
    path: str
    object_id: str


def read_git(spec: InputSpec, account: InputAccount) -> Documents:
    """Documents in the order of their paths; the revision is the commit's id. Raises InputError."""
    if not _REVISION.fullmatch(spec.revision) or spec.location.startswith("-"):
        raise InputError(f"input {spec.location!r}@{spec.revision!r} is no repository at a branch, tag or commit")
    path = local_path(spec.location)
    folder = Path(path) if path is not None else _fetched(spec.location, spec.revision)
    account.revision = _commit_of(folder, spec.revision, spec.location)
    licences = Licences()
    blobs = _blobs(folder, account.revision, spec, licences, account)
    with _contents(folder) as content_of:
        for blob in blobs:
            text = text_of(content_of(blob.object_id), account)
            if text is not None:
                yield SourceDocument(blob.path, text, account.name, account.revision, licences.nearest(blob.path))


def _blobs(folder: Path, commit: str, spec: InputSpec, licences: Licences, account: InputAccount) -> list[_Blob]:
    """The files of a commit that are worth reading; the licences learn of all."""
    listing = _git(folder, "ls-tree", "-r", "-z", "-l", "--full-tree", commit)
    blobs = []
    for entry in listing.split(b"\0")[:-1]:
        head, _, name = entry.partition(b"\t")
        mode, _, object_id, size = head.decode().split()
        try:
            path = name.decode()
        except UnicodeDecodeError:
            account.skip("name is not UTF-8")
            continue
        licences.add(path)
        if not is_below(path, spec.subdirectory):
            continue
        if mode not in _REGULAR_FILES:
            account.skip("submodule" if mode == "160000" else "symbolic link")
        elif is_wanted(path, spec.suffixes, account):
            if int(size) > MAX_FILE_BYTES:
                account.skip("larger than 1 MB")
            else:
                blobs.append(_Blob(path, object_id))
    return sorted(blobs, key=lambda blob: blob.path)


@contextmanager
def _contents(folder: Path) -> Iterator[_Contents]:
    process = subprocess.Popen(
        _command(folder, "cat-file", "--batch"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    )
    assert process.stdin is not None and process.stdout is not None
    with process:
        try:
            yield _Contents(process.stdin, process.stdout)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class _Contents:
    """One `git cat-file --batch`, asked for an object at a time."""

    questions: IO[bytes]
    answers: IO[bytes]

    def __call__(self, object_id: str) -> bytes:
        self.questions.write(object_id.encode() + b"\n")
        self.questions.flush()
        head = self.answers.readline().split()
        if len(head) != 3:
            raise InputError(f"git object {object_id} is missing or damaged")
        data = self.answers.read(int(head[2]) + 1)
        return data[:-1]


def _commit_of(folder: Path, revision: str, location: str) -> str:
    for name in (f"refs/zenray/heads/{revision}", revision):
        found = _try_git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if found is not None and _COMMIT.fullmatch(found.decode().strip()):
            return found.decode().strip()
    _git(folder, "rev-parse", "--git-dir")  # Says what is wrong with the repository, if it is that.
    raise InputError(f"input {location!r} has no revision {revision!r}")


def _fetched(url: str, revision: str) -> Path:
    """The cache's bare repository of a URL, with `revision` in it."""
    folder = home() / "git" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.git"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "HEAD").exists():
            _git(folder.parent, "init", "--quiet", "--bare", str(folder))
        if _COMMIT.fullmatch(revision) and _try_git(folder, "cat-file", "-e", f"{revision}^{{commit}}") is not None:
            return folder
        fetch = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--force")
        # The one commit, under a name of its own; else everything, for an abbreviated commit or an old server.
        one = f"+{revision}:refs/zenray/heads/{revision}"
        if _try_git(folder, *fetch, "--depth=1", "--", url, one) is None:
            whole = ("--unshallow",) if (folder / "shallow").exists() else ()
            _git(folder, *fetch, *whole, "--", url, "+refs/heads/*:refs/zenray/heads/*", "+refs/tags/*:refs/tags/*")
    return folder


def _git(folder: Path, *arguments: str) -> bytes:
    """What git prints. Raises InputError with what it says is wrong."""
    try:
        done = subprocess.run(
            _command(folder, *arguments), capture_output=True, timeout=_FETCH_TIMEOUT_S, env=_environment()
        )
    except FileNotFoundError:
        raise InputError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"git {arguments[0]} took longer than {_FETCH_TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise InputError(f"git {arguments[0]} failed: {said or done.returncode}")
    return done.stdout


def _try_git(folder: Path, *arguments: str) -> bytes | None:
    try:
        return _git(folder, *arguments)
    except InputError:
        return None


def _command(folder: Path, *arguments: str) -> list[str]:
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    return ["git", "-C", str(folder), *settings, *arguments]


def _environment() -> dict[str, str]:
    """The user's, without what would point git at another repository."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _CREDENTIALS}
    return {**own, **_ENVIRONMENT}
