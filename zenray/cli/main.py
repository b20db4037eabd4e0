"""The `zenray` command. Commands import what they need when they run, so `--help` answers at once."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from zenray import __version__
from zenray.cli import complete, config, index, jobs, models, plan, serve, status
from zenray.cli.failures import show_failure
from zenray.errors import ZenrayError


class _RootGroup(TyperGroup):
    """Turns every error a command raises into one clear line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ZenrayError as error:
            if ctx.params.get("debug"):
                raise
            show_failure(error)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            # A reader that left (EPIPE) and a wrong command line are typer's to end.
            left = isinstance(error, OSError) and error.errno == errno.EPIPE
            if ctx.params.get("debug") or left or isinstance(error, _USAGE_ERROR):
                raise
            show_failure(error)
        raise typer.Exit(1)


_USAGE_ERROR = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="zenray",
    cls=_RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve a code-completion model at keystroke latency, and try it from the terminal.",
    epilog="First steps: zenray serve, then in another terminal: zenray complete path/to/file.py:LINE:COL",
)
app.command()(serve.serve)
app.command(no_args_is_help=True)(complete.complete)
app.command(no_args_is_help=True, epilog=index.EPILOG)(index.index)
app.add_typer(models.app, name="models")
app.add_typer(jobs.app, name="jobs")
app.command()(status.status)
app.command(no_args_is_help=True, epilog=plan.EPILOG)(plan.plan)
app.add_typer(config.app, name="config")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zenray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="ZENRAY_DEBUG", help="Show the Python traceback of an error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Measure an engine or a server: latency, throughput, achieved bandwidth.",
)
def bench(ctx: typer.Context) -> None:
    # Handed on whole: importing the benchmark's own commands for every `zenray --help` would be felt.
    from zenray.bench.cli import app as bench_app

    typer.main.get_command(bench_app).main(args=ctx.args, prog_name="zenray bench")


@app.command()
def version() -> None:
    """Print the versions of zenray and of what it stands on."""
    import platform
    from importlib import metadata

    typer.echo(f"zenray {__version__}")
    typer.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("torch", "ray", "grpcio", "protobuf"):
        try:
            typer.echo(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            typer.echo(f"{package} is not installed")


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A character the terminal's encoding lacks is shown escaped instead of ending the command.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    # grpc's own log lines belong to its developers; a failed call says what happened.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


if __name__ == "__main__":
    main()
