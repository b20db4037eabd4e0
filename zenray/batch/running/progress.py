"""How far a run is, as data and as text. `progress_view` shows it.

Nothing of this is part of a job's output; it lies in the folder of runs.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum

_RATE_WINDOW_S = 30.0
_SMALLEST_SAMPLE = 20


class RunState(Enum):
    """What a run is doing, or how it ended."""

    PREPARING = "preparing"
    RUNNING = "running"
    FINISHING = "finishing"
    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. Rows and shards are the whole job's; tokens, errors and stages this run's.

    `stage_rows` are rows each stage has done in this run. `num_tokens` are this run's when it has done everything, 0
    where nobody can know; `tokens` exceed them where some were lost and came again. `tokens_per_s` is of the last half
    minute. `remaining_s` is None while nothing can be said.
    """

    job: str
    state: RunState
    started_at: str
    elapsed_s: float = 0.0
    num_rows: int = 0
    rows_done: int = 0
    num_shards: int = 0
    shards_done: int = 0
    stage_rows: Mapping[str, int] = field(default_factory=dict)
    num_errors: int = 0
    tokens: int = 0
    tokens_per_s: float = 0.0
    remaining_s: float | None = None
    message: str = ""
    num_tokens: int = 0

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "state": self.state.value, "stage_rows": dict(self.stage_rows)}, indent=2)


def remaining_s(elapsed_s: float, done: int, num_to_do: int) -> float | None:
    """Seconds left if the rest goes as what was `done` in `elapsed_s`; None before a twentieth is done, of which little
    can be told: the first rows of a run take longest, since they go through the stages side by side."""
    if done <= 0 or _SMALLEST_SAMPLE * done < num_to_do:
        return None
    return max(0, num_to_do - done) * elapsed_s / done


def progress_line(progress: Progress) -> str:
    """One line for logs."""
    parts = [f"{progress.rows_done}/{progress.num_rows} rows", f"{progress.shards_done}/{progress.num_shards} shards"]
    if len(progress.stage_rows) > 1:
        parts += [f"{stage} {count}" for stage, count in progress.stage_rows.items()]
    if progress.num_tokens:
        parts.append(f"{min(progress.tokens, progress.num_tokens):,}/{progress.num_tokens:,} tokens")
    if progress.tokens:
        parts.append(f"{progress.tokens_per_s:.0f} tokens/s")
    parts.append(f"{progress.num_errors} errors")
    if progress.remaining_s is not None:
        parts.append(f"{duration(progress.remaining_s)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as much of them as matter: 1 h 02 min, 3 min 20 s, 7 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


class Rate:
    """Units per second over the last half minute, of a count that only grows."""

    def __init__(self, window_s: float = _RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, count: int) -> float:
        self._samples.append((now_s, count))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - self._window_s:
            self._samples.popleft()
        begun_s, begun = self._samples[0]
        return (count - begun) / (now_s - begun_s) if now_s > begun_s else 0.0
