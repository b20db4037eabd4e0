"""`zenray plan`: what a model needs before anybody buys or loads anything."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.text import Text

from zenray.cli.console import facts, megabytes, millions, stdout, table
from zenray.cli.options import model_completions

if TYPE_CHECKING:
    from rich.table import Table

    from zenray.experts.model_bytes import FormatOf
    from zenray.experts.scale_plan import ScalePlan, ShardMemory
    from zenray.model.config import ModelConfig

EPILOG = (
    "How to read it: a shard's memory must hold its experts; the leader's, everything else too. More shards divide "
    "the experts only: where the KV cache stands in the way, ask for less context or concurrency. "
    "Example: zenray plan moe-70b --shards 4 --gpu-memory 80 --context 32768 --concurrency 8 --format int4 "
    "--bandwidth 3350"
)
_FORMATS = ("float32", "bf16", "fp8", "int8", "int4", "mixed")


def _checked_format(value: str) -> str:
    if value not in _FORMATS:
        raise typer.BadParameter(f"{value!r} is no weight format; allowed: {', '.join(_FORMATS)}")
    return value


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=lambda: plan_names(),
            help="A preset such as moe-70b, a name from zenray models list, or a path to a config.json, a folder "
            "with one, or a GGUF file.",
            show_default=False,
        ),
    ],
    shards: Annotated[
        int, typer.Option("--shards", "-n", min=1, max=64, help="Processes that share the experts, the leader's too.")
    ] = 1,
    gpu_memory: Annotated[
        float, typer.Option("--gpu-memory", "-g", min=0.001, max=1e6, metavar="GB", help="Of one shard, in 10^9 bytes.")
    ] = 80.0,
    context: Annotated[
        int, typer.Option("--context", "-l", min=1, metavar="TOKENS", help="Of one sequence: prompt and completion.")
    ] = 8192,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Sequences at the same time.")] = 8,
    weight_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            callback=_checked_format,
            help=f"Of the weights: {', '.join(_FORMATS)}. fp8 is reckoned with, but not served.",
        ),
    ] = "bf16",
    gamma: Annotated[int, typer.Option(min=0, max=64, help="Draft tokens a verification step checks.")] = 8,
    acceptance: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that the verifier agrees with a draft token.")
    ] = 0.8,
    redundant_experts: Annotated[
        int, typer.Option(min=0, help="Copies per layer beyond one of each expert, so that losing a shard is no pause.")
    ] = 0,
    prefill_chunk: Annotated[int, typer.Option(min=1, metavar="TOKENS", help="Of one prefill step.")] = 512,
    bandwidth: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="GB/S", help="A shard's memory bandwidth: bounds tokens/s.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, in bytes and tokens.")] = False,
) -> None:
    """Does it fit, on how many shards, and what is the bottleneck? Memory per shard and bytes per token of a model,
    from its architecture alone: nothing is loaded.
    """
    from zenray.experts.model_bytes import PlanFormat, model_bytes
    from zenray.experts.scale_plan import ScalePlan, Wanted

    assert get_args(PlanFormat) == _FORMATS
    config, format_of = _architecture(model, weight_format)
    chosen = cast("PlanFormat", weight_format)
    wanted = Wanted(
        weight_format=chosen,
        num_shards=shards,
        memory_bytes=gpu_memory * 1e9,
        context_length=context,
        concurrency=concurrency,
        gamma=gamma,
        acceptance=acceptance,
        redundant_experts=redundant_experts,
        chunk_tokens=prefill_chunk,
        bytes_per_s=None if bandwidth is None else bandwidth * 1e9,
    )
    made = ScalePlan(config, model_bytes(config, chosen, format_of), wanted)
    if as_json:
        typer.echo(json.dumps({"model": model, **plan_fields(made)}, indent=2))
    else:
        _show(model, made)


def plan_names() -> list[str]:
    """For the shell: presets and the catalog's."""
    from zenray.model.presets import PRESETS

    return [*PRESETS, *model_completions()]


def plan_fields(made: ScalePlan) -> dict[str, Any]:
    """A plan as JSON has it."""
    wanted = made.wanted
    numbers = sorted({1, wanted.concurrency})
    return {
        "parameters": made.config.num_parameters,
        "active_parameters": made.config.num_active_parameters,
        "wanted": asdict(wanted),
        "weights": {**asdict(made.weights), "total": made.weights.total},
        "shards": [{**asdict(shard), "total_bytes": shard.total_bytes} for shard in made.shards],
        "fits": made.fits,
        "fewest_shards": made.fewest_shards,
        "most_sequences": made.most_sequences,
        "bottleneck": made.bottleneck,
        "step_reads": [_reads_fields(made, number) for number in numbers],
    }


def _reads_fields(made: ScalePlan, num_sequences: int) -> dict[str, Any]:
    reads, bytes_per_s = made.reads(num_sequences), made.wanted.bytes_per_s
    return {
        **asdict(reads),
        "weight_bytes_per_verified": reads.weight_bytes_per_verified,
        "weight_bytes_per_committed": reads.weight_bytes_per_committed,
        "kv_bytes_per_committed": reads.kv_bytes / reads.committed_tokens,
        "tokens_per_s_bound": None if bytes_per_s is None else reads.tokens_per_s(bytes_per_s),
    }


def _architecture(model: str, weight_format: str) -> tuple[ModelConfig, FormatOf | None]:
    """The architecture, and what format "mixed" gives each matrix where the file decides."""
    from zenray.errors import ModelFileError, NotFound
    from zenray.model.catalog import PRESET_PREFIX, Catalog
    from zenray.model.hf_config import config_from_hf
    from zenray.model.hf_source import read_json
    from zenray.model.presets import PRESETS

    if (preset := model.removeprefix(PRESET_PREFIX)) in PRESETS:
        return PRESETS[preset], None
    entry = Catalog.load().entries.get(model)
    path = entry.path if entry is not None else Path(model).expanduser()
    if not path.exists():
        if entry is not None:
            raise ModelFileError(f"{model} is not on this machine; fetch it: zenray models pull {model}")
        if "/" in model or path.suffix in (".json", ".gguf"):
            raise ModelFileError(f"{path}: no such file or folder")
        raise NotFound("model", model, plan_names())
    if path.is_dir() or path.suffix == ".json":
        file = path / "config.json" if path.is_dir() else path
        return config_from_hf(read_json(file), str(file)), None

    from zenray.model.convert import open_source
    from zenray.model.formats import matrix_format
    from zenray.model.weights import matrix_parts

    source = open_source(path)

    def format_of(name: str) -> str:
        return matrix_format(name, [source.tensor(part).kind for part in matrix_parts(source.config, name)], "mixed")

    return source.config, format_of if weight_format == "mixed" else None


def _show(model: str, made: ScalePlan) -> None:
    config, wanted = made.config, made.wanted
    console = stdout()
    active = f", {millions(config.num_active_parameters)} active" if config.num_experts else ""
    console.print(Text.assemble((model, "name"), f"  {millions(config.num_parameters)} parameters{active}"))
    rows = facts()
    if config.num_experts:
        per_token = config.num_experts_per_token
        rows.add_row("experts", f"{config.num_experts} a layer, {per_token} of them for each token")
    elif wanted.num_shards > 1:
        rows.add_row("shards", Text("a dense model has no experts to share: the leader holds it all", "warn"))
    rows.add_row("weights", f"{megabytes(made.weights.total)} in {wanted.weight_format}{_not_served(wanted)}")
    if wanted.context_length > config.max_position_embeddings:
        known = f"the model knows {config.max_position_embeddings:,} positions, fewer than the context"
        rows.add_row("context", Text(known, "warn"))
    rows.add_row("fits", _verdict(made))
    rows.add_row("bottleneck", made.bottleneck)
    console.print(rows, "", _memory_table(made), "", _reads_table(made), sep="\n")


def _not_served(wanted: Any) -> str:
    return " (reckoned with, not served)" if wanted.weight_format == "fp8" else ""


def _verdict(made: ScalePlan) -> Text:
    wanted, fewest = made.wanted, made.fewest_shards
    where = f"{wanted.num_shards} x {wanted.memory_bytes / 1e9:g} GB"
    room = f"the leader has room for {made.most_sequences:,} sequences of {wanted.context_length:,} tokens"
    if made.fits:
        least = f", and on {fewest} already" if fewest is not None and fewest < wanted.num_shards else ""
        return Text.assemble((f"yes, on {where}{least}", "good"), f"; {room}")
    if fewest is not None:
        return Text.assemble((f"not on {where}", "failure"), f"; the fewest shards that do: {fewest}")
    why = f"no number of shards helps; {room}" if made.config.num_experts else room
    return Text.assemble((f"not on {where}", "failure"), f"; {why}")


def _memory_table(made: ScalePlan) -> Table:
    leader, *others = made.shards
    num_others = made.wanted.num_shards - 1
    names = [leader.name, *("the other" if num_others == 1 else f"each of {num_others} others" for _ in others)]
    rows = table("memory of a shard", *names, right=tuple(names))

    def add(label: str, style: str, of: Any) -> None:
        rows.add_row(label, *(of(shard) for shard in made.shards), style=style)

    def amount(num_bytes: int) -> str:
        return megabytes(num_bytes) if num_bytes else "-"

    def left(shard: ShardMemory) -> str:
        free = made.wanted.memory_bytes - shard.total_bytes
        return megabytes(free) if free >= 0 else f"{megabytes(-free)} short"

    if made.config.num_experts:
        add("experts held", "", lambda shard: f"{shard.num_experts:,}")
        add("expert weights", "", lambda shard: amount(shard.expert_bytes))
    add("attention, tables, dense weights", "", lambda shard: amount(shard.leader_weight_bytes))
    add("KV cache", "", lambda shard: amount(shard.kv_bytes))
    add("workspace", "", lambda shard: amount(shard.workspace_bytes))
    add("total", "bold", lambda shard: amount(shard.total_bytes))
    add("left", "" if made.fits else "failure", left)
    return rows


def _reads_table(made: ScalePlan) -> Table:
    wanted, config = made.wanted, made.config
    found = [made.reads(number) for number in sorted({1, wanted.concurrency})]
    names = [f"{reads.num_sequences} sequence{'s' * (reads.num_sequences > 1)}" for reads in found]
    rows = table(f"a verification step, γ = {wanted.gamma}", *names, right=tuple(names))
    rows.add_row("tokens verified", *(f"{reads.num_tokens:,}" for reads in found))
    rows.add_row(f"tokens committed, β = {wanted.acceptance:g}", *(f"{reads.committed_tokens:,.1f}" for reads in found))
    if config.num_experts:
        label = f"experts touched, of {config.num_experts} a layer"
        rows.add_row(label, *(f"{reads.distinct_experts:.1f}" for reads in found))
    rows.add_row("weights read", *(megabytes(reads.weight_bytes) for reads in found))
    rows.add_row("  per verified token", *(megabytes(reads.weight_bytes_per_verified) for reads in found))
    rows.add_row("  per committed token", *(megabytes(reads.weight_bytes_per_committed) for reads in found))
    rows.add_row("KV read at full context", *(megabytes(reads.kv_bytes) for reads in found))
    rows.add_row("  per committed token", *(megabytes(reads.kv_bytes / reads.committed_tokens) for reads in found))
    if wanted.bytes_per_s is not None:
        label = f"tokens/s at most, {wanted.bytes_per_s / 1e9:,.0f} GB/s"
        rows.add_row(label, *(f"{reads.tokens_per_s(wanted.bytes_per_s):,.0f}" for reads in found), style="bold")
    return rows
