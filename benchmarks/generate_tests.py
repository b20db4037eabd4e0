#!/usr/bin/env python
"""Unit tests for the standard library and two popular packages, with a real model, and another look at them.

    python benchmarks/generate_tests.py FOLDER [--doc docs/batch.md --plot docs/unit-tests.png]

Fetches the packages into FOLDER, runs the job into FOLDER/out, looks at its tests again as `zenray jobs recheck` does
and writes FOLDER/report.json, whose table and picture `--doc` and `--plot` renew. Killed, the same command goes on.
Exit status 1: the second look found something else than the record says. About 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zenray.bench.document import replace_block, write_blocks
from zenray.bench.machine import describe_machine

PACKAGES = ("boltons==26.2.0", "more-itertools==11.2.1")
KIND = "unit_tests"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-functions", type=int, default=156)
    parser.add_argument("--sample", type=int, default=20, help="functions whose scores are measured again")
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the profile; repeatable")
    parser.add_argument("--doc", type=Path, help="renew the table of this document")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    options = parser.parse_args()
    if options.doc:
        replace_block(options.doc.read_text(encoding="utf-8"), KIND, "")  # Before the work, not after it.
    output = options.folder / "out"
    inputs = [_standard_library(), *map(str, _source_packages(options.folder / "packages"))]
    _run_job(inputs, output, options)
    recheck = _recheck(output, options.sample)
    report = _report(output, recheck)
    (options.folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    if options.doc:
        write_blocks(options.doc, report)
    if options.plot:
        shutil.copyfile(output / "report" / "report.png", options.plot)
    return 1 if recheck["problems"] else 0


def _standard_library() -> str:
    folder = sysconfig.get_path("stdlib")
    return f"{folder}#name=cpython-{platform.python_version()}"


def _source_packages(folder: Path) -> list[Path]:
    """The packages' source archives, fetched once."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        name, _, version = package.replace("-", "_").partition("==")
        if not list(folder.glob(f"{name}-{version}.*")):
            _call(["-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), package])
    return sorted(each for each in folder.iterdir() if each.name.endswith(".tar.gz"))


def _run_job(inputs: list[str], output: Path, options: argparse.Namespace) -> None:
    words = ["--output", str(output), "--profile", "local", "--ray-address", "local"]
    for each in (f"model.name={options.model}", "engine.max_running_sequences=16", *options.set):
        words += ["--set", each]
    words += [word for each in inputs for word in ("--input", each)]
    words += ["--max-functions", str(options.max_functions), "--rows-per-shard", "4"]
    _call(["-m", "zenray.cli.main", "jobs", "submit", "unit-tests", *words])


def _recheck(output: Path, sample: int) -> dict[str, Any]:
    """Its exit status is in its findings."""
    _call(["-m", "zenray.batch.unit_tests.results.recheck", str(output), "--sample", str(sample)], allowed=(0, 1))
    found: dict[str, Any] = json.loads((output / "runs" / "recheck.json").read_text(encoding="utf-8"))
    return found


def _report(output: Path, recheck: dict[str, Any]) -> dict[str, Any]:
    """Times are those of all runs that it took, as far as they were written down."""
    runs = [json.loads(each.read_text(encoding="utf-8")) for each in output.glob("runs/*/progress.json")]
    worked = [run for run in runs if run["tokens"]]
    return {
        "kind": KIND,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "model": json.loads((output / "job.json").read_text(encoding="utf-8"))["model"],
        "figures": json.loads((output / "report" / "figures.json").read_text(encoding="utf-8")),
        "recheck": recheck,
        "run": {name: sum(run[name] for run in worked) for name in ("elapsed_s", "tokens")},
    }


def _call(arguments: list[str], allowed: tuple[int, ...] = (0,)) -> None:
    print("+ python", *arguments, flush=True)
    status = subprocess.run([sys.executable, *arguments], check=False).returncode
    if status not in allowed:
        sys.exit(f"exit status {status}; the same command goes on from here")


if __name__ == "__main__":
    sys.exit(main())
