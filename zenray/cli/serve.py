"""`zenray serve`: from nothing to a server that answers, with its progress, and back to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zenray.cli.options import profile_completions


def serve(
    profile: Annotated[
        str,
        typer.Option(
            "--profile", "-p", autocompletion=profile_completions, help="local, tiny or gpu; see zenray config list."
        ),
    ] = "local",
    file: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="YAML laid over the profile.", show_default=False),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Laid over both, such as server.grpc_port=9100. Repeatable."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            show_default=False,
            help="Run on this Ray cluster instead of a Ray of its own: HOST:PORT, or auto on one of its nodes.",
        ),
    ] = None,
) -> None:
    """Pull the model if needed, start Ray and the platform, and say when it is ready. Ctrl-C stops everything."""
    from zenray.config_load import load_config

    config = load_config(profile, file, overrides or [])

    from zenray.cli.serving import run_server

    run_server(config, ray_address)
