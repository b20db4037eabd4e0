"""Shows a run: a bar on a terminal, else lines from time to time; and keeps the file `zenray jobs status` reads."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from zenray.batch.job import Say
from zenray.batch.running.progress import Progress, RunState, progress_line

PROGRESS_FILE = "progress.json"
LINE_PERIOD_S = 5.0


class ProgressView:
    """`folder` is the run's own, where progress.json is rewritten. Without `on_terminal`, whether stderr is one."""

    def __init__(self, folder: Path, say: Say, on_terminal: bool | None = None) -> None:
        self._path = folder / PROGRESS_FILE
        self._say = say
        self._line_s = 0.0
        self._bar = _Bar() if (sys.stderr.isatty() if on_terminal is None else on_terminal) else None

    def show(self, progress: Progress) -> None:
        self._write(progress)
        if self._bar is not None:
            self._bar.show(progress)
        elif progress.state is RunState.RUNNING and progress.elapsed_s - self._line_s >= LINE_PERIOD_S:
            self._line_s = progress.elapsed_s
            self._say(progress_line(progress))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _write(self, progress: Progress) -> None:
        """Whole at any time, durable at none: it is worth nothing after a power cut. A full disk ends a job where
        it matters, at the shard that it leaves no room for."""
        temporary = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            temporary.write_text(progress.to_json() + "\n")
            os.replace(temporary, self._path)


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            TextColumn("{task.fields[job]}"), BarColumn(), TextColumn("{task.fields[line]}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("rows", total=None, job="", line="")

    def show(self, progress: Progress) -> None:
        if progress.state is not RunState.RUNNING:
            return
        self._progress.start()
        done, total = progress.rows_done, progress.num_rows
        if progress.num_tokens:
            done, total = progress.tokens, progress.num_tokens
        self._progress.update(
            self._task, total=total, completed=min(done, total),
            job=progress.job, line=progress_line(progress),
        )  # fmt: skip

    def close(self) -> None:
        self._progress.stop()
