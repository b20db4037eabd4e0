"""What a model file's bytes are: size, SHA-256, and whether the extents it declares are present.

A folder's hash is the SHA-256 of its manifest: one line `sha256  size  name` per file, sorted by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from zenray.config import home
from zenray.errors import ModelFileError

_CHUNK_BYTES = 4 * 1024 * 1024
_MAX_SAFETENSORS_HEADER_BYTES = 100 * 1024 * 1024
HashProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Digest:
    """Of a file, or of a folder's manifest."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Record:
    """A hash remembered for one state of one file."""

    path: str
    size_bytes: int
    mtime_ns: int
    inode: int
    sha256: str


def files_of(path: Path) -> list[Path]:
    """The file itself, or the regular, unhidden files of a folder, sorted by name."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))


def size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in files_of(path))


def digest(path: Path, progress: HashProgress | None = None, *, fresh: bool = False) -> Digest:
    """Hash a file or folder; `fresh` ignores what is remembered. `progress` gets (done, total) bytes."""
    files = files_of(path)
    total = sum(file.stat().st_size for file in files)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    hashes = {file: _file_sha256(file, advance, fresh=fresh) for file in files}
    if path.is_file():
        return Digest(total, hashes[path])
    lines = [f"{hashes[file]}  {file.stat().st_size}  {file.name}\n" for file in files]
    return Digest(total, hashlib.sha256("".join(lines).encode()).hexdigest())


def source_digest(path: Path, progress: Callable[[int, int, str], None] | None = None) -> str:
    """The SHA-256 that names what was made of `path`; `progress` gets (done, total, what is being done)."""
    if progress is None:
        return digest(path).sha256
    return digest(path, lambda done, total: progress(done, total, "hashing")).sha256


def carry_over(source: Path, target: Path, sha256: str) -> None:
    """After `source`, whose hash was just computed, was renamed to `target`: remember it there."""
    _record_path(source).unlink(missing_ok=True)
    stat = target.stat()
    _remember(_Record(str(target.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino, sha256))


def remembered(path: Path) -> str | None:
    """The hash of a file or folder in its present state, when it is known without reading it."""
    if any(_recall(file) is None for file in files_of(path)):
        return None
    return digest(path).sha256


def check_layout(path: Path) -> None:
    """Refuse a file that is no model or ends before the tensors its header declares.

    Raises ModelFileError naming the file, its size and the size its header asks for.
    """
    if path.is_dir():
        shards = sorted(path.glob("*.safetensors"))
        if not shards or not (path / "config.json").is_file():
            raise ModelFileError(f"{path}: not a model folder; it needs config.json and *.safetensors files")
        _check_index(path)
        for shard in shards:
            _check_safetensors(shard)
    elif path.suffix == ".safetensors":
        raise ModelFileError(f"{path}: name the folder that holds it together with config.json")
    else:
        from zenray.model.gguf_header import read_header

        header = read_header(path)
        size = path.stat().st_size
        if size < header.file_bytes:
            raise ModelFileError(f"{path}: truncated: {size:,} bytes, its header declares {header.file_bytes:,}")


def _check_index(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{index}: not a safetensors index: {error}") from error
    missing = sorted(name for name in named if not (folder / name).is_file())
    if missing:
        raise ModelFileError(f"{folder}: shards of the index are missing: {', '.join(missing)}")


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            if header_bytes > min(_MAX_SAFETENSORS_HEADER_BYTES, size):
                raise ValueError(f"a header of {header_bytes:,} bytes cannot be")
            header = json.loads(file.read(header_bytes))
        end = max((info["data_offsets"][1] for name, info in header.items() if name != "__metadata__"), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path}: not a safetensors file, or truncated in its header: {error}") from error
    expected = 8 + header_bytes + end
    if size != expected:
        raise ModelFileError(f"{path}: truncated or damaged: {size:,} bytes, its header declares {expected:,}")


def _file_sha256(path: Path, advance: Callable[[int], None], *, fresh: bool) -> str:
    known = None if fresh else _recall(path)
    if known is not None:
        advance(known.size_bytes)
        return known.sha256
    before = path.stat()
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
            advance(len(chunk))
    sha256 = hasher.hexdigest()
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
        _remember(_Record(str(path.resolve()), after.st_size, after.st_mtime_ns, after.st_ino, sha256))
    return sha256


def _record_path(path: Path) -> Path:
    return home() / "verified" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"


def _recall(path: Path) -> _Record | None:
    try:
        record = _Record(**json.loads(_record_path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    stat = path.stat()
    same = (record.path, record.size_bytes, record.mtime_ns, record.inode) == (
        str(path.resolve()),
        stat.st_size,
        stat.st_mtime_ns,
        stat.st_ino,
    )
    return record if same else None


def _remember(record: _Record) -> None:
    """Best effort: a read-only home only costs the next start a second hash."""
    target = _record_path(Path(record.path))
    aside = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(asdict(record)), encoding="utf-8")
        aside.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
