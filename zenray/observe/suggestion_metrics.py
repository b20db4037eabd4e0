"""What completions cost that nobody got, what reuse saves, and what becomes of suggestions."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from zenray.context.languages.registry import language as known_language
from zenray.context.suggestion.model import Suggestion
from zenray.context.suggestion.outcomes import Outcome
from zenray.engine.request import Final

_ACCEPT_BUCKETS_S = (0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 4, 6, 10, 20, 60)


class SuggestionMetrics:
    """Counters of one aggregator, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._wasted = Counter(
            "zenray_wasted_tokens",
            "Tokens generated for nobody: superseded, cancelled, failed, or unused by the time they were forgotten.",
            ["reason"],
            registry=registry,
        )
        self._saved = Counter(
            "zenray_saved_tokens",
            "Tokens not generated: joined or reused from another completion, or behind an end that the text itself "
            "had; these are what max_tokens would have allowed.",
            ["reason"],
            registry=registry,
        )
        self._superseded = Counter(
            "zenray_superseded", "Completions ended by a newer request of their document.", registry=registry
        )
        self._joined = Counter(
            "zenray_joined", "Requests answered from a completion that was running already.", registry=registry
        )
        self._reused = Counter(
            "zenray_reused", "Requests answered from a completion that had ended.", registry=registry
        )
        self._filtered = Counter(
            "zenray_suggestions_filtered", "Completions that were not worth showing.", ["reason"], registry=registry
        )
        self._prefetches = Counter(
            "zenray_prefetches",
            "Prefetches by how they ended: KEPT, or what came first.",
            ["outcome"],
            registry=registry,
        )
        self._outcomes = Counter(
            "zenray_suggestion_outcomes",
            "Reports of what became of suggestions.",
            ["language", "outcome"],
            registry=registry,
        )
        self._accepted_characters = Counter(
            "zenray_accepted_characters", "Characters of accepted suggestions.", ["language"], registry=registry
        )
        self._accept_seconds = Histogram(
            "zenray_accept_seconds",
            "From showing a suggestion to its being accepted.",
            ["language"],
            buckets=_ACCEPT_BUCKETS_S,
            registry=registry,
        )
        self._dropped = Counter(
            "zenray_outcomes_dropped", "Outcomes that could not be logged: the disk is full or slow.", registry=registry
        )

    def dropped(self, num_rows: int) -> None:
        """`num_rows` outcomes were counted and not logged."""
        self._dropped.inc(num_rows)

    def prefetched(self, outcome: str) -> None:
        self._prefetches.labels(outcome).inc()

    def wasted(self, num_tokens: int, reason: str) -> None:
        self._wasted.labels(reason).inc(num_tokens)

    def superseded(self) -> None:
        self._superseded.inc()

    def joined(self, num_tokens: int) -> None:
        self._joined.inc()
        self._saved.labels("joined").inc(num_tokens)

    def reused(self, num_tokens: int) -> None:
        self._reused.inc()
        self._saved.labels("reused").inc(num_tokens)

    def ended(self, final: Final) -> None:
        """A choice ended; what its text saved by ending itself is counted."""
        if final.usage.saved_tokens:
            self._saved.labels(final.finish_reason.value.lower()).inc(final.usage.saved_tokens)

    def suggested(self, suggestion: Suggestion) -> None:
        if suggestion.filter is not None:
            self._filtered.labels(suggestion.filter.value.lower()).inc()

    def reported(self, language: str, outcome: Outcome, accepted_characters: int, elapsed_ms: int) -> None:
        """`elapsed_ms` 0 is not known."""
        known = known_language(language)
        label = known.id if known is not None else "other"  # a client's own words would be labels without end
        self._outcomes.labels(label, outcome.value.lower()).inc()
        if outcome in (Outcome.ACCEPTED, Outcome.PARTLY_ACCEPTED):
            self._accepted_characters.labels(label).inc(accepted_characters)
            if elapsed_ms:
                self._accept_seconds.labels(label).observe(elapsed_ms / 1000)
