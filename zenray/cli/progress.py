"""Progress of long work: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from zenray.cli.console import megabytes, printable, stderr

if TYPE_CHECKING:
    from rich.progress import Progress

    from zenray.model.catalog import CatalogEntry
    from zenray.model.download import PullProgress

_PLAIN_STEP = 0.25
_STAGE_WORDS = {"download": "fetching", "verify": "checking SHA-256", "make": "upcycling"}


def pull_with_progress(model: str | CatalogEntry) -> Path:
    """Pull a catalog model, or one that is in no catalog yet, showing it. Raises what `download.pull` raises."""
    from zenray.model.catalog import Catalog
    from zenray.model.download import pull

    entry = Catalog.load().entry(model) if isinstance(model, str) else model
    if stderr().is_terminal:
        with _bar() as bar:
            return pull(entry, _bar_reporter(bar, entry.name))
    return pull(entry, _plain_reporter())


@contextmanager
def hashing(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for (bytes done, bytes in total); nothing where there is no terminal."""
    if not stderr().is_terminal:
        yield lambda done, total: None
        return
    with _bar() as bar:
        task = bar.add_task(f"{printable(name)}: reading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar() -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=stderr(),
        transient=True,
    )


def _bar_reporter(bar: Progress, name: str) -> Callable[[PullProgress], None]:
    task = bar.add_task(name, total=None)
    stage = ""

    def report(progress: PullProgress) -> None:
        nonlocal stage
        name = progress.name  # a model that another one is made of comes first
        if progress.stage == "try":
            bar.update(task, description=f"{name}: {printable(progress.message)}")
        elif progress.message:
            bar.console.print(Text(f"  {printable(progress.message)}", "quiet"))
        if progress.stage in _STAGE_WORDS:
            if progress.stage != stage:
                bar.reset(task, total=progress.total_bytes)
            bar.update(task, completed=progress.done_bytes, description=f"{name}: {_STAGE_WORDS[progress.stage]}")
        stage = progress.stage

    return report


def _plain_reporter() -> Callable[[PullProgress], None]:
    reached = 0.0

    def report(progress: PullProgress) -> None:
        nonlocal reached
        if progress.message:
            stderr().print(Text(f"{progress.name}: {printable(progress.message)}"))
        share = progress.done_bytes / progress.total_bytes
        if share < reached:
            reached = 0.0  # the next model
        if progress.stage in ("download", "make") and share >= reached + _PLAIN_STEP:
            reached = share - share % _PLAIN_STEP
            done, total = megabytes(progress.done_bytes), megabytes(progress.total_bytes)
            stderr().print(Text(f"{progress.name}: {done} of {total}"))

    return report
