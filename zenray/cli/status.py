"""`zenray status`: is a server up, what does it hold, how busy is it."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from zenray.cli.console import facts, millions, stdout
from zenray.cli.drafters import drafter_line
from zenray.cli.options import DEFAULT_ADDRESS, Address
from zenray.cli.placement import placement_fields, placement_view

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message
    from rich.console import RenderableType

    from zenray.api.client import Client

_WATCH_PERIOD_S = 1.0
_BAR_WIDTH = 24
_TOKEN_COUNTERS = {"generated_tokens": "generated", "scored_tokens": "scored"}


def status(
    address: Address = DEFAULT_ADDRESS,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Every second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object; with --watch one per line.")] = False,
) -> None:
    """Is a server up? Its model, replicas, load, KV memory, drafters and experts. Exit code 1 when none answers."""
    from zenray.api.client import Client

    with Client(address) as client:
        if not watch:
            found = _read(client)
            if as_json:
                typer.echo(json.dumps(found, indent=2))
            else:
                stdout().print(_render(found))
            return
        with contextlib.suppress(KeyboardInterrupt):
            _watch(client, as_json)


def _watch(client: Client, as_json: bool) -> None:
    from rich.live import Live

    if as_json:
        while True:
            typer.echo(json.dumps(_read(client)))
            time.sleep(_WATCH_PERIOD_S)
    found, read_at = _read(client), time.monotonic()
    with Live(_render(found), console=stdout(), auto_refresh=False) as live:
        while True:
            time.sleep(_WATCH_PERIOD_S)
            now, now_at = _read(client), time.monotonic()
            per_second = {
                name: (now["load"][name] - found["load"][name]) / (now_at - read_at) for name in _TOKEN_COUNTERS
            }
            live.update(_render(now, per_second), refresh=True)
            found, read_at = now, now_at


def _read(client: Client) -> dict[str, Any]:
    """Raises CallFailed when nothing answers."""
    info, load = client.model_info().model, client.load()
    counters = load.load
    return {
        "address": client.address,
        "model": {name: getattr(info, name) for name in _field_names(info)},
        "verifier_replicas": load.verifier_replicas,
        "load": {
            **{name: getattr(counters, name) for name in _field_names(counters) if name != "drafters"},
            "drafters": [{name: getattr(entry, name) for name in _field_names(entry)} for entry in counters.drafters],
        },
        "experts": [placement_fields(entry) for entry in load.experts],
    }


def _field_names(message: Message) -> list[str]:
    return [field.name for field in message.DESCRIPTOR.fields]


def _render(found: dict[str, Any], per_second: Mapping[str, float] | None = None) -> RenderableType:
    model, load = found["model"], found["load"]
    used = load["total_blocks"] - load["free_blocks"] - load["cached_blocks"]
    rows = facts()
    rows.add_row("server", Text(f"up at {found['address']}", "good"))
    details = f"{model['architecture']}, {millions(model['num_parameters'])}, {model['weight_format']}"
    rows.add_row("model", Text.assemble((model["name"], "name"), f"  {details}, context {model['context_length']:,}"))
    replicas = found["verifier_replicas"]
    rows.add_row(
        "verifier replicas", Text(str(replicas) if replicas else "none takes requests", "" if replicas else "failure")
    )
    waiting = f"{load['waiting_sequences']} of at most {load['max_waiting_sequences']} waiting"
    full = load["waiting_sequences"] >= load["max_waiting_sequences"] > 0
    rows.add_row("sequences", Text(f"{load['running_sequences']} running, {waiting}", "warn" if full else ""))
    rows.add_row("KV blocks", _blocks(used, load["cached_blocks"], load["total_blocks"]))
    for name, shown_as in _TOKEN_COUNTERS.items():
        if load[name] or name == "generated_tokens":
            speed = "" if per_second is None else f", {per_second[name]:.1f} tokens/s now"
            rows.add_row(shown_as, f"{load[name]:,} tokens since start{speed}")
    if load["rounds"]:
        rows.add_row("rounds", f"{load['rounds']:,}, {load['generated_tokens'] / load['rounds']:.2f} tokens each")
    for drafter in load["drafters"]:
        rows.add_row(f"drafts, {drafter['drafter']}", drafter_line(drafter))
    share = load["cached_prompt_tokens"] / load["prompt_tokens"] if load["prompt_tokens"] else 0.0
    rows.add_row("prompts", f"{load['prompt_tokens']:,} tokens, {share:.0%} from the prefix cache")
    if load["preemptions"]:
        rows.add_row("preemptions", f"{load['preemptions']:,}")
    shown: list[RenderableType] = [rows]
    for experts in found["experts"]:
        shown += ["", Text(f"experts of verifier {experts['replica_id']}", "name"), placement_view(experts)]
    return Group(*shown)


def _blocks(used: int, cached: int, total: int) -> Text:
    """Used, cached and free blocks as one bar and in numbers."""
    full, kept = (round(_BAR_WIDTH * count / total) if total else 0 for count in (used, cached))
    kept = min(kept, _BAR_WIDTH - full)
    bar = Text.assemble(("█" * full, "warn"), ("▒" * kept, "good"), ("░" * (_BAR_WIDTH - full - kept), "quiet"))
    return bar.append(f" {used:,} in use, {cached:,} cached, {total:,} in all")
