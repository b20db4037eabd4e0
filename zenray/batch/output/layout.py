"""Where things are in an output folder."""

from __future__ import annotations

import re
from pathlib import Path

JOB = "job.json"
MANIFEST = "manifest.json"
JOURNAL = "manifest.journal"
SHARDS = "shards"
RUNS = "runs"
"""Logs, progress, the lease: whatever depends on time. No part of the promise, as all else is."""
LEASE = f"{RUNS}/lease.json"
DRIVER = f"{RUNS}/driver.json"
"""A driver in the background, from before it takes the lease."""
DERIVED = ("report", "tests")
"""What a job makes of complete shards; may be made again at any time."""


_COMPANION = re.compile(r"[a-z][a-z0-9_]*")


def check_companion_name(name: str) -> None:
    """Raises ValueError for what cannot be the folder of a companion: it stands beside the others."""
    if not _COMPANION.fullmatch(name) or name in (SHARDS, RUNS, *DERIVED):
        raise ValueError(f"{name!r} cannot be the name of a companion")


def is_output(folder: Path) -> bool:
    """Whether a job writes there or wrote there. Inputs leave it out, as `--input . --output out` means: it grows with
    the job, which else would find other inputs whenever it goes on."""
    begun = (folder / LEASE).exists() or (folder / DRIVER).exists()
    return begun or ((folder / JOB).is_file() and (folder / SHARDS).is_dir())


def shard_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def shard_path(output: Path, index: int, companion: str = "") -> Path:
    """A shard's file, or that of one of its companions."""
    return output / (companion or SHARDS) / shard_name(index)
