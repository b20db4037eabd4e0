"""From what co-serving looked like to its numbers, table and plot. Pure but for the plot's file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zenray.bench.statistics import Distribution, RequestRecord
from zenray.plot_style import COLOURS, GREY, INK, STYLE

MAX_TTFT_RATIO = 1.2
MIN_JOB_SHARE = 0.8
_BIN_S = 5.0
_TOGETHER_MS = 5.0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the run, seconds of its clock, and who worked in it."""

    name: str
    begin_s: float
    end_s: float
    has_editors: bool
    has_job: bool

    def holds(self, at_s: float) -> bool:
        return self.begin_s <= at_s < self.end_s


@dataclass(frozen=True, slots=True)
class JobTokens:
    """Tokens that one message of a verifier brought the job."""

    at_s: float
    num_tokens: int


def coserving_row(
    spans: Sequence[Span], tokens: Sequence[JobTokens], records: Sequence[RequestRecord]
) -> dict[str, Any]:
    """The result of one run."""
    alone = _ttft_ms(records, [span for span in spans if span.has_editors and not span.has_job])
    beside = _ttft_ms(records, [span for span in spans if span.has_editors and span.has_job])
    undisturbed = [span for span in spans if span.has_job and not span.has_editors]
    steps = Distribution.of(step_ms(tokens, undisturbed))
    allowed = None if alone.p95 is None or steps.p95 is None else MAX_TTFT_RATIO * alone.p95 + steps.p95
    start_s = spans[0].begin_s
    return {
        "measure": "coserving",
        "ttft_alone_ms": asdict(alone),
        "ttft_beside_job_ms": asdict(beside),
        "step_ms": asdict(steps),
        "allowed_p95_ms": allowed,
        "job_alone_tokens_per_s": job_rate(tokens, undisturbed),
        "job_beside_editors_tokens_per_s": job_rate(
            tokens, [span for span in spans if span.has_job and span.has_editors]
        ),
        "failed": sum(bool(record.error) for record in records),
        "spans": [asdict(span) | {"begin_s": span.begin_s - start_s, "end_s": span.end_s - start_s} for span in spans],
        "ttft": [[record.due_s - start_s, record.ttft_ms] for record in records if record.ttft_ms is not None],
        "job_tokens_per_s": [
            [at_s - start_s, job_rate(tokens, [Span("", at_s, at_s + _BIN_S, False, True)])] for at_s in _bins(spans)
        ],
    }


def job_rate(tokens: Sequence[JobTokens], spans: Sequence[Span]) -> float:
    """The job's tokens per second of `spans`."""
    seconds = sum(span.end_s - span.begin_s for span in spans)
    count = sum(arrival.num_tokens for arrival in tokens for span in spans if span.holds(arrival.at_s))
    return count / seconds if seconds else 0.0


def step_ms(tokens: Sequence[JobTokens], spans: Sequence[Span]) -> list[float]:
    """How long steps took: a step's messages come together, so the gaps between are the steps. One that ended no text
    counts with the next, which makes this an upper bound."""
    gaps = []
    for span in spans:
        times = sorted(arrival.at_s for arrival in tokens if span.holds(arrival.at_s))
        gaps += [(later - earlier) * 1e3 for earlier, later in itertools.pairwise(times)]
    return [gap for gap in gaps if gap >= _TOGETHER_MS]


def _ttft_ms(records: Sequence[RequestRecord], spans: Sequence[Span]) -> Distribution:
    return Distribution.of(r.ttft_ms for r in records if any(span.holds(r.due_s) for span in spans))


def _bins(spans: Sequence[Span]) -> list[float]:
    first, last = spans[0].begin_s, spans[-1].end_s
    return [first + number * _BIN_S for number in range(int((last - first) / _BIN_S))]


def coserving_markdown(report: dict[str, Any]) -> str:
    """The block of a document."""
    (row,) = report["results"]
    alone, beside, step = row["ttft_alone_ms"], row["ttft_beside_job_ms"], row["step_ms"]
    job_alone, job_beside = row["job_alone_tokens_per_s"], row["job_beside_editors_tokens_per_s"]
    share, ratio = job_beside / job_alone, beside["p95"] / alone["p95"]
    config, load = report["settings"]["config"], report["settings"]["load"]
    work = "{}-token answers" if load.get("job", "unit-tests") == "unit-tests" else "windows of {} tokens to be scored"
    wanted = f"≤ {MAX_TTFT_RATIO:g}× and one step: {row['allowed_p95_ms']:.0f} ms"
    return "\n".join(
        [
            f"Measured {report['created'][:10]} on {report['machine']['processor']}, {report['machine']['threads']} "
            f"threads: {config['model']['name']}, {load['editors']} editors that pause {load['pause_s']:g} s between "
            f"keystrokes ({beside['count']} requests beside the job), a job of {work.format(load['job_tokens'])}.",
            "",
            "| | alone | beside the other | wanted | |",
            "|---|---|---|---|---|",
            f"| editors' TTFT p50 | {alone['p50']:.0f} ms | {beside['p50']:.0f} ms | | |",
            f"| editors' TTFT p95 | {alone['p95']:.0f} ms | {beside['p95']:.0f} ms ({ratio:.2f}×) | {wanted} | "
            f"{_verdict(beside['p95'] <= row['allowed_p95_ms'])} |",
            f"| the job's tokens/s | {job_alone:.1f} | {job_beside:.1f} ({share:.0%}) | ≥ {MIN_JOB_SHARE:.0%} | "
            f"{_verdict(share >= MIN_JOB_SHARE)} |",
            "",
            f"A step of the job takes {step['p50']:.0f} ms (p95 {step['p95']:.0f}); a keystroke may have to wait "
            "for the end of one.",
        ]
    )


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def plot_coserving(report: dict[str, Any], path: Path) -> None:
    """First tokens and the job's rate over time, one above the other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    (row,) = report["results"]
    with pyplot.rc_context(STYLE):
        figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 5))
        above.plot(*zip(*row["ttft"], strict=True), "o", ms=3.5, color=COLOURS[0])
        above.axhline(row["allowed_p95_ms"], color=INK, lw=1, ls=(0, (3, 2)))
        above.set_title("Editors: time to first token of each request, ms (dashed: what p95 may be)")
        below.step(*zip(*row["job_tokens_per_s"], strict=True), where="post", color=COLOURS[1])
        below.axhline(MIN_JOB_SHARE * row["job_alone_tokens_per_s"], color=INK, lw=1, ls=(0, (3, 2)))
        below.set_title(f"The job: tokens per second (dashed: {MIN_JOB_SHARE:.0%} of what it has alone)")
        below.set_xlabel("seconds")
        for axes in (above, below):
            axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
            for number, span in enumerate(row["spans"]):
                if number % 2:
                    axes.axvspan(span["begin_s"], span["end_s"], color="#f1f3f4", lw=0, zorder=0)
        for span in row["spans"]:
            middle = (span["begin_s"] + span["end_s"]) / 2
            above.annotate(span["name"], (middle, 1.0), (0, -4), xycoords=("data", "axes fraction"),
                           textcoords="offset points", ha="center", va="top", color=GREY)  # fmt: skip
        figure.tight_layout()
        figure.savefig(path, dpi=150)
        pyplot.close(figure)
