"""One driver per output folder.

Two things hold a lease. The kernel's lock (flock) ends with the process, so a killed driver's successor need not wait;
but it is a promise of one kernel only: Linux NFSv4 passes it on to the server, other shared file systems and mount
options grant it to everybody. So the holder also writes a beat into the lease file every few seconds. Who is given the
lock but reads of a holder that another kernel (or another mount) knows watches the file for a while: if it changes,
the holder lives. Nothing compares clocks.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenray.errors import OutputBusy, OutputNotWritten

BEAT_PERIOD_S = 5.0
SILENCE_S = 4 * BEAT_PERIOD_S
"""How long a holder under another kernel must be silent before it counts as dead."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes an output folder, or did last."""

    host: str
    pid: int
    started_at: str  # UTC, ISO 8601.
    job_sha256: str
    place: str  # The kernel and the mount whose lock it holds: between equals the lock alone decides.
    nonce: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, started {self.started_at}, job {self.job_sha256[:12]}"


class Lease:
    """Held from `take` to `release`, or to the end of the process.

    The file stays: removing it could take it from under the next holder.
    """

    def __init__(self, path: Path, descriptor: int, holder: Holder, beat_period_s: float) -> None:
        self._path, self._descriptor, self._holder = path, descriptor, holder
        self._beats = 0
        self._released = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._beat, args=(beat_period_s,), name="output-lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls,
        path: Path,
        job_sha256: str,
        beat_period_s: float = BEAT_PERIOD_S,
        silence_s: float = SILENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Lease:
        """Raises OutputBusy at once when the lock is held, within `silence_s` when only a beat tells."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            holder = Holder(
                host=socket.gethostname(),
                pid=os.getpid(),
                started_at=datetime.now(UTC).isoformat(timespec="seconds"),
                job_sha256=job_sha256,
                place=_place(descriptor),
                nonce=secrets.token_hex(8),
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(path, read_holder(path)) from None
            except OSError as error:
                raise OutputNotWritten(
                    f"{path}: the file system grants no lock ({error.strerror}), so two drivers could not be told "
                    "apart; choose an output folder on one that does"
                ) from error
            _refuse_living(path, holder, beat_period_s, silence_s, sleep)
            return cls(path, descriptor, holder, beat_period_s)
        except BaseException:
            os.close(descriptor)
            raise

    def check(self) -> None:
        """Raises OutputBusy if another driver has taken the folder, as when this process stood still for long."""
        found = read_holder(self._path)
        if found is None or found.nonce != self._holder.nonce:
            raise _busy(self._path, found)

    def release(self) -> None:
        """Give the folder back; the file then names nobody."""
        self._released.set()
        self._thread.join()
        try:
            self.check()
            os.ftruncate(self._descriptor, 0)
        except (OutputBusy, OSError):
            pass  # Another's by now, or left naming a holder whose lock is gone: both are understood by who comes next.
        finally:
            os.close(self._descriptor)

    def _beat(self, period_s: float) -> None:
        while not self._released.wait(period_s):
            try:
                self.check()
                self._write()
            except (OutputBusy, OSError):
                continue  # `check` will say so where it matters; a full disk may have room again.

    def _write(self) -> None:
        """In place: the lock is on this file and not on its name."""
        self._beats += 1
        beat = f"{self._beats:012d}"  # One length for all beats: whoever reads meanwhile sees either.
        data = (json.dumps({**asdict(self._holder), "beat": beat}, indent=1) + "\n").encode()
        os.pwrite(self._descriptor, data, 0)
        os.ftruncate(self._descriptor, len(data))
        os.fsync(self._descriptor)


def read_holder(path: Path) -> Holder | None:
    """Whom a lease file names; None when nobody, or when it is being written. It may have died since."""
    fields = _read(path)
    if not isinstance(fields, dict):
        return None
    fields.pop("beat", None)
    try:
        return Holder(**fields)
    except TypeError:
        return None


def _refuse_living(
    path: Path, own: Holder, beat_period_s: float, silence_s: float, sleep: Callable[[float], None]
) -> None:
    """Watch the file of a holder under another kernel, after the lock was granted."""
    seen = path.read_bytes()
    holder = read_holder(path)
    if not seen or (holder is not None and holder.place == own.place):
        return
    waited_s = 0.0
    while waited_s < silence_s:
        sleep(beat_period_s / 2)
        waited_s += beat_period_s / 2
        if path.read_bytes() != seen:
            raise _busy(path, read_holder(path))


def _busy(path: Path, holder: Holder | None) -> OutputBusy:
    who = f"{holder}" if holder else "a driver that has not said who it is yet"
    return OutputBusy(
        f"{path.parent.parent} is being written by {who}; wait for it, cancel it, or choose another output folder"
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _place(descriptor: int) -> str:
    """The kernel (its boot) and the mount."""
    if sys.platform == "linux":
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    else:
        kernel = socket.gethostname()
    return f"{kernel}:{os.fstat(descriptor).st_dev}"
