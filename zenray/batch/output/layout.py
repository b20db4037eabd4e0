"""Where things are in an output folder."""

from __future__ import annotations

from pathlib import Path

JOB = "job.json"
MANIFEST = "manifest.json"
JOURNAL = "manifest.journal"
SHARDS = "shards"
RUNS = "runs"
"""Logs, progress, the lease: whatever depends on time. No part of the promise, as all else is."""
LEASE = f"{RUNS}/lease.json"
DERIVED = ("report", "tests")
"""What a job makes of complete shards; may be made again at any time."""


def shard_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def shard_path(output: Path, index: int) -> Path:
    return output / SHARDS / shard_name(index)
