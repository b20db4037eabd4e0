"""A job by what a user calls it: its output folder, or the id that a job server gave it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zenray.batch.submission.recent import recent_outputs
from zenray.batch.submission.status import OutputStatus, log_of, read_status, stop_writer
from zenray.errors import ConfigError, NotFound, Unavailable

if TYPE_CHECKING:
    from zenray.batch.submission.submit import JobServer, SubmittedJob

_FOLLOW_PERIOD_S = 0.5


@dataclass(frozen=True, slots=True)
class FoundJob:
    """What is known of a job: its output as far as this machine sees it, its submission as far as there is a server."""

    status: OutputStatus | None
    submission: SubmittedJob | None

    @property
    def state(self) -> str:
        """The folder knows best, except of a driver that has not reached it or ended before it could."""
        submission, status = self.submission, self.status
        if status is not None and (submission is None or status.started_at_s >= int(submission.started_at_s or 0)):
            return status.state
        if submission is None:
            return "unknown"
        states = {"PENDING": "waiting", "RUNNING": "preparing", "STOPPED": "stopped", "FAILED": "failed"}
        return states.get(submission.state, "complete")

    @property
    def has_ended(self) -> bool:
        if self.submission is not None and not self.submission.has_ended:
            return False
        return self.status is None or self.status.writer is None

    @property
    def started_at_s(self) -> float:
        """Unix seconds; 0 where nothing tells."""
        if self.submission is not None and self.submission.started_at_s is not None:
            return self.submission.started_at_s
        return self.status.started_at_s if self.status is not None else 0.0


def find(target: str, server: str | None) -> FoundJob:
    """Raises NotFound for an id that the server does not know, ConfigError for what is neither id nor output."""
    path = Path(target).expanduser()
    if path.is_dir() or os.sep in target:
        status = read_status(path)
        return FoundJob(status, _submission_of(path.absolute(), _reachable(server)))
    found = _reachable(server)
    if found is None:
        raise ConfigError(f"{target} is no output folder here, and no job server answers that would know it as an id")
    try:
        submission = found.job(target)
    except NotFound as error:
        raise ConfigError(f"{target} is no output folder, and {error}") from error
    return FoundJob(_status_of(submission), submission)


def find_all(server: str | None) -> list[FoundJob]:
    """Jobs of the server, and outputs of this machine that none of those writes; the latest first."""
    reachable = _reachable(server)
    submissions = reachable.jobs() if reachable is not None else []
    found, seen = [], set()
    for submission in submissions:
        is_latest = submission.output not in seen
        seen.add(submission.output)
        found.append(FoundJob(_status_of(submission) if is_latest else None, submission))
    for output in recent_outputs():
        if str(output) not in seen:
            with contextlib.suppress(ConfigError):
                found.append(FoundJob(read_status(output), None))
    return sorted(found, key=lambda each: each.started_at_s, reverse=True)


def log_lines(found: FoundJob, server: str | None, *, follow: bool) -> Iterator[str]:
    """Raises ConfigError where nothing was logged, as by a job that had a terminal."""
    if found.submission is not None:
        from zenray.batch.submission.submit import JobServer

        job_server = JobServer(server)
        if follow and not found.submission.has_ended:
            yield from job_server.follow(found.submission.submission_id)
        else:
            yield job_server.logs(found.submission.submission_id)
        return
    assert found.status is not None
    log = log_of(found.status)
    if log is None:
        raise ConfigError(f"{found.status.path} has no log: its job runs, or ran, in a terminal")
    with log.open(encoding="utf-8", errors="replace") as file:
        while True:
            text = file.read()
            if text:
                yield text
            elif not follow or read_status(found.status.path).writer is None:
                return
            else:
                time.sleep(_FOLLOW_PERIOD_S)


def cancel_job(found: FoundJob, server: str | None) -> str:
    """What was done, in words."""
    if found.submission is not None and not found.submission.has_ended:
        from zenray.batch.submission.submit import JobServer

        JobServer(server).cancel(found.submission.submission_id)
        return f"{found.submission.submission_id} is told to stop; what it has finished stays"
    if found.status is None or found.status.writer is None:
        return f"nothing to cancel: the job is {found.state}"
    writer = stop_writer(found.status)
    return f"process {writer.pid if writer else ''} is told to stop; what it has finished stays"


def _reachable(server: str | None) -> JobServer | None:
    """None where the user named no server and none runs here: folders tell without one."""
    from zenray.batch.submission.submit import JobServer

    try:
        return JobServer(server)
    except Unavailable:
        if server is not None:
            raise
        return None


def _submission_of(output: Path, server: JobServer | None) -> SubmittedJob | None:
    """The latest that writes there."""
    jobs = server.jobs() if server is not None else []
    return next((each for each in jobs if each.output == str(output)), None)


def _status_of(submission: SubmittedJob) -> OutputStatus | None:
    """As far as this machine sees the folder."""
    if not submission.output or not Path(submission.output).is_dir():
        return None
    with contextlib.suppress(ConfigError):
        return read_status(Path(submission.output))
    return None
