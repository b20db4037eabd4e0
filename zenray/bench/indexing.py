"""The workspace index: how fast it is made, updated and asked, and what memory a large tree takes.

    python -m zenray.bench.indexing --json REPORT.json --doc docs/completion.md

Indexes Python's standard library and a generated tree of small files, each by a process of its own whose memory, and
its workers', is sampled. Also how many spans of the standard library are taken for secrets, where there are none.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from zenray.bench.document import write_blocks
from zenray.bench.indexing_report import indexing_markdown
from zenray.bench.indexing_tree import write_tree
from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, write_report
from zenray.bench.statistics import Distribution
from zenray.context.index import WorkspaceIndex
from zenray.context.privacy import secrets_in

_SAMPLE_EVERY_S = 0.02
_NUM_NAMES, _NUM_MODULES = 16, 12
"""Asked in one lookup: as many as there are around a cursor."""
_NUM_CHANGED = 10


def measure(num_files: int, num_lookups: int, library: Path) -> list[dict[str, Any]]:
    """One row per tree, and one of secrets."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "library"
        shutil.copytree(library, copy, ignore=shutil.ignore_patterns("site-packages", "__pycache__"))
        rows = [_measure_tree("standard library", copy, Path(scratch) / "library.sqlite", num_lookups)]
        made = Path(scratch) / "made"
        write_tree(made, num_files)
        rows.append(_measure_tree(f"{num_files:,} small files", made, Path(scratch) / "made.sqlite", num_lookups))
        return [*rows, _measure_secrets(copy)]


def _measure_tree(name: str, root: Path, database: Path, num_lookups: int) -> dict[str, Any]:
    _age(root)
    first, memory = _build_in_child(root, database)
    again, _ = _build_in_child(root, database)
    for path in sorted(root.rglob("*.py"))[:_NUM_CHANGED]:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n\ndef added_by_the_benchmark():\n    return 1\n")
    changed, _ = _build_in_child(root, database)
    index = WorkspaceIndex.open(root, database)
    status = index.status()
    assert status is not None
    try:
        return {
            "measure": "tree",
            "tree": name,
            "files": status.num_files,
            "definitions": status.num_definitions,
            "source_mb": status.source_bytes / 1e6,
            "database_mb": status.database_bytes / 1e6,
            "build_s": first["elapsed_s"],
            "mb_per_cpu_s": first["read_bytes"] / 1e6 / first["cpu_s"],
            "mb_per_s": first["read_bytes"] / 1e6 / first["elapsed_s"],
            "files_per_s": first["num_added"] / first["elapsed_s"],
            "unchanged_s": again["elapsed_s"],
            "changed_files": changed["num_changed"],
            "changed_s": changed["elapsed_s"],
            **memory,
            **_measure_lookups(index, database, root, num_lookups),
        }
    finally:
        index.close()


def _age(root: Path) -> None:
    """Files that were written just now are read again the next time; give them a past."""
    for path in root.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))


def _build_in_child(root: Path, database: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """The report of an update by another process, and the most memory that it and its workers had."""
    command = [sys.executable, "-m", "zenray.bench.indexing_build", str(root), str(database)]
    most_parent = most_worker = most_all = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            parent, workers = _resident(process)
            most_parent = max(most_parent, parent)
            most_worker = max(most_worker, max(workers, default=0))
            most_all = max(most_all, parent + sum(workers))
            time.sleep(_SAMPLE_EVERY_S)
        assert child.stdout is not None
        report = json.loads(child.stdout.read())
    mib = 1 << 20
    return report, {
        "parent_mib": most_parent / mib,
        "worker_mib": most_worker / mib,
        "all_mib": most_all / mib,
    }


def _resident(process: psutil.Process) -> tuple[int, list[int]]:
    try:
        own = process.memory_info().rss
        children = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return 0, []
    found = []
    for child in children:
        try:
            found.append(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return own, found


def _measure_lookups(index: WorkspaceIndex, database: Path, root: Path, num_lookups: int) -> dict[str, Any]:
    """Lookups of names and modules in random order, each list asked once (`first`) and once more (`again`)."""
    chance = random.Random(0)
    with sqlite3.connect(database) as connection:
        names = [
            name for (name,) in connection.execute("SELECT DISTINCT name FROM definitions WHERE family = 'python'")
        ]
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.py"))]
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in paths]
    asked = [[*chance.choices(names, k=_NUM_NAMES - 2), "absent_name", "self"] for _ in range(num_lookups)]
    imported = [[*chance.choices(modules, k=_NUM_MODULES - 3), "os.path", "absent.module", "re"] for _ in asked]
    importers = chance.choices(paths, k=num_lookups)
    found: dict[str, Any] = {}
    for place in ("first", "again"):
        found[f"definitions_{place}_ms"] = _times(lambda each: index.definitions(each, "python", 64), asked)
        pairs = list(zip(imported, importers, strict=True))
        found[f"exports_{place}_ms"] = _times(lambda each: index.exports(each[0], each[1], "python", 64), pairs)
    return found


def _times(ask: Callable[[Any], object], questions: Sequence[Any]) -> dict[str, Any]:
    times_ms = []
    for question in questions:
        began_s = time.perf_counter()
        ask(question)
        times_ms.append((time.perf_counter() - began_s) * 1e3)
    return asdict(Distribution.of(times_ms))


def _measure_secrets(root: Path) -> dict[str, Any]:
    """Spans taken for secrets in source that holds none, and how fast source is searched on one core."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(root.rglob("*.py"))]
    began_s = time.process_time()
    num_spans = sum(len(secrets_in(text)) for text in texts)
    elapsed_s = time.process_time() - began_s
    megabytes = sum(map(len, texts)) / 1e6
    return {"measure": "secrets", "source_mb": megabytes, "spans": num_spans, "mb_per_s": megabytes / elapsed_s}


def _clock() -> CpuClock:
    """With the time of children that have ended as own."""
    return CpuClock(CpuClock.read().machine_s, sum(os.times()[:4]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.indexing", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000, help="of the generated tree")
    parser.add_argument("--lookups", type=int, default=500)
    parser.add_argument("--library", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--doc", type=Path, help="a document with an `indexing` block to write the table into")
    given = parser.parse_args()
    clock, began_s = _clock(), time.monotonic()
    rows = measure(given.files, given.lookups, given.library)
    foreign_share = clock.foreign_share(_clock(), time.monotonic() - began_s)
    report = make_report(
        "indexing",
        rows,
        prompts={},
        settings={"files": given.files, "lookups": given.lookups, "names": _NUM_NAMES, "modules": _NUM_MODULES},
        bandwidth=None,
        foreign_cpu_share=foreign_share,
    )
    print(indexing_markdown(report))
    if given.json is not None:
        write_report(report, given.json)
    if given.doc is not None:
        write_blocks(given.doc, report)


if __name__ == "__main__":
    main()
