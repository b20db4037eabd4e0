"""Where inputs lie: the local disk, or whatever pyarrow or fsspec can open by a URL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from zenray.batch.inputs.document import InputError
from zenray.batch.output.layout import DRIVER, LEASE


def local_path(location: str) -> str | None:
    """The path of a location on the local disk; None for a URL of anything else."""
    if "://" not in location:
        return location
    parts = urlsplit(location)
    return unquote(parts.path) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def filesystem_of(location: str) -> tuple[fs.FileSystem, str]:
    """What opens a location, and its path there: pyarrow's own filesystems first, then fsspec's. Raises InputError."""
    path = local_path(location)
    if path is not None:
        return fs.LocalFileSystem(), os.path.abspath(path)
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
        return filesystem, path
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        return _by_fsspec(location, error)
    except OSError as error:
        raise InputError(f"input {location!r} cannot be opened: {error}") from error


def _by_fsspec(location: str, refusal: Exception) -> tuple[fs.FileSystem, str]:
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(location)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"input {location!r} cannot be opened: pyarrow: {refusal}; fsspec: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def files_below(filesystem: fs.FileSystem, root: str) -> Iterator[str]:
    """Paths of the files below a folder, relative to it and sorted; the folder's name alone if it is a file. Outputs of
    jobs within it are none of it."""
    found = filesystem.get_file_info(root)
    if found.type == fs.FileType.File:
        yield ""
        return
    if found.type != fs.FileType.Directory:
        raise InputError(f"input {root!r} does not exist")
    prefix = root.rstrip("/") + "/"
    infos = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    names = sorted(info.path.removeprefix(prefix) for info in infos if info.type == fs.FileType.File)
    outputs = tuple(name.removesuffix(mark) for name in names for mark in (LEASE, DRIVER) if name.endswith(f"/{mark}"))
    yield from (name for name in names if not name.startswith(outputs))


def joined(root: str, path: str) -> str:
    """The path of a file that `files_below` gave."""
    return f"{root.rstrip('/')}/{path}" if path else root


@contextmanager
def reading(location: str) -> Iterator[None]:
    """Errors of files and their formats become an InputError that names the input."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"input {location!r} cannot be read: {error}") from error
