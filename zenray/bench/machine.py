"""What a number was measured on, and how quiet it was meanwhile."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_VECTOR_FLAG = re.compile(r"avx|amx|asimd|sve|bf16|i8mm")
_PACKAGES = ("zenray", "torch", "ray", "grpcio")


def describe_machine(num_threads: int = 0) -> dict[str, Any]:
    """Cores, processor and its vector extensions, memory, and the versions that matter. Plain JSON values."""
    cpu_info = _read("/proc/cpuinfo")
    flags = set(_field(cpu_info, "flags").split() or _field(cpu_info, "Features").split())
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": num_threads or len(os.sched_getaffinity(0)),
        "processor": _field(cpu_info, "model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cpu_flags": sorted(filter(_VECTOR_FLAG.match, flags)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of some processes together; those that are gone count nothing."""
    pages = [_read(f"/proc/{pid}/statm").split() for pid in pids]
    return sum(int(fields[1]) for fields in pages if fields) * os.sysconf("SC_PAGE_SIZE")


def find_processes(title_part: str, root: int | None = None) -> list[int]:
    """Processes whose command line contains `title_part`, such as a Ray actor's title; with `root`, of
    its tree only."""
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} if root is None else _trees({root})
    return sorted(pid for pid in pids if title_part in _read(f"/proc/{pid}/cmdline").replace("\0", " "))


@dataclass(frozen=True, slots=True)
class CpuClock:
    """CPU seconds used so far: by the whole machine, and by some process trees of it."""

    machine_s: float
    own_s: float

    @classmethod
    def read(cls, roots: Iterable[int] = ()) -> CpuClock:
        """Now, with the trees under `roots` and this process as own. Zeros where /proc does not tell."""
        tick = os.sysconf("SC_CLK_TCK")
        # user, nice, system, (idle, iowait,) irq, softirq: what the cores did for anybody here.
        fields = [int(field) for field in _read("/proc/stat").partition("\n")[0].split()[1:8]]
        busy = sum(fields[:3]) + sum(fields[5:]) if len(fields) == 7 else 0
        own = sum(_process_ticks(pid) for pid in _trees({os.getpid(), *roots}))
        return cls(busy / tick, own / tick)

    def foreign_share(self, later: CpuClock, wall_s: float) -> float:
        """Share of all cores that others used between this reading and a later one, 0 to 1."""
        foreign_s = (later.machine_s - self.machine_s) - (later.own_s - self.own_s)
        return max(0.0, foreign_s / (wall_s * len(os.sched_getaffinity(0)))) if wall_s > 0 else 0.0


def _trees(roots: set[int]) -> set[int]:
    parents = {}
    for name in os.listdir("/proc"):
        stat = _read(f"/proc/{name}/stat") if name.isdigit() else ""
        if stat:
            parents[int(name)] = int(stat.rpartition(")")[2].split()[1])
    found = {pid for pid in roots if pid in parents}
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return found


def _process_ticks(pid: int) -> int:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _field(cpu_info: str, name: str) -> str:
    for line in cpu_info.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
