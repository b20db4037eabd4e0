"""A control group per worker, where they can be written: all processes and files of a sandbox share one allowance."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """One mounted tree of control groups and the group that we are in."""

    controllers: frozenset[str]
    own_group: Path
    is_v2: bool


class ControlGroup:
    """`folders` are this worker's groups, one per hierarchy; a process joins by writing 0 to each `cgroup.procs`."""

    def __init__(self, name: str) -> None:
        self._memory: Path | None = None
        self._pids: Path | None = None
        self._is_v2 = False
        self.folders: list[Path] = []
        for hierarchy in _hierarchies():
            wanted = {"memory", "pids"} & hierarchy.controllers
            folder = hierarchy.own_group / name
            if not wanted:
                continue
            try:
                if hierarchy.is_v2:
                    self._delegate(hierarchy, wanted)
                folder.mkdir(exist_ok=True)
            except OSError:
                continue
            self.folders.append(folder)
            self._is_v2 |= hierarchy.is_v2
            if "memory" in wanted:
                self._memory = folder
            if "pids" in wanted:
                self._pids = folder

    @staticmethod
    def _delegate(hierarchy: _Hierarchy, wanted: set[str]) -> None:
        """A v2 group hands controllers down only if told to, and only while no process is in it itself."""
        control = hierarchy.own_group / "cgroup.subtree_control"
        missing = wanted - set(control.read_text().split())
        if missing:
            control.write_text(" ".join(f"+{name}" for name in sorted(missing)))

    @property
    def bounds_memory(self) -> bool:
        return self._memory is not None

    @property
    def bounds_processes(self) -> bool:
        return self._pids is not None

    def limit(self, memory_mib: int, num_processes: int) -> None:
        """For the next sandbox in it. Raises OSError."""
        if self._memory is not None and self._is_v2:
            (self._memory / "memory.max").write_text(str(memory_mib * _MEBIBYTE))
            with contextlib.suppress(OSError):  # Without swap there is none to forbid.
                (self._memory / "memory.swap.max").write_text("0")
        elif self._memory is not None:
            self._set_v1(self._memory, memory_mib * _MEBIBYTE)
        if self._pids is not None:
            (self._pids / "pids.max").write_text(str(num_processes))

    @staticmethod
    def _set_v1(folder: Path, size: int) -> None:
        """v1 has memory within memory and swap: the larger limit must be raised first and lowered last."""
        names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        names = [name for name in names if (folder / name).exists()]
        now = int((folder / names[0]).read_text())
        for name in names if size <= now else reversed(names):
            (folder / name).write_text(str(size))

    def num_out_of_memory(self) -> int:
        """How often the kernel ended a process here for want of memory, ever."""
        if self._memory is None:
            return 0
        name = "memory.events" if self._is_v2 else "memory.oom_control"
        counts = dict(line.split() for line in (self._memory / name).read_text().splitlines())
        return int(counts.get("oom_kill", 0))

    def remove(self) -> None:
        """Once it is empty."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _hierarchies() -> list[_Hierarchy]:
    """Every tree of control groups, from the mounts and from where we are in each."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    own = {frozenset(names.split(",")) - {""}: path for _, names, path in groups}
    found = []
    for _, mount_point, kind, options, *_ in mounts:
        if kind == "cgroup":
            for names, path in own.items():
                if names and names <= frozenset(options.split(",")):
                    found.append(_Hierarchy(names, Path(mount_point, path.lstrip("/")), is_v2=False))
        elif kind == "cgroup2" and frozenset() in own:
            folder = Path(mount_point, own[frozenset()].lstrip("/"))
            with contextlib.suppress(OSError):
                controllers = frozenset((folder / "cgroup.controllers").read_text().split())
                found.append(_Hierarchy(controllers, folder, is_v2=True))
    return [hierarchy for hierarchy in found if os.access(hierarchy.own_group, os.W_OK)]
