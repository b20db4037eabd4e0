"""What `zenray jobs submit` does: check what can be known at once, then run the job here or hand it to a server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from zenray.cli.console import printable, stderr
from zenray.cli.jobs_checks import check_input, check_output, check_there, cluster_address, parse_input
from zenray.cli.options import profile_completions
from zenray.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from zenray.batch.catalog import JobKind
    from zenray.batch.submission.submit import JobServer
    from zenray.config import Settings

_PLACE = "Where it runs (none of it changes the output)"
_INTERRUPTED = 130

Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        "-i",
        metavar="INPUT",
        help="A folder, archive, JSONL or Parquet file, or git+URL@REVISION#subdirectory=DIR; on disk or at a URL that "
        "pyarrow or fsspec opens. Repeatable.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="New, or begun by the same command: then the job goes on where it ended.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="Another seed, other samples.")]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        autocompletion=profile_completions,
        help="Where no verifier runs, start this profile's actors for the job, and stop them after it.",
        rich_help_panel=_PLACE,
        show_default=False,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML over the profile.", rich_help_panel=_PLACE, show_default=False
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Laid over both. Repeatable.", rich_help_panel=_PLACE),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="HOST:PORT of a cluster's head: the driver runs here. http://HOST:8265, its job server: the driver runs "
        "there. local: start a Ray for the job.",
        rich_help_panel=_PLACE,
        show_default="the Ray on this machine",
    ),
]
WorkingDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="For a job server: upload this folder and run in the copy, so that --input can name what is in it. "
        "Weights, .git and what .gitignore names stay here.",
        rich_help_panel=_PLACE,
        show_default=False,
    ),
]
Workers = Annotated[
    int, typer.Option(min=1, help="Worker processes of each stage.", rich_help_panel=_PLACE, show_default=True)
]
Detach = Annotated[
    bool,
    typer.Option("--detach", "-d", help="Give the prompt back and run in the background.", rich_help_panel=_PLACE),
]


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it was asked for on the command line."""

    kind: JobKind
    inputs: tuple[str, ...]
    output: Path
    seed: int
    settings: Settings
    profile: str | None
    config: Path | None
    overrides: tuple[str, ...]
    ray_address: str | None
    workers: int

    def arguments(self) -> list[str]:
        """The command's options again, without those that say where the driver runs."""
        from zenray.cli.jobs_options import as_arguments

        words = [word for each in self.inputs for word in ("--input", each)]
        words += ["--output", str(self.output), "--seed", str(self.seed), "--workers", str(self.workers)]
        words += ["--profile", self.profile] if self.profile else []
        words += ["--config", str(self.config)] if self.config else []
        words += [word for each in self.overrides for word in ("--set", each)]
        return words + as_arguments(self.settings)


def submit_command(kind: JobKind) -> Callable[..., None]:
    """The command of a job, without the options of its settings."""

    def submit(
        inputs: Inputs,
        output: Output,
        settings: Any,
        seed: Seed = 0,
        profile: Profile = None,
        config: ConfigFile = None,
        overrides: Overrides = None,
        ray_address: RayAddress = None,
        working_dir: WorkingDir = None,
        workers: Workers = 1,
        detach: Detach = False,
    ) -> None:
        submission = Submission(
            *(kind, tuple(inputs), output, seed, settings),
            *(profile, config, tuple(overrides or ()), ray_address, workers),
        )
        if (ray_address or "").startswith(("http://", "https://")):
            from zenray.batch.submission.submit import JobServer

            check_there(submission.inputs, submission.output, working_dir)
            _hand_over(submission, JobServer(ray_address), str(output), working_dir=working_dir, detach=detach)
            return
        if working_dir is not None:
            raise typer.BadParameter("--working-dir is for a job server: --ray-address http://HOST:8265")
        _check(submission)
        if detach:
            _detach(submission)
        else:
            _run_here(submission)

    return submit


def _check(submission: Submission) -> None:
    """What would fail anyway, before anything is started or fetched."""
    from zenray.batch.submission.recent import remember

    for text in submission.inputs:
        check_input(parse_input(text))
    check_output(submission.output)
    if submission.profile is None and (submission.config or submission.overrides):
        raise typer.BadParameter("--config and --set lie over a profile; name one: --profile local")
    if cluster_address(submission.ray_address) is None and submission.profile is None:
        raise ConfigError(
            "no Ray runs on this machine whose verifiers could answer; "
            "start one: zenray serve      or have the job start its own: --profile local"
        )
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        submission.kind.check()  # A submitted job's driver may be on a machine that validates nothing.
    remember(submission.output)


def _run_here(submission: Submission) -> None:
    from zenray.batch.running.pipeline import JobStopped, RunSettings, run_job
    from zenray.config_load import load_config

    # The driver's part of Ray writes its own affairs to the terminal, such as notes to Ray Data's authors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    platform = None
    address = cluster_address(submission.ray_address)
    if submission.profile is not None:
        platform = load_config(submission.profile, submission.config, submission.overrides)
        if address is None:
            _prepare_models(platform)
    job = submission.kind.make([parse_input(text) for text in submission.inputs], submission.seed, submission.settings)
    settings = RunSettings(address, platform, submission.workers)
    try:
        summary = run_job(job, submission.output, settings, _say)
    except JobStopped as stopped:
        stderr().print(Text(str(stopped), "warn"))
        raise typer.Exit(_INTERRUPTED) from None
    stderr().print(Text.assemble(("✓ ", "good"), printable(str(summary))))
    beside = [(name, "Parquet, beside the shards") for name in job.companions]
    for name, what in (("shards", "Parquet"), *beside, ("tests", "a pytest tree"), ("report", "the report")):
        if (submission.output / name).is_dir():
            stderr().print(Text(f"  {submission.output / name}  {what}", "quiet"))


def _say(what: str) -> None:
    stderr().print(Text(printable(what), "quiet"))


def _prepare_models(config: Any) -> None:
    from zenray.cli.serving import prepare_models

    prepare_models(config)


def _detach(submission: Submission) -> None:
    """To the job server of the Ray that runs on this machine; else as a process that outlives the terminal."""
    from zenray.batch.submission.submit import JobServer

    address = cluster_address(submission.ray_address)
    server = None
    if address is not None and submission.ray_address in (None, "auto"):
        with contextlib.suppress(Unavailable):
            server = JobServer(address)
    if server is None:
        _spawn(submission, address)
    else:
        _hand_over(submission, server, str(submission.output.absolute()), folder=Path.cwd(), detach=True)


def _hand_over(
    submission: Submission,
    server: JobServer,
    output: str,
    *,
    folder: Path | None = None,
    working_dir: Path | None = None,
    detach: bool,
) -> None:
    """The driver runs there, in `folder` or in a copy of `working_dir`. Without `detach`, shows what it says."""
    submission_id = server.submit(
        submission.kind.name, submission.arguments(), output, folder=folder, working_dir=working_dir
    )
    where = f" --ray-address {server.address}"
    stderr().print(Text.assemble(("✓ ", "good"), f"submitted to {server.address}: ", (submission_id, "name")))
    if detach:
        _say_next(submission_id, where)
        return
    try:
        for text in server.follow(submission_id):
            typer.echo(printable(text), nl=False, err=True)
    except KeyboardInterrupt:
        if sys.stdin.isatty() and typer.confirm("\ncancel the job? Otherwise it goes on", default=False, err=True):
            server.cancel(submission_id)
            stderr().print(Text("told to stop; what it has finished stays, and the same command goes on", "warn"))
        else:
            _say_next(submission_id, where)
        raise typer.Exit(_INTERRUPTED) from None
    if server.job(submission_id).state != "SUCCEEDED":
        raise typer.Exit(1)


def _spawn(submission: Submission, address: str | None) -> None:
    from zenray.batch.output.layout import RUNS
    from zenray.batch.submission.status import RUN_LOG, note_driver

    command = [sys.executable, "-m", "zenray.cli.main", "jobs", "submit", submission.kind.name, *submission.arguments()]
    command += ["--ray-address", address or "local"]
    runs = submission.output / RUNS
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with (runs / RUN_LOG).open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        note_driver(submission.output, process.pid)
    except OSError as error:
        raise ConfigError(f"{runs} cannot be written: {error.strerror}") from error
    stderr().print(Text.assemble(("✓ ", "good"), "running in the background as process ", (str(process.pid), "name")))
    _say_next(str(submission.output), "")


def _say_next(target: str, where: str) -> None:
    for what in ("status --watch", "logs --follow", "cancel"):
        stderr().print(Text(f"  zenray jobs {what} {target}{where}"))
