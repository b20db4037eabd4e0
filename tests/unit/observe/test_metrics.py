"""Metrics and logs tell how requests went, and nothing of what was in them."""

from __future__ import annotations

import json
import logging

import pytest

from zenray.api.service import VerifierLoad
from zenray.engine.request import (
    Delta,
    DrafterLoad,
    DrafterUsage,
    EngineLoad,
    Final,
    FinishReason,
    Started,
    Timings,
    Usage,
)
from zenray.experts.link import ShardReport
from zenray.experts.placement import ExpertId, ExpertPlacement
from zenray.experts.planning import imbalance
from zenray.experts.status import ExpertStatus, ShardStatus
from zenray.observe.logs import JsonFormatter
from zenray.observe.metrics import RequestMeter, ServingMetrics


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_request_is_counted_with_its_times_and_tokens() -> None:
    metrics, clock = ServingMetrics(dict), Clock()
    meter = RequestMeter(metrics, "interactive", clock)
    meter.see(Started(100, 60))
    for at_s, index in ((0.02, 0), (0.03, 0), (0.035, 1)):
        clock.now_s = at_s
        meter.see(Delta(index, "x", (1,)))
    meter.see(Final(0, "xx", FinishReason.EOS, Usage(100, 2, 60), Timings(0, 0, 0)))
    assert metrics.registry.get_sample_value("zenray_requests_ongoing") == 1
    clock.now_s = 0.05
    assert meter.end("EOS") == pytest.approx(50)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert meter.first_token_ms == pytest.approx(20)
    assert value("zenray_first_token_seconds_count", priority="interactive") == 1
    assert value("zenray_first_token_seconds_sum", priority="interactive") == pytest.approx(0.02)
    assert value("zenray_between_tokens_seconds_count", priority="interactive") == 1
    assert value("zenray_between_tokens_seconds_sum", priority="interactive") == pytest.approx(0.01)
    assert value("zenray_cached_prompt_tokens_total") == 60
    assert value("zenray_requests_total", priority="interactive", outcome="EOS") == 1
    assert value("zenray_requests_ongoing") == 0


def test_every_verifier_is_shown_by_its_replica_id() -> None:
    loads = {
        "a": VerifierLoad(EngineLoad(free_blocks=7, generated_tokens=10)),
        "b": VerifierLoad(EngineLoad(free_blocks=9)),
    }
    metrics = ServingMetrics(lambda: loads, lambda: 3)
    text = metrics.text().decode()
    assert 'zenray_verifier_free_blocks{replica="a"} 7.0' in text
    assert 'zenray_verifier_free_blocks{replica="b"} 9.0' in text
    assert 'zenray_verifier_generated_tokens_total{replica="a"} 10.0' in text
    assert "zenray_verifier_replicas 2.0" in text
    assert "zenray_reruns_total 3.0" in text
    loads.clear()
    assert 'replica="a"' not in metrics.text().decode()


def test_every_drafter_is_shown_beside_its_verifier() -> None:
    pool = DrafterLoad("draft_pool", 10, 40, 30, timeouts=2, draft_ms=1500.0, queue_age_ms=20.0, replicas=3)
    loads = {
        "a": VerifierLoad(EngineLoad(rounds=25, drafters=(pool, DrafterLoad("suffix", 4, 12, 12)))),
        "b": VerifierLoad(EngineLoad()),
    }
    metrics = ServingMetrics(lambda: loads)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"replica": "a", **labels})

    assert value("zenray_verifier_rounds_total") == 25
    shown = {
        name: value(f"zenray_drafter_{name}", drafter="draft_pool")
        for name in (
            *("rounds_total", "drafted_tokens_total", "accepted_tokens_total", "wasted_tokens_total"),
            *("bonus_tokens_total", "timeouts_total", "draft_seconds_total", "queue_age_seconds", "replicas"),
        )
    }
    assert list(shown.values()) == [10, 40, 30, 10, 10, 2, 1.5, 0.02, 3]
    assert value("zenray_drafter_wasted_tokens_total", drafter="suffix") == 0
    assert 'zenray_drafter_rounds_total{drafter="suffix",replica="b"}' not in metrics.text().decode()


def test_shards_and_their_placement_are_shown_beside_their_verifier() -> None:
    placement = ExpertPlacement(4, {0: ((0,), (0, 1), ())})
    reports = [ShardReport(shard, "host", 7, 2, 1000, 5000, None, 3, 30, 1500.0) for shard in (0, 1)]
    shards = (
        ShardStatus(0, "serving", "in-process", reports[0]),
        ShardStatus(1, "serving", "unix", reports[1]),
        ShardStatus(2, "lost", "unix", reports[1]),
        ShardStatus(3, "joining", "unix", None),
    )
    load = {ExpertId(0, expert): share for expert, share in enumerate((0.5, 0.5, 0.0))}
    lost = ExpertStatus(placement, shards, load, 2, 100.0, 250.0, 1, 300.0, 2000.0, "expert 2 of layer 0 is lost")
    loads = {"a": VerifierLoad(EngineLoad(), lost), "b": VerifierLoad(EngineLoad())}
    metrics = ServingMetrics(lambda: loads)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"replica": "a", **labels})

    of_replica = {
        name: value(f"zenray_experts_{name}")
        for name in (
            *("epoch", "missing", "unavailable", "longest_recovery_seconds"),
            *("recoveries_total", "rebalances_total", "dispatch_seconds_total", "step_seconds_total"),
        )
    }
    assert list(of_replica.values()) == [4, 1, 1, 0.25, 2, 1, 0.3, 2]
    assert value("zenray_experts_imbalance_ratio") == imbalance(placement, load)
    states = [value("zenray_expert_shards", state=state) for state in ("serving", "joining", "lost")]
    assert states == [2, 1, 1]
    of_shard = [
        value(f"zenray_expert_shard_{name}", shard="1")
        for name in ("experts", "weight_bytes", "resident_bytes", "pairs_total", "busy_seconds_total")
    ]
    assert of_shard == [2, 1000, 5000, 30, 1.5]
    assert value("zenray_expert_shard_experts", shard="2") is None  # Nobody is told what the dead hold.
    assert metrics.registry.get_sample_value("zenray_verifier_replicas") == 1
    assert 'replica="b"' not in "".join(line for line in metrics.text().decode().splitlines() if "expert" in line)


def test_a_choice_is_measured_by_its_tokens_per_round_and_what_it_accepted() -> None:
    metrics = ServingMetrics(dict)
    meter = RequestMeter(metrics, "interactive")
    drafters = (DrafterUsage("suffix", 2, 20, 15), DrafterUsage("recycling", 3, 5, 1))
    meter.see(Final(0, "", FinishReason.EOS, Usage(1, 24, 0, 8, drafters), Timings(0, 0, 0)))
    meter.see(Final(1, "", FinishReason.DEADLINE, Usage(1, 0, 0), Timings(0, 0, 0)))
    value = metrics.registry.get_sample_value
    assert (value("zenray_tokens_per_round_count"), value("zenray_tokens_per_round_sum")) == (1, 3)
    assert value("zenray_acceptance_ratio_sum", {"drafter": "suffix"}) == 0.75
    assert value("zenray_acceptance_ratio_sum", {"drafter": "recycling"}) == 0.2
    assert (meter.rounds, meter.drafted_tokens, meter.accepted_tokens) == (8, 25, 16)


def test_a_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("zenray.serving", logging.WARNING, "file.py", 1, "lost %s\nagain", ("a",), None)
    record.request_id, record.outcome = "r-1", "EOS"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["message"], entry["request_id"]) == ("warning", "lost a\nagain", "r-1")
