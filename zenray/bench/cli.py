"""`zenray bench`: measure an engine, a server, or what lies between them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zenray.errors import ConfigError

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure an engine or a server with the same prompts: latency, throughput, achieved bandwidth.",
)

Profile = Annotated[str, typer.Option("--profile", "-p", help="The configuration to start from.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="YAML laid over the profile.", show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Laid over both. Repeatable.", show_default=False)
]
JsonOut = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the report here.", show_default=False)
]
PlotOut = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the report here, as PNG.", show_default=False)
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="JSON lines as `zenray bench prompts` writes.", show_default=False),
]


@app.command()
def engine(
    profile: Profile = "local",
    file: ConfigFile = None,
    overrides: Overrides = None,
    model: Annotated[str, typer.Option(help="Instead of the profile's model.", show_default=False)] = "",
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Weight formats, such as bf16,mixed.", show_default=False)
    ] = "",
    batches: Annotated[str, typer.Option("--batch", metavar="LIST", help="Sequences decoded at once.")] = "1,8",
    measures: Annotated[str, typer.Option("--measure", metavar="LIST", help="Of decode,prefill,repeat.")] = (
        "decode,prefill,repeat"
    ),
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens per completion.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Repetitions; medians are reported.")] = 5,
    prompts: PromptFile = None,
    json_out: JsonOut = None,
    plot_out: PlotOut = None,
) -> None:
    """Time the engine in this process: decode, cold prefill, and a long prompt repeated with one line more."""
    from zenray.bench.engine_bench import MEASURES, EnginePlan
    from zenray.bench.runs import run_engine_bench

    chosen = tuple(_words(measures))
    if not chosen or not set(chosen) <= set(MEASURES):
        raise ConfigError(f"--measure is {measures!r}; allowed: a list of {','.join(MEASURES)}")
    plan = EnginePlan(_counts("--batch", batches), chosen, max_tokens, rounds)
    run_engine_bench(profile, file, overrides or [], model, _words(formats), plan, prompts, json_out, plot_out)


@app.command()
def serving(
    targets: Annotated[
        list[str] | None,
        typer.Option("--target", metavar="URL", help="grpc://HOST:PORT or http(s)://HOST:PORT. Repeatable."),
    ] = None,
    concurrency: Annotated[str, typer.Option(metavar="LIST", help="Closed loop: requests at once.")] = "1,4,8",
    rate: Annotated[
        str, typer.Option(metavar="LIST", help="Open loop instead: requests per second.", show_default=False)
    ] = "",
    kind: Annotated[str, typer.Option(metavar="LIST", help="Of short,prefill,long,fim.")] = "short",
    requests: Annotated[int, typer.Option(min=1, help="Per row of the report, at most.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="Per row of the report, at most.")] = 120.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens per completion.")] = 64,
    cold: Annotated[bool, typer.Option(help="Make every prompt new, so that no prefix cache helps.")] = True,
    seed: Annotated[int, typer.Option(help="Of the open loop's arrival times.")] = 0,
    model: Annotated[str, typer.Option(help="Model to ask for; empty takes what is served.")] = "",
    prompts: PromptFile = None,
    json_out: JsonOut = None,
    plot_out: PlotOut = None,
) -> None:
    """Load one or more running servers with the same prompts and report latency and throughput."""
    from zenray.bench.prompts import KINDS
    from zenray.bench.runs import ServingPlan, run_serving_bench

    kinds = tuple(known for known in KINDS if known in _words(kind))
    if not kinds or len(kinds) != len(_words(kind)):
        raise ConfigError(f"--kind is {kind!r}; allowed: a list of {','.join(KINDS)}")
    plan = ServingPlan(
        kinds=kinds,
        concurrencies=() if rate else _counts("--concurrency", concurrency),
        rates=_rates(rate),
        max_requests=requests,
        max_seconds=seconds,
        max_tokens=max_tokens,
        cold=cold,
        seed=seed,
    )
    run_serving_bench(targets or ["grpc://127.0.0.1:9000"], model, plan, prompts, json_out, plot_out)


@app.command()
def overhead(
    profile: Profile = "local",
    file: ConfigFile = None,
    overrides: Overrides = None,
    target: Annotated[
        str, typer.Option(metavar="URL", help="A running server of the same profile; empty starts one.")
    ] = "",
    requests: Annotated[int, typer.Option(min=4, help="Per path and round.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Alternations of the two paths.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=2, help="Tokens per completion.")] = 64,
    memory: Annotated[bool, typer.Option(help="Also the verifier process's resident memory.")] = True,
    json_out: JsonOut = None,
    plot_out: PlotOut = None,
) -> None:
    """What gRPC and Ray add: the same prompts to the engine in this process and through a server, alternating."""
    from zenray.bench.overhead import OverheadPlan, run_overhead_bench

    plan = OverheadPlan(requests, rounds, max_tokens, memory)
    run_overhead_bench(profile, file, overrides or [], target, plan, json_out, plot_out)


@app.command()
def speculative(
    profile: Profile = "local",
    file: ConfigFile = None,
    overrides: Overrides = None,
    model: Annotated[str, typer.Option(help="Instead of the profile's model.", show_default=False)] = "",
    weight_format: Annotated[
        str, typer.Option("--format", help="Instead of the profile's weight format.", show_default=False)
    ] = "",
    draft_model: Annotated[
        str, typer.Option(help="Instead of the profile's draft model; it shares the model's vocabulary.")
    ] = "",
    drafters: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Sets of drafters, joined by +, such as suffix,suffix+recycling; all is every one there is, "
            "wrong and wrong_model are never right (the worst case). "
            "Default: each alone, suffix+recycling and all.",
            show_default=False,
        ),
    ] = "",
    gamma: Annotated[
        str, typer.Option(metavar="LIST", help="Draft tokens per round: auto (chosen by cost) or numbers up to 64.")
    ] = "auto,2,4,8",
    kind: Annotated[str, typer.Option(metavar="LIST", help="Of fresh,infill,edit.")] = "fresh,infill,edit",
    num_prompts: Annotated[int, typer.Option("--prompts", min=1, help="Of each kind.")] = 6,
    repeats: Annotated[int, typer.Option(min=1, help="Times each prompt is measured, with new drafters.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=0, help="Per answer; 0: 128 fresh, 64 infill, 256 edit.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, max=10, help="0 is greedy; else one seed for all.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the choice of prompts.")] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the rows in --json that are not measured again.")] = False,
    json_out: JsonOut = None,
    plot_out: PlotOut = None,
    markdown_out: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write the tables here.", show_default=False)
    ] = None,
) -> None:
    """What drafting is worth: the same prompts decoded plainly and with every set of drafters, in turns.

    Prints tokens/s, the speed-up on the median and the worst prompt, what was accepted, where a round's time goes,
    and what the cost model and the textbook formula would have predicted. Checks that no token changes.
    """
    from zenray.bench.speculative_prompts import SPECULATIVE_KINDS
    from zenray.bench.speculative_run import SpeculativePlan, parse_drafter_sets, parse_gammas, run_speculative_bench

    kinds = tuple(known for known in SPECULATIVE_KINDS if known in _words(kind))
    if not kinds or len(kinds) != len(_words(kind)):
        raise ConfigError(f"--kind is {kind!r}; allowed: a list of {','.join(SPECULATIVE_KINDS)}")
    given = {"model.name": model, "model.weight_format": weight_format, "draft.model": draft_model}
    base = [*(overrides or []), *(f"{key}={value}" for key, value in given.items() if value)]
    plan = SpeculativePlan(
        kinds=kinds,
        drafter_sets=parse_drafter_sets(_words(drafters)),
        gammas=parse_gammas(_words(gamma)),
        num_prompts=num_prompts,
        repeats=repeats,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    run_speculative_bench(profile, file, base, plan, keep, json_out, plot_out, markdown_out)


@app.command()
def profile(
    profile: Profile = "local",
    file: ConfigFile = None,
    overrides: Overrides = None,
    batches: Annotated[str, typer.Option("--batch", metavar="LIST", help="Sequences decoded at once.")] = "1,8",
    steps: Annotated[int, typer.Option(min=4, help="Decode steps that are timed.")] = 48,
) -> None:
    """Where the time of one decode step goes."""
    from zenray.bench.step_profile import run_step_profile

    run_step_profile(profile, file, overrides or [], _counts("--batch", batches), steps)


@app.command()
def infilling(
    profile: Profile = "local",
    file: ConfigFile = None,
    overrides: Overrides = None,
    models: Annotated[
        str, typer.Option("--model", metavar="LIST", help="One after the other; empty takes the profile's.")
    ] = "qwen2.5-coder-0.5b,qwen2.5-coder-1.5b",
    kinds: Annotated[
        str, typer.Option("--gaps", metavar="LIST", help="Kinds of gaps, such as cross-file; empty is every kind.")
    ] = "",
    count: Annotated[int, typer.Option(min=1, max=160, help="Gaps of each kind.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the choice of gaps.")] = 0,
    keep: Annotated[bool, typer.Option(help="Keep rows of the --json file that are not measured again.")] = False,
    json_out: JsonOut = None,
    doc_out: Annotated[
        Path | None, typer.Option("--doc", metavar="FILE", help="Write the tables into its block.", show_default=False)
    ] = None,
) -> None:
    """How often missing code comes back: raw, with stop rules, post-processed, with and without other open files."""
    from zenray.bench.infilling import InfillingPlan, run_infilling_bench
    from zenray.bench.infilling_gap import GAP_KINDS

    wanted = _words(kinds) or GAP_KINDS
    if not set(wanted) <= set(GAP_KINDS):
        raise ConfigError(f"--gaps is {kinds!r}; allowed: a list of {','.join(GAP_KINDS)}")
    plan = InfillingPlan(tuple(kind for kind in GAP_KINDS if kind in wanted), count, seed)
    run_infilling_bench(profile, file, overrides or [], _words(models), plan, keep, json_out, doc_out)


@app.command("prompts")
def write_prompts(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, one prompt each.")],
    model: Annotated[
        str, typer.Option(help="Cut to exact token counts with this model's tokenizer; empty estimates.")
    ] = "",
) -> None:
    """Write the prompts of every benchmark to a file, to time something else with them."""
    from zenray.bench.prompts import write_jsonl
    from zenray.bench.runs import prompts_for_model

    write_jsonl(prompts_for_model(model), out)


@app.command()
def bandwidth(threads: Annotated[int, typer.Option(min=0, help="0 takes every core.")] = 0) -> None:
    """Measure what this machine reads from memory, the bound of every decode step."""
    from zenray.bench.bandwidth import measure_bandwidth

    measured = measure_bandwidth(threads)
    typer.echo(f"{measured.gb_per_s:.1f} GB/s with {measured.num_threads} threads over {measured.buffer_mib} MiB")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _counts(option: str, text: str) -> tuple[int, ...]:
    words = _words(text)
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise ConfigError(f"{option} is {text!r}; allowed: positive whole numbers, separated by commas")
    return tuple(int(word) for word in words)


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(word) for word in _words(text))
    except ValueError:
        rates = (0.0,)
    if any(not 0 < rate < 1e6 for rate in rates):
        raise ConfigError(f"--rate is {text!r}; allowed: positive numbers, separated by commas")
    return rates
