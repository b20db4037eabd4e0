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
    """A worker's group. `folder` is None where none can be written; a process joins by writing 0 to `cgroup.procs`.

    Processes are not counted here: RLIMIT_NPROC does that per user namespace, while a group goes on counting the dead
    of earlier sandboxes until the machine's first process has noticed them.
    """

    def __init__(self, name: str) -> None:
        self.folder: Path | None = None
        self._is_v2 = False
        for hierarchy in _hierarchies():
            if "memory" in hierarchy.controllers:
                folder = hierarchy.own_group / name
                with contextlib.suppress(OSError):
                    if hierarchy.is_v2:
                        _hand_down_memory(hierarchy)
                    folder.mkdir(exist_ok=True)  # One of a killed pool's is as good as new.
                    self.folder, self._is_v2 = folder, hierarchy.is_v2

    def limit_memory(self, mebibytes: int) -> None:
        """Of the next sandbox in it. Raises OSError."""
        size = mebibytes * _MEBIBYTE
        if self.folder is None:
            return
        if not self._is_v2:
            self._set_v1(self.folder, size)
            return
        (self.folder / "memory.max").write_text(str(size))
        with contextlib.suppress(OSError):  # Without swap there is none to forbid.
            (self.folder / "memory.swap.max").write_text("0")

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
        if self.folder is None:
            return 0
        name = "memory.events" if self._is_v2 else "memory.oom_control"
        counts = dict(line.split() for line in (self.folder / name).read_text().splitlines())
        return int(counts.get("oom_kill", 0))

    def remove(self) -> None:
        """Once it is empty."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


def _hand_down_memory(hierarchy: _Hierarchy) -> None:
    """A v2 group lets its children have a controller only if told to, and only while no process is in it itself."""
    control = hierarchy.own_group / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")


def memory_of_machine_mib() -> int:
    """What there is, or what the group that we are in may take, if that is less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for hierarchy in _hierarchies(writable=False):
        if "memory" in hierarchy.controllers:
            name = "memory.max" if hierarchy.is_v2 else "memory.limit_in_bytes"
            with contextlib.suppress(OSError, ValueError):  # "max", and the root of a tree has none.
                sizes.append(int((hierarchy.own_group / name).read_text()))
    return min(sizes) // _MEBIBYTE


def _hierarchies(*, writable: bool = True) -> list[_Hierarchy]:
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
    return [hierarchy for hierarchy in found if not writable or os.access(hierarchy.own_group, os.W_OK)]
