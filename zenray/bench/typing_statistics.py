"""From what a replay saw to the numbers of a report. Pure: records in, numbers out.

A slow server answers only where the user waits, so the latencies of what it answers flatter it. The fair comparison
is over pauses: the requests after which the user waited at least `PAUSE_MS`, the same ones for every server; one that
shows nothing before the user goes on counts as slower than all that do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zenray.bench.statistics import Distribution
from zenray.bench.typing_replay import Began, SuggestionRecord

PAUSE_MS = 500.0


@dataclass(frozen=True, slots=True)
class PauseWaits:
    """What the user waited for something in the pauses. `p50` and `p95` are over all of them, None where that one
    saw nothing; `values_ms` are those that did, ascending."""

    count: int
    seen: int
    p50: float | None
    p95: float | None
    values_ms: tuple[float, ...]

    @classmethod
    def of(cls, waits_ms: Iterable[float | None]) -> PauseWaits:
        waits = [math.inf if wait is None else wait for wait in waits_ms]
        seen = sorted(wait for wait in waits if wait < math.inf)
        return cls(len(waits), len(seen), _percentile(waits, 50), _percentile(waits, 95), tuple(seen))


def _percentile(waits: Sequence[float], percent: float) -> float | None:
    """Nearest rank, which needs no arithmetic with what was never seen."""
    if not waits:
        return None
    value = sorted(waits)[max(0, math.ceil(len(waits) * percent / 100) - 1)]
    return value if value < math.inf else None


def useful_characters(record: SuggestionRecord) -> int:
    """How many characters of the shown text the user then really typed."""
    pairs = enumerate(zip(record.shown, record.typed_next, strict=False))
    shortest = min(len(record.shown), len(record.typed_next))
    return next((at for at, (shown, typed) in pairs if shown != typed), shortest)


def num_wasted_tokens(records: Sequence[SuggestionRecord]) -> int:
    """Generated for a text that nobody saw complete before the user went on: neither the request it was generated for
    nor one that went on with it, which shows the text's end."""
    owners: list[SuggestionRecord] = []
    served: set[int] = set()
    for record in records:
        if not _is_reused(record):
            owners.append(record)
        if record.total_ms is not None:
            text = _text(record)
            owner = next((owner for owner in reversed(owners) if _text(owner).endswith(text)), None)
            if owner is not None:
                served.add(id(owner))
    return sum(owner.completion_tokens for owner in owners if id(owner) not in served)


def _is_reused(record: SuggestionRecord) -> bool:
    return record.began is not None and record.began.reused


def _text(record: SuggestionRecord) -> str:
    return "".join(arrival.text for arrival in record.arrivals)


def summarise_typing(records: Sequence[SuggestionRecord]) -> dict[str, Any]:
    """All numbers of one contestant, JSON-ready. Failed requests enter no latency.

    Cached shares are over the requests whose server told. One that goes on with an earlier completion reads nothing of
    its prompt; `cached_share_fresh` leaves those out. Its tokens were generated once, for the earlier request.
    """
    good = [record for record in records if not record.error]
    fresh = [record for record in good if not _is_reused(record)]
    pauses = [record for record in good if record.quiet_ms >= PAUSE_MS]
    begun = [record.began for record in good if record.began is not None and record.began.prompt_tokens]
    told = [began for began in begun if began.cached_tokens is not None]
    shown = [record for record in good if record.shown.strip()]
    return {
        "requests": len(records),
        "failed": len(records) - len(good),
        "errors": sorted({record.error for record in records if record.error})[:5],
        "answered": sum(record.ttft_ms is not None for record in good),
        "lines_shown": sum(record.tfcl_ms is not None for record in good),
        "reused": len(good) - len(fresh),
        "ttft_ms": asdict(Distribution.of(record.ttft_ms for record in good)),
        "ttft_fresh_ms": asdict(Distribution.of(record.ttft_ms for record in fresh)),
        "tfcl_ms": asdict(Distribution.of(record.tfcl_ms for record in good)),
        "total_ms": asdict(Distribution.of(record.total_ms for record in good)),
        "pause_ttft_ms": asdict(PauseWaits.of(record.ttft_ms for record in pauses)),
        "pause_line_ms": asdict(PauseWaits.of(record.tfcl_ms for record in pauses)),
        "prompt_tokens": asdict(Distribution.of(began.prompt_tokens for began in begun)),
        "cached_share": _cached_share(told),
        "cached_share_fresh": _cached_share([began for began in told if not began.reused]),
        "requests_with_cache_counts": len(told),
        "completion_tokens": sum(record.completion_tokens for record in fresh),
        "wasted_tokens": num_wasted_tokens(good),
        "useful_characters": sum(map(useful_characters, good)),
        "useful_characters_per_shown": sum(map(useful_characters, shown)) / len(shown) if shown else None,
        "useful_characters_per_pause": sum(map(useful_characters, pauses)) / len(pauses) if pauses else None,
        "late_ms": asdict(Distribution.of((record.sent_s - record.due_s) * 1e3 for record in records)),
        "ttft_values_ms": sorted(record.ttft_ms for record in good if record.ttft_ms is not None),
    }


def _cached_share(told: Sequence[Began]) -> float | None:
    prompt_tokens = sum(began.prompt_tokens or 0 for began in told)
    read = sum((began.prompt_tokens or 0) - (began.cached_tokens or 0) for began in told if not began.reused)
    return 1 - read / prompt_tokens if prompt_tokens else None
