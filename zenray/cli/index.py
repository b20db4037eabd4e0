"""`zenray index`: the symbols of a workspace, for completions that know the code around them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from zenray.cli.console import facts, megabytes, printable, stderr, stdout, table

if TYPE_CHECKING:
    from zenray.context.index import BuildReport, IndexStatus, Progress

EPILOG = (
    "Left out: what .gitignore and .zenrayignore name, files of secrets, files larger than 1 MB, links and what is no "
    "code. Secrets in the text are blacked out. Everything stays on this machine. Run it again after larger changes: "
    "only changed files are read."
)
_MOST_LANGUAGES = 12


def index(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder of a workspace.", show_default=False)],
    status: Annotated[bool, typer.Option("--status", help="Say what the index holds and change nothing.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Delete the index.")] = False,
    num_workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes that read files; 0 takes one per core.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Index a workspace, or bring its index up to date: definitions in it then help completions in its other files."""
    from zenray.context.index import WorkspaceIndex, forget_index
    from zenray.errors import ConfigError

    if status and forget:
        raise typer.BadParameter("--status and --forget exclude each other")
    if forget:
        existed = forget_index(path)
        if as_json:
            typer.echo(json.dumps({"forgotten": existed}))
        else:
            stdout().print(Text(f"{path}: {'the index is deleted' if existed else 'there was no index'}"))
        return
    report = None if status else _build(path, num_workers)
    found = WorkspaceIndex.open(path).status()
    if found is None:
        raise ConfigError(f"{path} has no index; make one: zenray index {path}")
    if as_json:
        typer.echo(json.dumps(_as_dict(found, report), indent=2))
    else:
        _show(found, report)


def _build(path: Path, num_workers: int) -> BuildReport:
    from zenray.context.index import build_index

    with _progress(path) as on_progress:
        try:
            return build_index(path, on_progress=on_progress, num_workers=num_workers)
        except KeyboardInterrupt:
            stderr().print(Text("stopped; what was read is kept, and the same command goes on from there", "warn"))
            raise typer.Exit(130) from None


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[Progress], None]]:
    """A bar of files; nothing where there is no terminal."""
    if not stderr().is_terminal:
        yield lambda progress: None
        return
    from rich import progress as rich_progress

    bar = rich_progress.Progress(
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
        rich_progress.TextColumn("{task.completed:,} files, {task.fields[read]}"),
        rich_progress.TimeRemainingColumn(compact=True),
        console=stderr(),
        transient=True,
    )
    with bar:
        task = bar.add_task("looking for files", total=None, read="")
        total = _expected_files(path)
        bar.reset(task, total=total, description="indexing")

        def report(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.num_files,
                total=max(total, progress.num_files),
                read=f"{megabytes(progress.num_bytes)} read",
            )

        yield report


def _expected_files(path: Path) -> int:
    """As many as the last time; counted the first time. What is wrong with `path` is for the update to say."""
    from zenray.context.index import WorkspaceIndex
    from zenray.context.index.walk import count_files

    found = WorkspaceIndex.open(path).status()
    if found is not None and found.report:
        return found.num_files
    try:
        return count_files(path)
    except OSError:
        return 0


def _show(found: IndexStatus, report: BuildReport | None) -> None:
    shown = table("language", "files", "definitions", right=("files", "definitions"))
    for row in found.languages[:_MOST_LANGUAGES]:
        shown.add_row(Text(row.language, "name"), f"{row.num_files:,}", f"{row.num_definitions:,}")
    others = found.languages[_MOST_LANGUAGES:]
    if others:
        shown.add_row(
            Text(f"{len(others)} others", "quiet"),
            f"{sum(row.num_files for row in others):,}",
            f"{sum(row.num_definitions for row in others):,}",
        )
    if len(found.languages) > 1:
        shown.add_section()
        shown.add_row(Text("all", "name"), f"{found.num_files:,}", f"{found.num_definitions:,}")
    if found.languages:
        stdout().print(shown)
        stdout().print()
    rows = facts()
    last = found.report
    if report is not None:
        rows.add_row("files", _changes(report))
        speed = f", {report.read_bytes / 1e6 / report.elapsed_s:.1f} MB/s" if report.read_bytes else ""
        rows.add_row("read", f"{megabytes(report.read_bytes)} in {report.elapsed_s:.1f} s{speed}")
        if report.was_damaged:
            rows.add_row("note", Text("the index was damaged and has been made again", "warn"))
    elif last:
        rows.add_row("updated", f"{_ago(time.time() - last['finished_at_s'])} ago, in {last['elapsed_s']:.1f} s")
    else:
        rows.add_row("updated", Text("never to the end; zenray index goes on from there", "warn"))
    left_out = last.get("skipped", {})
    rows.add_row("left out", ", ".join(starmap(_counted, left_out.items())) or "nothing")
    rows.add_row("source", megabytes(found.source_bytes))
    rows.add_row("index", f"{megabytes(found.database_bytes)}, {printable(str(found.database))}")
    stdout().print(rows)


def _counted(reason: str, count: int) -> str:
    is_many = count != 1 and reason.endswith(("folder", "link"))
    return f"{count:,} {reason}{'s' if is_many else ''}"


def _changes(report: BuildReport) -> str:
    counts = {
        "new": report.num_added,
        "changed": report.num_changed,
        "unchanged": report.num_unchanged,
        "gone": report.num_removed,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "none"


def _ago(elapsed_s: float) -> str:
    for unit, seconds in (("d", 86_400), ("h", 3600), ("min", 60)):
        if elapsed_s >= seconds:
            return f"{elapsed_s / seconds:.0f} {unit}"
    return f"{max(0.0, elapsed_s):.0f} s"


def _as_dict(found: IndexStatus, report: BuildReport | None) -> dict[str, Any]:
    values = {
        "database": str(found.database),
        "database_bytes": found.database_bytes,
        "source_bytes": found.source_bytes,
        "num_files": found.num_files,
        "num_definitions": found.num_definitions,
        "languages": [asdict(row) for row in found.languages],
    }
    return {**values, "report": asdict(report) if report is not None else found.report}
