"""Bytes that are on the disk, or not there at all. The one place that changes an output folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zenray.errors import OutputNotWritten

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """The steps that writing is made of, one system call each: where a test pulls the plug."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def open_to_append(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def fsync_folder(self, path: Path) -> None:
        """A new name in a folder outlives a power cut only after this."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


LOCAL_DISK = Disk()


def write_durably(path: Path, data: bytes, disk: Disk = LOCAL_DISK) -> None:
    """The file with this content, or whatever stood there before: never half of it, whenever the power goes.

    Raises OutputNotWritten.
    """
    with aside(path, disk) as temporary:
        write_new(temporary, data, disk)
        publish(temporary, path, disk)


def write_new(path: Path, data: bytes, disk: Disk) -> None:
    """A new file, on the disk."""
    descriptor = disk.create(path)
    try:
        write_whole(descriptor, data, disk)
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)


def write_whole(descriptor: int, data: bytes, disk: Disk) -> None:
    """All of `data`: one write may take less, as when the disk fills up on the way."""
    rest = memoryview(data)
    while rest:
        rest = rest[disk.write(descriptor, rest) :]


def read_back(path: Path, disk: Disk) -> bytes:
    """What the disk holds of a file just synced, not what memory still has of it (where the system lets us choose)."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return disk.read(path)


def publish(temporary: Path, path: Path, disk: Disk) -> None:
    """Give a finished file its name."""
    disk.rename(temporary, path)
    disk.fsync_folder(path.parent)


def make_folders(path: Path, disk: Disk) -> None:
    """A folder and those above it, on the disk like what will be written into it."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            disk.make_folder(folder)
            disk.fsync_folder(folder.parent)


@contextmanager
def aside(path: Path, disk: Disk) -> Iterator[Path]:
    """A temporary name beside `path`; whatever has it when something fails is removed. Disk errors become typed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with disk_errors(path):
        try:
            yield temporary
        except BaseException:
            with suppress(OSError):
                disk.remove(temporary)
            raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """OSError as OutputNotWritten, with what to do."""
    try:
        yield
    except OSError as error:
        remedy = "free some space" if error.errno in _FULL else "see to the disk"
        raise OutputNotWritten(
            f"{path}: {error.strerror or error}; nothing finished is lost: {remedy}, then run the same command again"
        ) from error


def remove_temporaries(folder: Path, disk: Disk, besides: Path) -> None:
    """Take away what killed runs left half written anywhere in `folder` but under `besides`."""
    for path in sorted(folder.rglob(".*.tmp")):
        if is_temporary(path.name) and besides not in path.parents:
            disk.remove(path)


def is_temporary(name: str) -> bool:
    """Whether a file has the name of one that is being written."""
    return _TEMPORARY.fullmatch(name) is not None
