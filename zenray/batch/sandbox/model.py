"""What runs in the sandbox, within which limits, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum

from zenray.errors import InvalidRequest, Unavailable


class SandboxUnavailable(Unavailable):
    """There is no sandbox here, or it broke: says which layer and what helps. Never a verdict about the code."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one execution may take before it is ended. Each process has `memory_mib` of address space and `cpu_s` of
    processor time; all processes and files together have `memory_mib` plus `scratch_mib` where a control group for
    memory can be written, else as much as the limits of the processes add up to."""

    wall_s: float = 20.0
    cpu_s: int = 5
    memory_mib: int = 512
    file_mib: int = 16
    scratch_mib: int = 32
    num_processes: int = 16
    num_open_files: int = 128
    output_kib: int = 1024  # Of each of stdout, stderr and the report.

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value > 0:
                raise InvalidRequest.of(f"limits.{item.name}", value, "more than 0")


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of `entry`, a Python file among `files`, as `__main__` in a scratch folder that holds them.

    `files` maps relative paths to what they hold. `packages` are distributions of our environment to import from, such
    as coverage or pytest, with what they need. The entry may report through the file descriptor
    that the variable ZENRAY_REPORT_FD names: nothing else writes there by accident, as printing does to stdout.
    """

    files: Mapping[str, str | bytes]
    entry: str
    hash_seed: int = 0
    stdin: bytes = b""
    packages: tuple[str, ...] = ()
    limits: Limits | None = None  # Instead of the pool's.

    def __post_init__(self) -> None:
        if self.entry not in self.files:
            raise InvalidRequest.of("entry", self.entry, "one of the files")
        if not 0 <= self.hash_seed < 2**32:
            raise InvalidRequest.of("hash_seed", self.hash_seed, "0 to 4294967295")
        for path in self.files:
            parts = path.split("/")
            if "\0" in path or any(part in ("", ".", "..") for part in parts):
                raise InvalidRequest.of("files", path, "relative paths without empty parts, '.' and '..'")


class Ending(Enum):
    """How an execution ended. EXITED says nothing about success: look at the exit code, better at the report."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"  # Wall-clock time.
    CPU_LIMIT = "cpu_limit"
    OUT_OF_MEMORY = "out_of_memory"  # Ended by the control group; Python's own MemoryError is an exit like any other.
    FILE_LIMIT = "file_limit"  # A file grew too large, in a program that does not handle it as Python does.
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"  # By a signal of its own doing, or with an exit status that looks like one (128 + signal).


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What came of an execution. All bytes are capped. Times depend on the machine: never for rows."""

    ending: Ending
    exit_code: int | None  # Of EXITED.
    signal: int | None  # Of KILLED, CPU_LIMIT and FILE_LIMIT.
    stdout: bytes
    stderr_tail: bytes
    report: bytes
    wall_s: float = field(compare=False)
    waited_s: float = field(compare=False)  # For a sandbox to be ready, of `wall_s` not a part.

    @property
    def exited_cleanly(self) -> bool:
        """Whether it exited with status 0: no crash and no limit. Any code can do so."""
        return self.ending is Ending.EXITED and self.exit_code == 0
