"""What a run tells of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from zenray.batch.running.progress import Progress, Rate, RunState, duration, progress_line, remaining_s
from zenray.batch.running.progress_view import LINE_PERIOD_S, PROGRESS_FILE, ProgressView

HALF = Progress(
    job="unit-tests", state=RunState.RUNNING, started_at="2030-01-01T00:00:00+00:00", elapsed_s=60.0, num_rows=100,
    rows_done=40, num_shards=10, shards_done=4, stage_rows={"generate": 60, "validate": 40}, num_errors=1, tokens=9000,
    tokens_per_s=151.7, remaining_s=75.0,
)  # fmt: skip


def test_a_line_for_logs() -> None:
    assert progress_line(HALF) == (
        "40/100 rows, 4/10 shards, generate 60, validate 40, 152 tokens/s, 1 errors, 1 min 15 s left"
    )
    lost_some = replace(HALF, stage_rows={"extract": 40}, num_tokens=8000)
    assert progress_line(lost_some).startswith("40/100 rows, 4/10 shards, 8,000/8,000 tokens, 152 tokens/s")


@given(st.floats(0.1, 1e6), st.integers(0, 1000), st.integers(0, 1000))
def test_the_rest_takes_as_long_as_what_was_done(elapsed_s: float, done: int, more: int) -> None:
    left = remaining_s(elapsed_s, done, done + more)
    if done == 0 or done < (done + more) / 20:
        assert left is None
    else:
        assert left is not None and abs(left * done - more * elapsed_s) <= 1e-6 * max(1.0, more * elapsed_s)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=200))
def test_a_rate_is_of_the_last_half_minute(steps: list[int]) -> None:
    """A sample each second."""
    rate, total, totals = Rate(window_s=30.0), 0, []
    for second, step in enumerate(steps):
        total += step
        totals.append(total)
        now = rate.add(float(second), total)
    begun = max(0, len(steps) - 1 - 30)
    assert abs(now - (totals[-1] - totals[begun]) / (len(steps) - 1 - begun)) < 1e-6


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 7, 200, 3725)] == ["0 s", "7 s", "3 min 20 s", "1 h 02 min"]


def test_the_file_is_rewritten_and_lines_come_from_time_to_time(tmp_path: Path) -> None:
    lines: list[str] = []
    view = ProgressView(tmp_path, lines.append, on_terminal=False)
    for second in range(11):
        view.show(replace(HALF, elapsed_s=float(second)))
    view.show(replace(HALF, state=RunState.COMPLETE, elapsed_s=100.0))
    view.close()
    assert len(lines) == 10 // LINE_PERIOD_S
    written = json.loads((tmp_path / PROGRESS_FILE).read_text())
    assert (written["state"], written["rows_done"], written["stage_rows"]) == ("complete", 40, HALF.stage_rows)
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS_FILE]
