"""One run of a job as people see it: counts, a ticking view of them, and the summary at the end."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray

from zenray.batch.job import Job, Say
from zenray.batch.running.board import Counts
from zenray.batch.running.interrupts import Interrupts
from zenray.batch.running.progress import Progress, Rate, RunState, duration, remaining_s
from zenray.batch.running.progress_view import ProgressView

log = logging.getLogger(__name__)

_TICK_S = 1.0
_BOARD_TIMEOUT_S = 5.0
_MAX_ERRORS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a finished run did. Rows and shards are the whole job's, everything else is this run's.

    `num_tokens` are those in the rows this run wrote; `num_generated_tokens`, generated or scored, include those of
    lost attempts.
    """

    num_rows: int
    num_shards: int
    num_rows_written: int
    num_shards_written: int
    num_errors: int
    num_tokens: int
    num_generated_tokens: int
    duration_s: float

    @property
    def tokens_per_s(self) -> float:
        return self.num_generated_tokens / self.duration_s if self.duration_s else 0.0

    def __str__(self) -> str:
        text = (
            f"{self.num_rows} rows in {self.num_shards} shards; written by this run: {self.num_rows_written} rows, "
            f"{self.num_errors} of them with an error, in {duration(self.duration_s)}"
        )
        if self.num_tokens:
            text += f", {self.num_tokens:,} tokens ({self.tokens_per_s:,.0f}/s)"
        return text


class RunWatch:
    """Owns a run's counts. The driver tells it what it wrote; a thread reads the workers' board and shows both."""

    def __init__(self, job: Job, runs: Path, say: Say) -> None:
        started = datetime.now(UTC)
        self.folder = runs / started.strftime("%Y%m%dT%H%M%S.%fZ")
        self.interrupts = Interrupts(say)
        self._stages = tuple(stage.name for stage in job.stages)
        self._begun_s = time.monotonic()
        self._say = say
        self._view: ProgressView | None = None
        self._lock = threading.Lock()
        self._counts = Counts()
        self._rate = Rate()
        self._rows_before = self._rows_written = self._shards_written = self._tokens_written = 0
        self._progress = Progress(job.name, RunState.PREPARING, started.isoformat(timespec="seconds"))

    def begin(self, num_rows: int, num_shards: int, finished: Sequence[int], num_tokens: int) -> None:
        """The output is ours; `finished` are the row counts of shards that earlier runs finished, `num_tokens` what
        this run will take of the model, 0 where nobody can know."""
        self.folder.mkdir(parents=True)
        self._view = ProgressView(self.folder, self._say)
        self._begun_s = time.monotonic()
        self._rows_before = sum(finished)
        if finished:
            self._say(f"going on: {self._rows_before} of {num_rows} rows are finished")
        self._change(
            state=RunState.RUNNING, num_rows=num_rows, num_shards=num_shards,
            rows_done=self._rows_before, shards_done=len(finished), num_tokens=num_tokens,
        )  # fmt: skip

    def wrote(self, num_rows: int, errors: Sequence[str], num_tokens: int) -> None:
        """A shard is finished. The first few errors are shown; all of them are in the rows."""
        self._rows_written += num_rows
        self._shards_written += 1
        self._tokens_written += num_tokens
        now = self._progress
        for error in errors[: max(0, _MAX_ERRORS_SHOWN - now.num_errors)]:
            self._say(error)
        self._change(shards_done=now.shards_done + 1, num_errors=now.num_errors + len(errors))

    @contextlib.contextmanager
    def watching(self, board: Any) -> Iterator[Any]:
        """Follows the workers' `board` while they work, and ends it, which ends them."""
        done = threading.Event()
        thread = threading.Thread(target=self._follow, args=(board, done), name="zenray-progress", daemon=True)
        thread.start()
        try:
            yield board
        finally:
            done.set()
            thread.join(_BOARD_TIMEOUT_S + _TICK_S)
            self._read(board)
            ray.kill(board)

    def finishing(self) -> None:
        self._change(state=RunState.FINISHING)

    def complete(self) -> RunSummary:
        self._change(state=RunState.COMPLETE)
        progress = self._progress
        return RunSummary(
            progress.num_rows,
            progress.num_shards,
            self._rows_written,
            self._shards_written,
            progress.num_errors,
            self._tokens_written,
            self._counts.tokens,
            time.monotonic() - self._begun_s,
        )

    def ended(self, state: RunState, message: str) -> None:
        """The run has ended before it was complete."""
        self._change(state=state, message=message)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()

    def _follow(self, board: Any, done: threading.Event) -> None:
        while not done.wait(_TICK_S):
            self.interrupts.insist()
            self._read(board)
            self._change()

    def _read(self, board: Any) -> None:
        with contextlib.suppress(ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            self._counts = ray.get(board.read.remote(), timeout=_BOARD_TIMEOUT_S)

    def _change(self, **fields: Any) -> None:
        with self._lock:
            now_s = time.monotonic()
            elapsed_s, counts, progress = now_s - self._begun_s, self._counts, replace(self._progress, **fields)
            stage_rows = {stage: counts.rows.get(stage, 0) for stage in self._stages}
            if progress.num_tokens:
                done, to_do = min(counts.tokens, progress.num_tokens), progress.num_tokens
            else:
                done, to_do = sum(stage_rows.values()), (progress.num_rows - self._rows_before) * len(self._stages)
            in_last_stage = max([self._rows_written, *list(stage_rows.values())[-1:]])
            self._progress = replace(
                progress,
                elapsed_s=elapsed_s,
                rows_done=min(progress.num_rows, self._rows_before + in_last_stage),
                stage_rows=stage_rows,
                tokens=counts.tokens,
                tokens_per_s=self._rate.add(now_s, counts.tokens),
                remaining_s=remaining_s(elapsed_s, done, to_do),
            )
            if self._view is not None:
                self._view.show(self._progress)
