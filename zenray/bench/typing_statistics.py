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
from zenray.bench.typing_replay import SuggestionRecord

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


def is_wasted(record: SuggestionRecord) -> bool:
    """Whether the user went on before the text was complete."""
    return record.total_ms is None


def summarise_typing(records: Sequence[SuggestionRecord]) -> dict[str, Any]:
    """All numbers of one contestant, JSON-ready. Failed requests enter no latency.

    `cached_share` is over the requests whose server told; a request that went on with an earlier completion has
    read no prompt at all and enters `cached_share` no more than its tokens enter the engine.
    """
    good = [record for record in records if not record.error]
    pauses = [record for record in good if record.quiet_ms >= PAUSE_MS]
    began = [record.began for record in good if record.began is not None]
    read = [each for each in began if not each.reused and each.prompt_tokens and each.cached_tokens is not None]
    prompt_tokens = sum(each.prompt_tokens or 0 for each in read)
    cached_tokens = sum(each.cached_tokens or 0 for each in read)
    generated = sum(record.completion_tokens for record in good)
    shown = [record for record in good if record.shown.strip()]
    fresh = [record for record in good if record.began is None or not record.began.reused]
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
        "prompt_tokens": asdict(Distribution.of(each.prompt_tokens for each in read)),
        "cached_share": cached_tokens / prompt_tokens if prompt_tokens else None,
        "requests_with_cache_counts": len(read),
        "completion_tokens": generated,
        "wasted_tokens": sum(record.completion_tokens for record in good if is_wasted(record)),
        "useful_characters": sum(map(useful_characters, good)),
        "useful_characters_per_shown": sum(map(useful_characters, shown)) / len(shown) if shown else None,
        "useful_characters_per_pause": sum(map(useful_characters, pauses)) / len(pauses) if pauses else None,
        "late_ms": asdict(Distribution.of((record.sent_s - record.due_s) * 1e3 for record in records)),
        "ttft_values_ms": sorted(record.ttft_ms for record in good if record.ttft_ms is not None),
    }
