"""From what a client saw to the numbers of a report. Pure: records in, numbers out.

TTFT  time to first token: request due to its first chunk that carries a token.
ITL   inter-token latency: time between successive chunks of a stream, each as its reader saw it.
TPOT  time per output token: first to last chunk over the tokens between, one number per stream.
TFCL  time to first complete line: until the text holds one non-blank line, ended by a newline or by the stream.
E2E   request due to the stream's end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrival:
    """A chunk of a stream as its reader saw it, seconds on the run's clock."""

    at_s: float
    num_tokens: int
    text: str


def first_line_s(arrivals: Iterable[Arrival]) -> float | None:
    """When the text held a line that is not blank and ends with a newline; None while it does not."""
    text = ""
    for arrival in arrivals:
        text += arrival.text
        if "\n" in text.lstrip():
            return arrival.at_s
    return None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request from the outside.

    `due_s` is when it should have been sent: in an open loop a late start counts as latency, otherwise
    a slow server would slow its own load down and look better than it is.
    """

    name: str
    due_s: float
    ended_s: float
    arrivals: tuple[Arrival, ...] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    server_first_token_ms: float | None = None
    finish_reason: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(arrival.text for arrival in self.arrivals)

    @property
    def num_tokens(self) -> int:
        """As the server counted them, else one per chunk."""
        if self.completion_tokens is not None:
            return self.completion_tokens
        return sum(arrival.num_tokens for arrival in self.arrivals)

    @property
    def token_arrivals(self) -> tuple[Arrival, ...]:
        return tuple(arrival for arrival in self.arrivals if arrival.num_tokens)

    @property
    def ttft_ms(self) -> float | None:
        first = next(iter(self.token_arrivals), None)
        return None if first is None else (first.at_s - self.due_s) * 1e3

    @property
    def itl_ms(self) -> list[float]:
        times = [arrival.at_s for arrival in self.token_arrivals]
        return [(later - earlier) * 1e3 for earlier, later in itertools.pairwise(times)]

    @property
    def tpot_ms(self) -> float | None:
        arrivals = self.token_arrivals
        behind_first = sum(arrival.num_tokens for arrival in arrivals[1:])
        return (arrivals[-1].at_s - arrivals[0].at_s) * 1e3 / behind_first if behind_first else None

    @property
    def tfcl_ms(self) -> float | None:
        first_s = first_line_s(self.arrivals)
        if first_s is None and self.text.strip() and not self.error:
            first_s = self.ended_s
        return None if first_s is None else (first_s - self.due_s) * 1e3

    @property
    def e2e_ms(self) -> float:
        return (self.ended_s - self.due_s) * 1e3


@dataclass(frozen=True, slots=True)
class Distribution:
    """A set of measurements in one unit; `count` 0 has no numbers."""

    count: int
    mean: float | None = None
    minimum: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Distribution:
        known = sorted(value for value in values if value is not None)
        if not known:
            return cls(0)
        return cls(
            count=len(known),
            mean=math.fsum(known) / len(known),
            minimum=known[0],
            p50=percentile(known, 50),
            p95=percentile(known, 95),
            p99=percentile(known, 99),
            maximum=known[-1],
        )


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One load run. Rates are over the run's wall time, first request due to last stream ended."""

    num_requests: int
    num_failed: int
    wall_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    steady_tokens_per_s: float | None
    ttft_ms: Distribution
    itl_ms: Distribution
    tpot_ms: Distribution
    tfcl_ms: Distribution
    e2e_ms: Distribution
    errors: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The percentile of ascending values, linear between neighbours (numpy's default rule)."""
    if not ordered or not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} of {len(ordered)} values; want 0 to 100 of at least one")
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    weight = rank - low
    if ordered[low] == ordered[high]:
        return ordered[low]  # exact, also where the weighted sum would round
    return ordered[low] * (1 - weight) + ordered[high] * weight


def median(values: Iterable[float]) -> float:
    """The middle of some values. Raises ValueError when there are none."""
    return percentile(sorted(values), 50)


def summarise(records: Sequence[RequestRecord]) -> RunSummary:
    """All numbers of one run. Failed requests count as failed and enter no latency."""
    good = [record for record in records if not record.error]
    wall_s = max((r.ended_s for r in records), default=0.0) - min((r.due_s for r in records), default=0.0)
    output_tokens = sum(record.num_tokens for record in good)
    errors: dict[str, int] = {}
    for record in records:
        if record.error:
            errors[record.error] = errors.get(record.error, 0) + 1
    return RunSummary(
        num_requests=len(records),
        num_failed=len(records) - len(good),
        wall_s=wall_s,
        prompt_tokens=sum(record.prompt_tokens or 0 for record in good),
        cached_tokens=sum(record.cached_tokens or 0 for record in good),
        output_tokens=output_tokens,
        requests_per_s=len(good) / wall_s if wall_s > 0 else 0.0,
        output_tokens_per_s=output_tokens / wall_s if wall_s > 0 else 0.0,
        steady_tokens_per_s=steady_decode_rate(good),
        ttft_ms=Distribution.of(record.ttft_ms for record in good),
        itl_ms=Distribution.of(gap for record in good for gap in record.itl_ms),
        tpot_ms=Distribution.of(record.tpot_ms for record in good),
        tfcl_ms=Distribution.of(record.tfcl_ms for record in good),
        e2e_ms=Distribution.of(record.e2e_ms for record in good),
        errors=errors,
    )


def steady_decode_rate(records: Sequence[RequestRecord]) -> float | None:
    """Tokens per second while every stream decodes: from the last stream's first token to the first
    stream's last. None where the streams never all decode at once, as in a long run of a closed loop."""
    streams = [[(a.at_s, a.num_tokens) for a in record.token_arrivals] for record in records]
    if not streams or any(len(stream) < 2 for stream in streams):
        return None
    begin = max(stream[0][0] for stream in streams)
    end = min(stream[-1][0] for stream in streams)
    if end <= begin:
        return None
    return sum(count for stream in streams for at_s, count in stream if begin < at_s <= end) / (end - begin)
