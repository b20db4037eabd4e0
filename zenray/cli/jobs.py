"""`zenray jobs`: submit batch jobs to the running actors, watch them, check what they made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from zenray.cli.console import printable, stderr, stdout

if TYPE_CHECKING:
    from zenray.batch.catalog import JobKind


class _JobsGroup(TyperGroup):
    """What comes first is shown first, groups among it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["submit", "status", "list", "logs", "cancel", "show", "acceptance", "verify", "recheck"]


app = typer.Typer(
    cls=_JobsGroup,
    no_args_is_help=True,
    help="Make training data with the actors that serve: submit jobs, watch them, check what they made.",
    epilog="A job writes each part of its output once: whatever is killed, the same command goes on to the same bytes.",
)
_SUBMIT_EPILOG = (
    "zenray jobs submit unit-tests --help lists that job's options. Without --ray-address a job runs on the verifiers "
    "of the zenray that runs on this machine; with --profile it can start the same actors for itself."
)

Target = Annotated[
    str, typer.Argument(metavar="OUTPUT|ID", help="A job's output folder, or a submission's id.", show_default=False)
]
Server = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="The cluster whose job server to ask: http://HOST:8265, or HOST:PORT of its head.",
        show_default="the one on this machine",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


class _SubmitGroup(TyperGroup):
    """A command for each job of the catalog, made when it is asked for: `zenray --help` imports no job."""

    def list_commands(self, ctx: Any) -> list[str]:
        from zenray.batch.catalog import JOBS

        return list(JOBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from zenray.batch.catalog import job_kind

        return _submit_command(job_kind(cmd_name))


def _submit_command(kind: JobKind) -> Any:
    from zenray.cli.jobs_options import with_options
    from zenray.cli.jobs_submit import submit_command

    made = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
    made.command(name=kind.name, help=f"{kind.summary}.", no_args_is_help=True)(
        with_options(submit_command(kind), kind.settings)
    )
    return typer.main.get_command(made)


app.add_typer(
    typer.Typer(
        cls=_SubmitGroup,
        no_args_is_help=True,
        help="Run a job here, or hand it to a cluster's job server.",
        epilog=_SUBMIT_EPILOG,
    ),
    name="submit",
)


@app.command(no_args_is_help=True)
def status(
    target: Target,
    server: Server = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Once a second, until the job ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far is a job, how fast, and when will it be done?"""
    from zenray.cli.jobs_find import find
    from zenray.cli.jobs_view import job_fields, render, watch_job

    if watch and not as_json:
        watch_job(lambda: find(target, server))
        return
    found = find(target, server)
    if as_json:
        typer.echo(json.dumps(job_fields(found), indent=2))
    else:
        stdout().print(render(found))


@app.command("list")
def list_jobs(server: Server = None, as_json: AsJson = False) -> None:
    """The jobs of this machine's folders and of the job server, the latest first."""
    from zenray.cli.jobs_find import find_all
    from zenray.cli.jobs_view import job_fields, render_list

    found = find_all(server)
    if as_json:
        typer.echo(json.dumps([job_fields(each) for each in found], indent=2))
    elif found:
        stdout().print(render_list(found))
    else:
        stderr().print(Text("no job yet; begin one: zenray jobs submit --help", "quiet"))


@app.command(no_args_is_help=True)
def logs(
    target: Target,
    server: Server = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """What a job that runs without a terminal has said."""
    from zenray.cli.jobs_find import find, log_lines

    for text in log_lines(find(target, server), server, follow=follow):
        typer.echo(printable(text), nl=False)


@app.command(no_args_is_help=True)
def cancel(target: Target, server: Server = None) -> None:
    """End a job, whoever runs it. What it has finished stays, and the same submission goes on from there."""
    from zenray.cli.jobs_find import cancel_job, find

    stdout().print(Text(cancel_job(find(target, server), server)))


@app.command(no_args_is_help=True)
def verify(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A job's output folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check every byte of an output: sums, checksums, schema, planned rows, and that its job can read every row. Exit
    code 1 when something is wrong."""
    from zenray.batch.catalog import JOBS
    from zenray.batch.output.verify import verify_output
    from zenray.batch.submission.status import read_status
    from zenray.cli.jobs_view import render_findings, report_fields

    kind = JOBS.get(read_status(output).spec.get("job", ""))  # Says what is no output at all.
    report = verify_output(output, kind.row_problems if kind else None)
    if as_json:
        typer.echo(json.dumps(report_fields(report), indent=2))
    else:
        stdout().print(render_findings(output, report))
    if not report.sound:
        raise typer.Exit(1)


@app.command(no_args_is_help=True)
def show(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The output of a teacher-logits job.", show_default=False)
    ],
    row: Annotated[int, typer.Option(min=0, help="Which sequence, from 0.")] = 0,
    surprises: Annotated[
        int, typer.Option(min=0, help="Tokens of each text that the teacher expected least, with what it expected.")
    ] = 5,
    model: Annotated[
        str | None,
        typer.Option(help="Whose tokenizer spells the tokens: a catalog name or a path.", show_default="the teacher"),
    ] = None,
) -> None:
    """Look at one sequence of records: its text, coloured by what the teacher thought of each token."""
    from zenray.batch.teacher_logits.reading.reader import RecordReader
    from zenray.cli.jobs_show import show as rendered

    _refuse_other_jobs(output, "teacher-logits", "records to look at")
    stdout().print(rendered(RecordReader(output), row, surprises, model))


@app.command(no_args_is_help=True)
def acceptance(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The output of a teacher-logits job.", show_default=False)
    ],
    draft: Annotated[
        str,
        typer.Option(metavar="MODEL", help="A catalog name or a path; of the teacher's tokenizer.", show_default=False),
    ],
    gamma: Annotated[int, typer.Option(min=1, max=64, help="Tokens of a draft.")] = 8,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many records.", show_default="all of them")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the draft model; 0 takes one per core.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How much of a draft model's guesses would the teacher accept? Found without running speculation, or the teacher:
    by place in a draft and by language."""
    from zenray.batch.teacher_logits.reading.reader import RecordReader
    from zenray.cli.jobs_acceptance import acceptance as measured
    from zenray.cli.jobs_acceptance import render, save

    _refuse_other_jobs(output, "teacher-logits", "records to draft against")
    report = measured(RecordReader(output), draft, gamma, max_tokens, threads)
    picture = save(report, output)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        stdout().print(render(report, picture))


@app.command(no_args_is_help=True)
def recheck(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The output of a unit-tests job.", show_default=False)
    ],
    sample: Annotated[int, typer.Option(min=0, help="Functions whose mutation score and coverage to measure.")] = 20,
    workers: Annotated[int, typer.Option(min=0, help="Sandboxes at once; 0 takes one per core.")] = 0,
) -> None:
    """Run every kept test again, under plain pytest, and measure a sample's scores by other means. Exit code 1 when
    something differs."""
    from zenray.batch.unit_tests.results import recheck as again

    _refuse_other_jobs(output, "unit-tests", "tests to run again")
    options = ["--sample", str(sample), *(["--workers", str(workers)] if workers else [])]
    raise typer.Exit(again.main([str(output), *options]))


def _refuse_other_jobs(output: Path, job: str, what: str) -> None:
    """Raises ConfigError for the output of another job, which has no such thing, and as `read_status`."""
    from zenray.batch.submission.status import read_status
    from zenray.errors import ConfigError

    found = read_status(output).spec.get("job")
    if found != job:
        raise ConfigError(f"{output} is of job {found}; only outputs of {job} have {what}")
