"""`zenray config`: see what a profile, a file and --set amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from zenray.cli.console import stdout, table

app = typer.Typer(no_args_is_help=True, help="Look at profiles and at the configuration they make.")


@app.command("list")
def list_profiles() -> None:
    """The profiles that come with zenray."""
    from zenray.config_load import DEFAULT_PROFILE, load_config, profile_names, profile_text

    shown = table("profile", "model", "weights", "device", "what for")
    for name in profile_names():
        config = load_config(name)
        title = profile_text(name).partition("\n")[0].removeprefix("# ")
        shown.add_row(
            Text(name + (" (default)" if name == DEFAULT_PROFILE else ""), "name"),
            config.model.name,
            config.model.weight_format,
            config.model.device,
            title,
        )
    stdout().print(shown)


@app.command()
def show(
    profile: Annotated[str, typer.Option("--profile", "-p", help="Start from this profile.")] = "local",
    file: Annotated[Path | None, typer.Option("--config", "-c", help="Overlaid by this YAML file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overlaid by this value. Repeatable.")
    ] = None,
) -> None:
    """Every key with its value; where it was written stands behind it. The output is a valid --config file."""
    from zenray.config_load import resolve_config

    config, origins = resolve_config(profile, file, overrides or [])
    for section, values in config.model_dump(mode="json").items():
        stdout().print(Text(f"{section}:", "name"))
        for key, value in values.items():
            origin = origins.get((section, key), "")
            line = Text(f"  {key}: {_yaml(value)}")
            if origin:
                line.append(f"  # {origin}", "quiet")
            stdout().print(line)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
