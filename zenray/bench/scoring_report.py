"""From tokens per second with and without records to a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zenray.bench.statistics import Distribution

MIN_RATIO = 0.9
DEFAULT_WINDOW = 4096


@dataclass(frozen=True, slots=True)
class Side:
    """Windows of one length, scored from position `first_scored` on; None only reads them."""

    window: int
    first_scored: int | None

    @classmethod
    def of_window(cls, window: int) -> tuple[Side, Side, Side]:
        """Raw prefill, everything scored, an overlap of an eighth only read."""
        return cls(window, None), cls(window, 1), cls(window, max(1, window // 8))

    @property
    def label(self) -> str:
        how = "prefill" if self.first_scored is None else f"scored from {self.first_scored}"
        return f"{self.window} tokens, {how}"


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens through the model a second, and the processor time of each, which others on the machine change less."""

    tokens_per_s: float
    cpu_ms: float


def scoring_rows(
    speeds: Mapping[Side, Sequence[Speed]], peak_prefill_mib: float, peak_mib: float
) -> list[dict[str, Any]]:
    """A row for each scoring side, beside the prefill of the same windows; ratios are of the same round."""
    rows: list[dict[str, Any]] = []
    for side, scored in speeds.items():
        if side.first_scored is None:
            continue
        raw = speeds[Side(side.window, None)]
        rounds = list(zip(scored, raw, strict=True))
        rows.append(
            {
                "measure": "scoring",
                "window": side.window,
                "overlap": side.first_scored if side.first_scored > 1 else 0,
                "prefill_tokens_per_s": asdict(Distribution.of(speed.tokens_per_s for speed in raw)),
                "scored_tokens_per_s": asdict(Distribution.of(speed.tokens_per_s for speed in scored)),
                "ratio": asdict(Distribution.of(ours.tokens_per_s / plain.tokens_per_s for ours, plain in rounds)),
                "cpu_ratio": asdict(Distribution.of(plain.cpu_ms / ours.cpu_ms for ours, plain in rounds)),
            }
        )
    return [*rows, {"measure": "memory", "prefill_peak_mib": peak_prefill_mib, "peak_mib": peak_mib}]


def scoring_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    config, plan, format = (report["settings"][name] for name in ("config", "plan", "format"))
    rows = [row for row in report["results"] if row["measure"] == "scoring"]
    (memory,) = (row for row in report["results"] if row["measure"] == "memory")
    lines = [
        f"Measured {report['created'][:10]} on {report['machine']['processor']}, {report['machine']['threads']} "
        f"threads: {config['model']['name']} {config['model']['weight_format']}, steps of "
        f"{config['engine']['batch_step_tokens']} tokens, {plan['tokens']} tokens of real code a side and round, "
        f"median of {plan['rounds']} rounds (in brackets the smallest and the largest); heads of at most "
        f"{format['max_head']} tokens up to {format['head_mass']:.2%} of the mass, {format['num_tail_samples']} draws. "
        "Tokens are those that pass through the model, the overlap's too.",
        "",
        "| window | of it only read | prefill, tokens/s | with records, tokens/s | ratio | wanted | | "
        "ratio by processor time |",
        "|---:|---:|---:|---:|---|---|---|---|",
    ]
    for row in rows:
        ratio = row["ratio"]
        is_default = row["window"] == DEFAULT_WINDOW and row["overlap"]
        verdict = f"≥ {MIN_RATIO:g} | {'met' if ratio['p50'] >= MIN_RATIO else 'missed'}" if is_default else " | "
        lines.append(
            f"| {row['window']} | {row['overlap']} | {row['prefill_tokens_per_s']['p50']:.0f} | "
            f"{row['scored_tokens_per_s']['p50']:.0f} | {ratio['p50']:.3f} [{ratio['minimum']:.3f} to "
            f"{ratio['maximum']:.3f}] | {verdict} | {row['cpu_ratio']['p50']:.3f} |"
        )
    foreign = report["foreign_cpu_share"]
    lines += [
        "",
        f"The process held {memory['prefill_peak_mib']:.0f} MiB at most before it scored anything, and "
        f"{memory['peak_mib'] - memory['prefill_peak_mib']:.0f} MiB more with scoring: the head's weights, which "
        f"prefill alone never reads, and one buffer of logits, whatever is scored. Other "
        f"processes used {foreign:.0%} of the cores meanwhile.",
    ]
    return "\n".join(lines)
