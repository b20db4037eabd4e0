"""Options and completions that several commands share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

DEFAULT_ADDRESS = "127.0.0.1:9000"
_ADDRESS = re.compile(r"(unix:.+|(\[[0-9a-fA-F:.]+\]|[^:/\s]+):(?P<port>\d{1,5}))\Z")


def _checked_address(value: str) -> str:
    match = _ADDRESS.match(value)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise typer.BadParameter(f"{value!r} is no address; allowed: HOST:PORT of the gRPC door, or unix:PATH")
    return value


Address = Annotated[
    str,
    typer.Option(
        "--address",
        "-a",
        envvar="ZENRAY_ADDRESS",
        metavar="HOST:PORT",
        callback=_checked_address,
        help="Where the server's gRPC door is.",
    ),
]


def profile_completions() -> list[str]:
    """For the shell."""
    from zenray.config_load import profile_names

    return profile_names()


def model_completions() -> list[str]:
    """For the shell."""
    from zenray.model.catalog import Catalog

    return list(Catalog.load().entries)
