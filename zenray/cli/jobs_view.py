"""How jobs look: one with its progress, all of them in a table, findings of a check."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from zenray.batch.running.progress import duration
from zenray.cli.console import facts, megabytes, printable, stdout, table

if TYPE_CHECKING:
    from zenray.batch.output.verify import VerifyReport
    from zenray.batch.submission.status import OutputStatus
    from zenray.cli.jobs_find import FoundJob

_WATCH_PERIOD_S = 1.0
_BAR_WIDTH = 40
_STYLES = {"complete": "good", "running": "hint", "failed": "failure", "killed": "failure", "stopped": "warn"}
_NEXT = {
    "killed": "nothing that was finished is lost: the same submission goes on",
    "failed": "after the reason is gone, the same submission goes on",
    "stopped": "the same submission goes on from here",
}
_MOST_FINDINGS = 40


def render(found: FoundJob) -> RenderableType:
    status, submission, rows = found.status, found.submission, facts()
    rows.add_row("job", Text(_name(found), "name"))
    if submission is not None:
        rows.add_row("submission", submission.submission_id)
    rows.add_row("output", printable(str(status.path) if status else submission.output if submission else ""))
    rows.add_row("state", _state(found))
    if status is not None:
        _add_progress(rows, status)
        _add_contents(rows, status)
        if status.problem:
            rows.add_row("problem", Text(printable(status.problem), "failure"))
    reason = _reason(found)
    if reason:
        rows.add_row("reason", Text(printable(reason), "failure" if found.state == "failed" else ""))
    if found.state in _NEXT:
        rows.add_row("next", Text(_NEXT[found.state], "hint"))
    return rows


def render_list(found: list[FoundJob]) -> RenderableType:
    shown = table("job", "state", "rows", "begun", "output", right=("rows",))
    for each in found:
        done = _rows_done(each.status) if each.status else None
        output = str(each.status.path) if each.status else each.submission.output if each.submission else ""
        shown.add_row(
            Text(each.submission.submission_id if each.submission else _name(each), "name"),
            Text(each.state, _STYLES.get(each.state, "")),
            f"{done[0]:,}/{done[1]:,}" if done else "",
            _begun(each.started_at_s),
            printable(output),
        )
    return shown


def watch_job(read: Callable[[], FoundJob]) -> None:
    """Until the job has ended or Ctrl-C is pressed, which leaves the job alone."""
    from rich.live import Live

    found = read()
    try:
        with Live(render(found), console=stdout(), auto_refresh=False) as live:
            while not found.has_ended:
                time.sleep(_WATCH_PERIOD_S)
                found = read()
                live.update(render(found), refresh=True)
    except KeyboardInterrupt:
        return


def job_fields(found: FoundJob) -> dict[str, Any]:
    """For scripts: what `render` shows, in plain values."""
    status, submission = found.status, found.submission
    progress = status.progress if status else None
    contents = status.contents if status else None
    writer = status.writer if status else None
    return {
        "job": _name(found),
        "state": found.state,
        "output": str(status.path) if status else submission.output if submission else "",
        "submission": None if submission is None else asdict(submission),
        "driver": None if writer is None else {"host": writer.host, "pid": writer.pid, "started_at": writer.started_at},
        "progress": None if progress is None else {**asdict(progress), "state": progress.state.value},
        "finished": None
        if contents is None
        else {
            "complete": contents.complete,
            "shards": len(contents.shards),
            "num_shards": contents.num_shards,
            "rows": contents.rows,
            "tokens": contents.tokens,
        },
        "problem": status.problem if status else "",
    }


def report_fields(report: VerifyReport) -> dict[str, Any]:
    problems = [{**asdict(each), "problem": each.problem.value} for each in report.problems]
    return {**asdict(report), "sound": report.sound, "problems": problems}


def render_findings(output: Path, report: VerifyReport) -> RenderableType:
    rows = facts()
    rows.add_row("output", printable(str(output)))
    rows.add_row("shards", f"{report.num_finished:,} of {report.num_shards:,} finished, {megabytes(report.bytes)}")
    rows.add_row("rows", f"{report.rows:,}")
    rows.add_row("tokens", f"{report.tokens:,}")
    if report.sound:
        what = "sound and complete" if report.complete else "sound so far; the job has not finished"
        rows.add_row("verdict", Text(what, "good" if report.complete else "warn"))
        return rows
    rows.add_row("verdict", Text(f"{len(report.problems):,} problems", "failure"))
    findings = table("file", "problem", "detail")
    for each in report.problems[:_MOST_FINDINGS]:
        findings.add_row(printable(each.file), Text(each.problem.value, "failure"), printable(each.detail))
    left = len(report.problems) - _MOST_FINDINGS
    more = [Text(f"and {left:,} more; --json lists them all", "quiet")] if left > 0 else []
    return Group(rows, Text(), findings, *more)


def _name(found: FoundJob) -> str:
    status, submission = found.status, found.submission
    known = [submission.job if submission else "", status.spec.get("job", "") if status else ""]
    if status is not None and status.progress is not None:
        known.append(status.progress.job)
    return next((name for name in known if name), "?")


def _state(found: FoundJob) -> Text:
    text = Text(found.state, _STYLES.get(found.state, ""))
    status = found.status
    if status is not None and status.writer is not None:
        text.append(f"  process {status.writer.pid} on {status.writer.host}", "quiet")
    return text


def _add_progress(rows: Any, status: OutputStatus) -> None:
    progress, done = status.progress, _rows_done(status)
    if progress is None or done is None:
        return
    rows.add_row("rows", _bar(*done, progress.num_errors))
    if status.writer is None:
        if progress.tokens and progress.elapsed_s:
            speed = f"{progress.tokens / progress.elapsed_s:,.0f} tokens/s"
            rows.add_row("speed", f"{speed} over the last run of {duration(progress.elapsed_s)}")
        return
    for stage, count in progress.stage_rows.items():
        rows.add_row(f"  {stage}", f"{count:,} rows in this run")
    if progress.tokens:
        of = f" of {progress.num_tokens:,}" if progress.num_tokens else ""
        rows.add_row("speed", f"{progress.tokens_per_s:,.0f} tokens/s; {progress.tokens:,}{of} tokens in this run")
    left = "" if progress.remaining_s is None else f", about {duration(progress.remaining_s)} left"
    rows.add_row("time", f"{duration(progress.elapsed_s)} in this run{left}")


def _rows_done(status: OutputStatus) -> tuple[int, int] | None:
    """Rows done, of how many. Without a driver only those of finished shards are."""
    progress = status.progress
    if progress is None or not progress.num_rows:
        return None
    if status.writer is None and status.contents is not None:
        return status.contents.rows, progress.num_rows
    return progress.rows_done, progress.num_rows


def _bar(done: int, num_rows: int, num_errors: int) -> Text:
    share = done / num_rows
    full = int(share * _BAR_WIDTH)
    bar = Text.assemble(("━" * full, "good" if share == 1 else "hint"), ("━" * (_BAR_WIDTH - full), "quiet"))
    bar.append(f" {int(share * 100)}%  {done:,} of {num_rows:,}")
    if num_errors:
        bar.append(f", {num_errors:,} with an error in this run", "warn")
    return bar


def _add_contents(rows: Any, status: OutputStatus) -> None:
    contents = status.contents
    if contents is None:
        return
    tokens = f", {contents.tokens:,} tokens" if contents.tokens else ""
    rows.add_row(
        "finished", f"{len(contents.shards):,} of {contents.num_shards:,} shards: {contents.rows:,} rows{tokens}"
    )


def _reason(found: FoundJob) -> str:
    if found.status is not None and found.status.progress is not None and found.status.progress.message:
        return found.status.progress.message
    if found.submission is not None and found.submission.state == "FAILED":
        return found.submission.message.partition("\n")[0]
    return ""


def _begun(started_at_s: float) -> str:
    return time.strftime("%m-%d %H:%M", time.localtime(started_at_s)) if started_at_s else ""
