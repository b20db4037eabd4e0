"""Reading files for the index; runs in worker processes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from zenray.context.index.entry import FileEntry, make_entry
from zenray.context.index.store import FileState
from zenray.context.index.walk import MAX_FILE_BYTES, FoundFile, defines_symbols
from zenray.context.languages.registry import language_of

_LOOKED_AT_FOR_ZEROS = 8192


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file read. `entry` is None where its bytes are those of `known_digest`, or where it is `skipped`: why."""

    state: FileState
    entry: FileEntry | None = None
    skipped: str = ""


def read_files(root: str, files: Sequence[tuple[FoundFile, bytes]]) -> list[ReadFile]:
    """Read files, each given with the digest of its bytes that is known already, or an empty one."""
    return [_read_file(root, found, known_digest) for found, known_digest in files]


def _read_file(root: str, found: FoundFile, known_digest: bytes) -> ReadFile:
    state = FileState(found.path, found.size, found.mtime_ns, b"")
    try:
        data = _bytes_of(os.path.join(root, found.path))
    except OSError:
        return ReadFile(state, skipped="unreadable")
    if len(data) > MAX_FILE_BYTES:
        return ReadFile(state, skipped="larger than 1 MB")
    state = FileState(found.path, len(data), found.mtime_ns, hashlib.blake2b(data, digest_size=16).digest())
    if state.digest == known_digest:
        return ReadFile(state)
    if b"\0" in data[:_LOOKED_AT_FOR_ZEROS]:
        return ReadFile(state, skipped="binary")
    text = data.decode("utf-8", "replace")
    language = language_of(found.path, text.partition("\n")[0])
    if not defines_symbols(language):
        return ReadFile(state, skipped="not code")
    try:
        return ReadFile(state, make_entry(text, language))
    except Exception as error:  # one odd file must not keep a whole tree from its index
        return ReadFile(state, skipped=f"failed ({type(error).__name__})")


def _bytes_of(path: str) -> bytes:
    """The bytes of a regular file, one more than allowed at most. Raises OSError for anything else: it may have
    become a link or a pipe since it was found."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("no regular file")
        return file.read(MAX_FILE_BYTES + 1)
