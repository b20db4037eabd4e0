"""`zenray models`: what can be served, what is here, and what a file holds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer
from rich.text import Text

from zenray.cli.console import facts, megabytes, millions, stderr, stdout, table
from zenray.cli.options import model_completions

if TYPE_CHECKING:
    from zenray.config import WeightFormat
    from zenray.model.catalog import CatalogEntry

app = typer.Typer(no_args_is_help=True, help="List, fetch, examine and import models.")


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False) -> None:
    """The models zenray knows by name, and which of them are on this machine."""
    from zenray.model.catalog import Catalog, models_folder

    entries = list(Catalog.load().entries.values())
    if as_json:
        typer.echo(json.dumps([{**e.model_dump(mode="json"), "state": _state(e)} for e in entries], indent=2))
        return
    shown = table("name", "weights", "size", "infill", "licence", "state", right=("weights", "size"))
    for entry in entries:
        state = _state(entry)
        style = {"ready": "good", "damaged": "failure", "partial": "warn"}.get(state, "quiet")
        shown.add_row(
            Text(entry.name, "name"),
            millions(entry.parameters),
            megabytes(entry.size_bytes),
            "yes" if entry.fim else "no",
            entry.license,
            Text(state, style),
        )
    stdout().print(shown)
    stdout().print(Text(f"\nin {models_folder()}; fetch one: zenray models pull NAME", "quiet"))


@app.command()
def pull(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", autocompletion=model_completions, help="Names of `zenray models list`."),
    ],
) -> None:
    """Fetch models: resumes, checks the SHA-256, and works offline from then on."""
    from zenray.cli.progress import pull_with_progress
    from zenray.model.catalog import Catalog

    catalog = Catalog.load()
    for name in [catalog.entry(name).name for name in names]:
        started = time.monotonic()
        path = pull_with_progress(name)
        took = time.monotonic() - started
        entry = Catalog.load().entry(name)  # a model that is made here gets its hash by it
        line = f"{name} is ready: {megabytes(entry.size_bytes)}, SHA-256 verified, {took:.1f} s"
        stdout().print(Text(line, "good"))
        stdout().print(Text(f"  {path}", "quiet"))


@app.command()
def inspect(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            autocompletion=model_completions,
            help="A catalog name, a GGUF file or a safetensors folder.",
        ),
    ],
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read the whole file again instead of trusting the record.")
    ] = False,
    quality: Annotated[
        bool, typer.Option("--quality", help="Measure every weight format against bf16 on held-out code (minutes).")
    ] = False,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="Only this one of --quality. Repeatable.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """What a model file holds: architecture, tensor types, memory per weight format, licence, hash."""
    from zenray.cli import quality as measuring
    from zenray.cli.inspect import inspect_model, show_inspection

    chosen = _formats(formats or list(measuring.FORMATS))
    found = inspect_model(name, rehash=rehash)
    if not as_json:
        show_inspection(found)
    reports = measuring.measure(found.path, chosen) if quality else []
    if as_json:
        values = {**found.as_dict(), **({"quality": measuring.as_dicts(reports)} if quality else {})}
        typer.echo(json.dumps(values, indent=2))
    elif quality:
        measuring.show(reports)


@app.command("import")
def import_model(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A GGUF file, or a folder with config.json and safetensors.")
    ],
    name: Annotated[
        str | None, typer.Option(help="Under this name. Default: the file's own.", show_default=False)
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Use the file where it lies instead of copying it.")] = False,
    license_name: Annotated[
        str | None, typer.Option("--license", help="Default: what the file says of itself.", show_default=False)
    ] = None,
) -> None:
    """Make a model of yours servable by name. A file the catalog knows is recognised by its hash."""
    from zenray.cli.progress import hashing
    from zenray.model.importing import import_model as run_import

    with hashing(path.name) as progress:
        entry = run_import(path, name, link=link, license_name=license_name, progress=progress)
    _say_ready(entry, {})


@app.command()
def upcycle(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            autocompletion=model_completions,
            help="A dense model: a catalog name, a GGUF file or a safetensors folder.",
        ),
    ],
    name: Annotated[str, typer.Option("--output", "-o", metavar="NAME", help="Catalog name of the new model.")],
    num_experts: Annotated[int, typer.Option("--experts", help="Experts of each layer; a multiple of --top-k.")] = 16,
    top_k: Annotated[int, typer.Option("--top-k", help="Experts that each token passes through.")] = 2,
    expert_dim: Annotated[
        int | None,
        typer.Option(
            help="Neurons of one expert; fewer than the default drops the least important.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the router's directions and of the noise.")] = 0,
    noise: Annotated[
        float, typer.Option(help="On every copy but the first, relative to a matrix's root mean square; for training.")
    ] = 0.0,
    dtype: Annotated[
        str | None,
        typer.Option(help="float16, bfloat16 or float32. Default: the source's own.", show_default=False),
    ] = None,
) -> None:
    """Make a mixture of experts that computes what a dense model does, to serve or to train further."""
    from zenray.cli.progress import pull_with_progress
    from zenray.model.catalog import Catalog
    from zenray.model.upcycle_store import new_entry, router_imbalance, settings_of

    settings = settings_of(
        num_experts=num_experts, top_k=top_k, expert_dim=expert_dim, seed=seed, noise=noise, dtype=dtype
    )
    started = time.monotonic()
    entry = new_entry(name, source, settings)
    pull_with_progress(entry)
    entry = Catalog.load().entry(name)
    _say_ready(
        entry,
        {
            "took": f"{time.monotonic() - started:.1f} s",
            "router": f"the busiest copy gets {router_imbalance(entry.path):.2f} times its share of the text",
        },
    )


def _say_ready(entry: CatalogEntry, more: dict[str, str]) -> None:
    line = f"{entry.name} is ready: {entry.architecture}, {millions(entry.parameters)} parameters, "
    stdout().print(Text(f"{line}{megabytes(entry.size_bytes)}", "good"))
    rows = facts()
    rows.add_row("  at", str(entry.path))
    rows.add_row("  sha256", entry.sha256)
    for what, value in more.items():
        rows.add_row(f"  {what}", value)
    rows.add_row("  serve it", f"zenray serve --set model.name={entry.name}")
    stderr().print(rows)


def _formats(names: list[str]) -> list[WeightFormat]:
    from zenray.config import WeightFormat

    known = get_args(WeightFormat)
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"--format is {name!r}; allowed: {', '.join(known)}")
    return [cast("WeightFormat", name) for name in names]


def _state(entry: CatalogEntry) -> str:
    """Without reading the file: what its size and the remembered hash tell."""
    from zenray.model import digest

    path = entry.path
    if entry.sha256 is None or not path.exists():
        partial = path.parent / ".partial" / entry.name
        started = partial.is_dir() and any(partial.iterdir())
        return "partial" if started else "not here" if entry.sources else "missing"
    if digest.size_bytes(path) != entry.size_bytes:
        return "damaged"
    recalled = digest.remembered(path)
    if recalled is None:
        return "unverified"
    return "ready" if recalled == entry.sha256 else "damaged"
