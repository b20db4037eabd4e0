"""Archives as folders: tar in its compressions, zip and wheels. They may come from anybody.

Names are never used as paths of this machine: the texts wait in one temporary file until all names are known, because
documents come sorted and a licence may stand behind what it speaks for. Everything unpacked is counted against a limit,
skipped or not, so that a bomb ends the input and not the machine.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from hashlib import sha256
from typing import IO, Any

from zenray.batch.inputs.document import (
    MAX_FILE_BYTES,
    Documents,
    InputAccount,
    InputError,
    SourceDocument,
    is_below,
    is_wanted,
    safe_path,
    text_of,
)
from zenray.batch.inputs.filesystem import filesystem_of, reading
from zenray.batch.inputs.licence import Licences, is_licence_file
from zenray.batch.inputs.spec import InputSpec

MAX_UNPACKED_BYTES = 4 << 30
MAX_MEMBERS = 500_000
_MAX_READ_BYTES = 64 << 20
"""What tarfile may ask for at once: a header that claims more is a trap."""
_CHUNK_BYTES = 1 << 20

Member = tuple[str, bytes]


def read_archive(spec: InputSpec, account: InputAccount) -> Documents:
    """Documents in the order of their paths; the revision is the archive's SHA-256. A single top folder is left out of
    paths, as sdists have it. Raises InputError for what is damaged or too large unpacked."""
    filesystem, path = filesystem_of(spec.location)
    with tempfile.TemporaryFile() as texts:
        with reading(spec.location), filesystem.open_input_file(path) as file:
            account.revision = f"sha256:{_digest(file)}"
            places: dict[str, tuple[int, int]] = {}
            try:
                for name, data in _members(file, spec, account):
                    places[name] = (texts.tell(), texts.write(data))  # Of two with one name the last, as tar has it.
            except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError) as error:
                raise InputError(f"input {spec.location!r} is damaged: {error}") from error
        top = _single_top(places)
        licences = Licences(name.removeprefix(top) for name in places)
        for name in sorted(places):
            path = name.removeprefix(top)
            if not is_below(path, spec.subdirectory) or not is_wanted(path, spec.suffixes, account):
                continue
            offset, size = places[name]
            texts.seek(offset)
            text = text_of(texts.read(size), account)
            if text is not None:
                yield SourceDocument(path, text, account.name, account.revision, licences.nearest(path))


def _digest(file: Any) -> str:
    state = sha256()
    while chunk := file.read(_CHUNK_BYTES):
        state.update(chunk)
    file.seek(0)
    return state.hexdigest()


def _members(file: Any, spec: InputSpec, account: InputAccount) -> Iterator[Member]:
    """Regular files by safe names. Those that nobody wants come empty: their names may tell where the top is."""
    head = file.read(6)
    file.seek(0)
    members = _in_zip(file, spec, account) if head[:2] == b"PK" else _in_tar(_decompressed(file, head), spec, account)
    for number, (name, data) in enumerate(members):
        if number >= MAX_MEMBERS:
            raise InputError(f"input {spec.location!r} holds more than {MAX_MEMBERS} files")
        safe = safe_path(name)
        if safe is None:
            account.skip("unsafe path")
        else:
            yield safe, data


def _decompressed(file: Any, head: bytes) -> IO[bytes]:
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(file)
    return file  # type: ignore[no-any-return]


def _in_tar(file: IO[bytes], spec: InputSpec, account: InputAccount) -> Iterator[Member]:
    metered: Any = _Metered(file, spec.location)
    with tarfile.open(fileobj=metered, mode="r:") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # It would keep every header.
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                account.skip("link or special file")
            elif not _wants(member.name, spec):
                yield member.name, b""
            else:
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read(MAX_FILE_BYTES + 1)


def _in_zip(file: Any, spec: InputSpec, account: InputAccount) -> Iterator[Member]:
    unpacked = 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                account.skip("link or special file")
            elif info.flag_bits & 1:
                account.skip("encrypted")
            elif not _wants(info.filename, spec):
                yield info.filename, b""
            else:
                with archive.open(info) as content:
                    data = content.read(MAX_FILE_BYTES + 1)
                unpacked += len(data)
                if unpacked > MAX_UNPACKED_BYTES:
                    raise _too_large(spec.location)
                yield info.filename, data


def _wants(name: str, spec: InputSpec) -> bool:
    return not spec.suffixes or name.endswith(spec.suffixes) or is_licence_file(name.rpartition("/")[2])


class _Metered:
    """A tar's bytes, up to the limit."""

    def __init__(self, file: IO[bytes], location: str) -> None:
        self._file, self._location = file, location

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ_BYTES:
            raise InputError(f"input {self._location!r} has a header of {size} bytes")
        data = self._file.read(size)
        self._check(self._file.tell())
        return data

    def seek(self, position: int) -> int:
        self._check(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, position: int) -> None:
        if position > MAX_UNPACKED_BYTES:
            raise _too_large(self._location)


def _too_large(location: str) -> InputError:
    return InputError(f"input {location!r} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")


def _single_top(names: dict[str, Any]) -> str:
    """`name-1.0/` where everything lies in it; empty where that is a package of its own."""
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or any("/" not in name for name in names):
        return ""
    top = tops.pop()
    return "" if f"{top}/__init__.py" in names else f"{top}/"
