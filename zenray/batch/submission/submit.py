"""Ray's job server: it runs a job's driver on the cluster, so that the job outlives the terminal it was submitted from.

Whoever may submit a job may run anything. So Ray's server takes Ray's token, which is sent along from here (see
zenray/serving/environment.py), and one that zenray starts listens on the loopback alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zenray.serving  # noqa: F401 - sets Ray's environment, the token's part of it included
from zenray.errors import ConfigError, NotFound, Unavailable

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

NOT_SHIPPED = (
    *("*.safetensors", "*.gguf", "*.pt", "*.bin"),
    *(".git", ".venv", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"),
)
"""What of a working folder stays here, besides what .gitignore names. Weights are where the verifiers are: a job
gets even the tokenizer from them."""

_JOB, _OUTPUT = "zenray_job", "zenray_output"


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A job the server knows. Times are Unix seconds; `state` is Ray's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED.

    `output` is where the driver writes, as it was submitted; empty where the submission does not tell.
    """

    submission_id: str
    job: str
    output: str
    state: str
    message: str
    entrypoint: str
    started_at_s: float | None
    ended_at_s: float | None

    @property
    def has_ended(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")


class JobServer:
    """A connection to the job server at `address`: http://HOST:PORT, or HOST:PORT of its cluster's head. Without one,
    to that of the Ray on this machine."""

    def __init__(self, address: str | None = None) -> None:
        """Raises Unavailable where none answers, ConfigError where it refuses the token or is none."""
        self._client = _connect(address)
        self.address: str = self._client.get_address()

    def submit(
        self, job: str, arguments: Sequence[str], output: str, *, folder: Path | None, working_dir: Path | None
    ) -> str:
        """Have `zenray jobs submit JOB ARGUMENTS` run there; the submission's id.

        It runs in `folder` of that machine, or in a copy of `working_dir` that is uploaded. Raises ConfigError for one
        that is too large.
        """
        submission_id = f"{job}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        try:
            return self._client.submit_job(
                entrypoint=entrypoint(job, arguments, folder),
                submission_id=submission_id,
                runtime_env=runtime_env(working_dir),
                metadata={_JOB: job, _OUTPUT: output},
            )
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{self.address} does not take the job: {_first_line(error)}") from error

    def jobs(self) -> list[SubmittedJob]:
        """Submitted jobs, the latest first; not those of drivers that attached by themselves."""
        found = [_submitted(each) for each in self._client.list_jobs() if each.submission_id]
        return sorted(found, key=lambda each: each.started_at_s or 0.0, reverse=True)

    def job(self, submission_id: str) -> SubmittedJob:
        """Raises NotFound with the nearest id."""
        jobs = {each.submission_id: each for each in self.jobs()}
        if submission_id not in jobs:
            raise NotFound("submitted job", submission_id, jobs)
        return jobs[submission_id]

    def logs(self, submission_id: str) -> str:
        """What the driver has said so far."""
        text: str = self._client.get_job_logs(submission_id)
        return text

    def follow(self, submission_id: str) -> Iterator[str]:
        """What the driver says, from its beginning to its end."""
        with asyncio.Runner() as runner:
            lines = self._client.tail_job_logs(submission_id)
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield runner.run(_next(lines))

    def cancel(self, submission_id: str) -> bool:
        """Ask the driver to stop; what it has finished stays. False when it had ended before."""
        return bool(self._client.stop_job(submission_id))


def entrypoint(job: str, arguments: Sequence[str], folder: Path | None = None) -> str:
    """The driver's command line. Its `python` is the cluster's."""
    command = shlex.join(["python", "-m", "zenray.cli.main", "jobs", "submit", job, *arguments])
    return command if folder is None else f"cd {shlex.quote(str(folder))} && exec {command}"


def runtime_env(working_dir: Path | None) -> dict[str, Any] | None:
    return None if working_dir is None else {"working_dir": str(working_dir), "excludes": list(NOT_SHIPPED)}


async def _next(lines: Any) -> str:
    text: str = await anext(lines)
    return text


def _connect(address: str | None) -> JobSubmissionClient:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in ("job.sdk", "dashboard_sdk"):  # Uploads and closed sockets are their affair.
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    where = address or "on this machine"
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ConfigError(
            f"the job server {where} refuses this machine's token; the cluster's belongs into ~/.ray/auth_token, or "
            "its file's path into RAY_AUTH_TOKEN_PATH"
        ) from error
    except Exception as error:  # Ray raises what its HTTP library, its control store or its parser raise
        raise Unavailable(f"no job server answers {where}: {_first_line(error)}") from error


def _submitted(details: JobDetails) -> SubmittedJob:
    metadata: Mapping[str, str] = details.metadata or {}
    words = _words(details.entrypoint)
    return SubmittedJob(
        submission_id=str(details.submission_id),
        job=metadata.get(_JOB, ""),
        output=metadata.get(_OUTPUT) or _value_after("--output", words),
        state=details.status.value,
        message=details.message or "",
        entrypoint=details.entrypoint,
        started_at_s=None if details.start_time is None else details.start_time / 1000,
        ended_at_s=None if not details.end_time else details.end_time / 1000,
    )


def _words(entrypoint: str) -> list[str]:
    try:
        return shlex.split(entrypoint)
    except ValueError:
        return []


def _value_after(option: str, words: Sequence[str]) -> str:
    """The value of `--option VALUE` or `--option=VALUE`, if it is a whole path."""
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            value = value if equals else "".join(words[index + 1 : index + 2])
            return value if Path(value).is_absolute() else ""
    return ""


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
