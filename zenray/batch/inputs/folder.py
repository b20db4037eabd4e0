"""Files of a local folder, as the privacy rules let them be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from zenray.batch.inputs.document import (
    MAX_FILE_BYTES,
    Documents,
    InputAccount,
    InputError,
    SourceDocument,
    is_wanted,
    text_of,
)
from zenray.batch.inputs.filesystem import local_path
from zenray.batch.inputs.licence import Licences
from zenray.batch.inputs.spec import InputSpec
from zenray.batch.output.layout import is_output
from zenray.context.privacy import IgnoreRules


def read_folder(spec: InputSpec, account: InputAccount) -> Documents:
    """Documents in the order of a walk by names. What .gitignore and .zenrayignore name stays out, and so do links
    and outputs of jobs."""
    root = Path(local_path(spec.location) or "")
    if not (root / spec.subdirectory).is_dir():
        raise InputError(
            f"input {spec.location!r} is no folder, archive, JSONL or Parquet file; "
            "of one source file name the folder: FOLDER#suffixes=NAME"
        )
    licences = Licences()
    for path in _walk(root, spec.subdirectory, licences, account):
        if not is_wanted(path, spec.suffixes, account):
            continue
        data = _read(root / path, account)
        text = None if data is None else text_of(data, account)
        if text is not None:
            yield SourceDocument(path, text, account.name, account.revision, licences.nearest(path))


def _walk(root: Path, subdirectory: str, licences: Licences, account: InputAccount) -> Iterator[str]:
    """Paths of the regular files, files of a folder before what lies below, so that licences are known in time."""
    rules = IgnoreRules(root).top
    for name in Path(subdirectory).parts:
        _take_licences(root / rules.path, rules.path, licences)
        rules = rules.below(name)
    folders = [rules]
    while folders:
        rules = folders.pop()
        below = []
        entries = _entries(root / rules.path, account)
        for entry in entries:
            licences.add(rules.path + entry.name)
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.is_symlink():
                account.skip("symbolic link")
            elif is_folder and is_output(root / rules.path / entry.name):
                continue
            elif rules.ignores(entry.name, is_directory=is_folder):
                account.skip("ignored folder" if is_folder else "ignored")
            elif is_folder:
                below.append(rules.below(entry.name))
            elif not _is_utf8(entry.name):
                account.skip("name is not UTF-8")
            else:
                yield rules.path + entry.name
        folders += reversed(below)


def _entries(folder: Path, account: InputAccount) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            return sorted(scan, key=lambda entry: os.fsencode(entry.name))
    except OSError:
        account.skip("unreadable folder")
        return []


def _take_licences(folder: Path, path: str, licences: Licences) -> None:
    for name in os.listdir(folder):
        licences.add(path + name)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(path: Path, account: InputAccount) -> bytes | None:
    """Not more than a file may hold. Never waits at a pipe and never follows a link put in the file's place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                account.skip("no regular file")
                return None
            return file.read(MAX_FILE_BYTES + 1)
    except OSError:
        account.skip("unreadable")
        return None
