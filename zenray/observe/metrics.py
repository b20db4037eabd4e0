"""The numbers of a serving process in Prometheus form.

Requests are counted where they enter (an aggregator); a verifier's own counters are read over gRPC and
shown with its replica id. Every aggregator shows all verifiers: aggregate those over `replica`, not over
scraped instances.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from zenray.api.service import VerifierLoad
from zenray.context.suggestion.model import CompletionStarted
from zenray.engine.request import Delta, DrafterLoad, Final, GenerateEvent, Started, Usage
from zenray.observe.expert_metrics import expert_families
from zenray.observe.suggestion_metrics import SuggestionMetrics

_FIRST_TOKEN_BUCKETS_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 1, 1.5, 2.5, 5, 10, 30)
_BETWEEN_BUCKETS_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.35, 0.6, 1, 2, 5)
_TOKEN_BUCKETS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_PER_ROUND_BUCKETS = (1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_RATIO_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

Loads = Callable[[], Mapping[str, VerifierLoad]]

_GAUGES = {
    "running_sequences": "Sequences in the batch.",
    "waiting_sequences": "Sequences in the queue.",
    "max_waiting_sequences": "Sequences the queue takes.",
    "free_blocks": "KV blocks that hold nothing.",
    "cached_blocks": "Unreferenced KV blocks kept for the prefix cache.",
    "total_blocks": "KV blocks.",
}
_COUNTERS = {
    "generated_tokens": "Tokens generated.",
    "prompt_tokens": "Prompt tokens taken in.",
    "cached_prompt_tokens": "Prompt tokens found in the prefix cache.",
    "preemptions": "Sequences that lost their blocks to others.",
    "rounds": "Times a step chose tokens for a sequence.",
    "scored_tokens": "Tokens scored for jobs.",
}
_DRAFTER_GAUGES: dict[str, tuple[str, Callable[[DrafterLoad], float]]] = {
    "queue_age_seconds": ("Age of the newest remote draft when it was used.", lambda load: load.queue_age_ms / 1000),
    "replicas": ("Remote replicas connected.", lambda load: load.replicas),
}
_DRAFTER_COUNTERS: dict[str, tuple[str, Callable[[DrafterLoad], float]]] = {
    "rounds": ("Drafts verified.", lambda load: load.rounds),
    "drafted_tokens": ("Tokens of verified drafts.", lambda load: load.drafted_tokens),
    "accepted_tokens": ("Draft tokens that were the verifier's own choice.", lambda load: load.accepted_tokens),
    "wasted_tokens": ("Draft tokens that were not.", lambda load: load.drafted_tokens - load.accepted_tokens),
    "bonus_tokens": ("Tokens of the verifier behind a draft: one per round.", lambda load: load.rounds),
    "timeouts": ("Rounds without a draft because none came in time.", lambda load: load.timeouts),
    "draft_seconds": ("The verifier's time spent drafting or waiting.", lambda load: load.draft_ms / 1000),
}


class VerifierCollector(Collector):
    """Every verifier's counters as last heard, labelled by replica, those of its drafters also by drafter, where its
    experts are, and how often a request was run again."""

    def __init__(self, loads: Loads, reruns: Callable[[], int]) -> None:
        self._loads, self._reruns = loads, reruns

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        loads = self._loads()
        for name, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"zenray_verifier_{name}", text, labels=["replica"])
            for replica_id, load in loads.items():
                gauge.add_metric([replica_id], getattr(load.engine, name))
            yield gauge
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"zenray_verifier_{name}", text, labels=["replica"])
            for replica_id, load in loads.items():
                counter.add_metric([replica_id], getattr(load.engine, name))
            yield counter
        yield from _drafter_families(loads)
        yield from expert_families(
            {replica_id: load.experts for replica_id, load in loads.items() if load.experts is not None}
        )
        available = sum(load.is_available for load in loads.values())
        yield GaugeMetricFamily("zenray_verifier_replicas", "Verifier replicas that take requests.", value=available)
        text = "Requests run again because their verifier was lost."
        yield CounterMetricFamily("zenray_reruns", text, value=self._reruns())


def _drafter_families(loads: Mapping[str, VerifierLoad]) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
    for family, metrics in ((GaugeMetricFamily, _DRAFTER_GAUGES), (CounterMetricFamily, _DRAFTER_COUNTERS)):
        for name, (text, value) in metrics.items():
            made = family(f"zenray_drafter_{name}", text, labels=["replica", "drafter"])
            for replica_id, load in loads.items():
                for drafter in load.engine.drafters:
                    made.add_metric([replica_id, drafter.drafter], value(drafter))
            yield made


class ServingMetrics:
    """Metrics of one aggregator, in a registry of their own."""

    def __init__(self, loads: Loads, reruns: Callable[[], int] = lambda: 0) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # One more series per metric that nobody asks for.
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "zenray_requests", "Requests by how they ended.", ["priority", "outcome"], registry=self.registry
        )
        self.ongoing = Gauge("zenray_requests_ongoing", "Requests being answered.", registry=self.registry)
        self.first_token = Histogram(
            "zenray_first_token_seconds",
            "Arrival to first token.",
            ["priority"],
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=self.registry,
        )
        self.between_tokens = Histogram(
            "zenray_between_tokens_seconds",
            "Time between the chunks of a choice.",
            ["priority"],
            buckets=_BETWEEN_BUCKETS_S,
            registry=self.registry,
        )
        self.prompt_tokens = Histogram(
            "zenray_prompt_tokens", "Prompt length.", buckets=_TOKEN_BUCKETS, registry=self.registry
        )
        self.completion_tokens = Histogram(
            "zenray_completion_tokens", "Tokens of one choice.", buckets=_TOKEN_BUCKETS, registry=self.registry
        )
        self.tokens_per_round = Histogram(
            "zenray_tokens_per_round",
            "Tokens of one choice over the verifier's rounds for it; 1 without speculation.",
            buckets=_PER_ROUND_BUCKETS,
            registry=self.registry,
        )
        self.acceptance = Histogram(
            "zenray_acceptance_ratio",
            "Accepted over drafted tokens of one choice.",
            ["drafter"],
            buckets=_RATIO_BUCKETS,
            registry=self.registry,
        )
        self.cached_tokens = Counter(
            "zenray_cached_prompt_tokens", "Prompt tokens found in a prefix cache.", registry=self.registry
        )
        self.suggestions = SuggestionMetrics(self.registry)
        self.registry.register(VerifierCollector(loads, reruns))

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class RequestMeter:
    """Follows one request: `see` every event, then `end` once."""

    def __init__(self, metrics: ServingMetrics, priority: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._priority, self._clock = metrics, priority, clock
        self._arrival_s = clock()
        self._last_s: dict[int, float] = {}
        self._first_token = metrics.first_token.labels(priority)
        self._between_tokens = metrics.between_tokens.labels(priority)
        self.first_token_ms: float | None = None
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.rounds = self.drafted_tokens = self.accepted_tokens = 0
        self.finish_reason = ""
        self.reused = False
        metrics.ongoing.inc()

    def see(self, event: GenerateEvent) -> None:
        if isinstance(event, Delta):
            now_s = self._clock()
            last_s = self._last_s.get(event.index)
            self._last_s[event.index] = now_s
            if last_s is not None:
                self._between_tokens.observe(now_s - last_s)
            elif self.first_token_ms is None:
                self.first_token_ms = (now_s - self._arrival_s) * 1000
                self._first_token.observe(now_s - self._arrival_s)
        elif isinstance(event, Started):
            self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
            self.reused = isinstance(event, CompletionStarted) and event.reused
            if self.reused:  # Its tokens were counted with the request they were generated for.
                return
            self._metrics.prompt_tokens.observe(event.prompt_tokens)
            self._metrics.cached_tokens.inc(event.cached_tokens)
        else:
            assert isinstance(event, Final)
            self.finish_reason = event.finish_reason.value
            self.completion_tokens += event.usage.completion_tokens
            if self.reused:
                return
            self._metrics.suggestions.ended(event)
            self._metrics.completion_tokens.observe(event.usage.completion_tokens)
            self._see_rounds(event.usage)

    def _see_rounds(self, usage: Usage) -> None:
        self.rounds += usage.rounds
        if usage.rounds:
            self._metrics.tokens_per_round.observe(usage.completion_tokens / usage.rounds)
        for drafter in usage.drafters:
            self.drafted_tokens += drafter.drafted_tokens
            self.accepted_tokens += drafter.accepted_tokens
            if drafter.drafted_tokens:
                ratio = drafter.accepted_tokens / drafter.drafted_tokens
                self._metrics.acceptance.labels(drafter.drafter).observe(ratio)

    def end(self, outcome: str) -> float:
        """Counts the request under `outcome`: a finish reason, or a status name. Returns its milliseconds."""
        self._metrics.ongoing.dec()
        self._metrics.requests.labels(self._priority, outcome).inc()
        return (self._clock() - self._arrival_s) * 1000
