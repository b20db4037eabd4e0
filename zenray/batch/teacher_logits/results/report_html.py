"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zenray.batch.report_page import origin, page, picture, table, tiles

_OTHER_MEANS = ("−log p of the text", "head mass", "head entries")
_LEAST_BYTES = 0.05  # For a column to be named; report.json names them all.
_MODES = {"plain": "plain", "psm": "infilling, prefix first", "spm": "infilling, suffix first"}


def render_report(job: Mapping[str, Any], figures: Mapping[str, Any], light_png: bytes, dark_png: bytes) -> str:
    """The page. `job` is job.json, `figures` report.json."""
    tokens, fidelity, plan = figures["tokens"], figures["fidelity"], figures["plan"]
    parts = [
        f"<h1>Teacher logits: {tokens['num_scored']:,} tokens</h1>",
        f'<p class="quiet">{origin(job)}<br>Format {job["parameters"]["format"]}</p>',
        tiles(_tiles(figures)),
        picture(light_png, dark_png, "Entropy, divergence, head sizes and bytes per token"),
        '<p class="quiet">Divergence is of the teacher from what a reader gets back, the tail spread over a prior. It '
        "was estimated for every token when the token was scored, of the tail from the few tokens drawn: means are "
        "right, high percentiles somewhat above the true ones.</p>",
        "<h2>By language and arrangement</h2>",
        table(
            (
                "language",
                "arrangement",
                "scored tokens",
                "KL mean",
                "entropy",
                "−log p of the text",
                "head mass",
                "head entries",
            ),
            map(_group, figures["groups"]),
        ),
        "<h2>Fidelity</h2>",
        table(
            ("KL(teacher ‖ as read back), nats", ""),
            [
                ("mean", _nats(fidelity["kl_mean_nats"])),
                *((f"p{share}", _nats(fidelity[f"kl_p{share}_nats"])) for share in (50, 90, 99)),
                ("most", _nats(fidelity["kl_max_nats"])),
            ],
        ),
        "<h2>Bytes for a scored token</h2>",
        table(("column", "bytes"), _bytes(figures["bytes"])),
        "<h2>What was planned</h2>",
        table(
            ("", "number"),
            [
                ("documents read", f"{plan['num_documents']:,}"),
                ("documents scored", f"{plan['num_planned_documents']:,}"),
                ("segments", f"{plan['num_segments']:,}"),
                ("sequences", f"{plan['num_sequences']:,}"),
                ("tokens", f"{plan['num_tokens']:,}"),
                ("of those, with a record", f"{plan['num_scored']:,}"),
                ("of those, context alone", f"{plan['num_tokens'] - plan['num_scored']:,}"),
                ("of the room in sequences, used", f"{plan['packing_efficiency']:.1%}"),
                *((f"documents left out: {why}", f"{num:,}") for why, num in plan["documents_left_out"].items()),
                *((f"windows left out: {why}", f"{num:,}") for why, num in plan["windows_left_out"].items()),
            ],
        ),
    ]
    if figures["errors"]:
        rows = [(error, f"{count:,}") for error, count in figures["errors"].items()]
        parts += ["<h2>Sequences with an error</h2>", table(("error", "sequences"), rows)]
    return page("Teacher logits: report", parts)


def _tiles(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    tokens, fidelity, stored = figures["tokens"], figures["fidelity"], figures["bytes"]
    return [
        (f"{tokens['num_scored']:,}", "tokens with a record"),
        (_number(stored["per_scored_token"], ".1f"), "bytes for each of them"),
        (_number(fidelity["kl_mean_nats"], ".4f"), "nats mean KL to the teacher"),
        (_number(fidelity["kl_p99_nats"], ".3f"), "nats KL at the 99th percentile"),
        (_number(fidelity["head_mass_mean"], ".4f"), "probability within the head"),
        (_number(fidelity["head_entries_mean"], ".1f"), "entries of a head"),
        (_number(fidelity["entropy_mean_nats"], ".2f"), "nats mean entropy"),
    ]


def _group(group: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        group["language"],
        _MODES.get(group["mode"], group["mode"]),
        f"{group['num_scored']:,}",
        _nats(group["kl_mean_nats"]),
        _number(group["entropy_mean_nats"], ".3f"),
        _number(group["negative_log_probability_mean_nats"], ".3f"),
        _number(group["head_mass_mean"], ".4f"),
        _number(group["head_entries_mean"], ".1f"),
    )


def _bytes(stored: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    columns = sorted(stored["per_scored_token_by_column"].items(), key=lambda item: (-item[1], item[0]))
    yield from ((name, f"{value:.2f}") for name, value in columns if value >= _LEAST_BYTES)
    rest = [value for _, value in columns if value < _LEAST_BYTES]
    if rest:
        yield f"{len(rest)} others", f"{sum(rest):.2f}"
    yield "all of a shard", _number(stored["per_scored_token"], ".2f")
    for name, value in stored["per_scored_token_by_companion"].items():
        yield f"beside it: {name}", f"{value:.2f}"


def _nats(value: float | None) -> str:
    return _number(value, ".5f")


def _number(value: float | None, spelling: str) -> str:
    return "–" if value is None else format(value, spelling)
