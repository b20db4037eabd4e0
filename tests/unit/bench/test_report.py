from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zenray.bench.bandwidth import Bandwidth
from zenray.bench.engine_bench import EnginePlan, StepBytes
from zenray.bench.overhead import overhead_rows
from zenray.bench.prompts import build_prompts
from zenray.bench.report import SCHEMA, make_report, write_report
from zenray.bench.statistics import Arrival, Distribution, RequestRecord, summarise
from zenray.bench.tables import show

PROMPTS = build_prompts(per_kind=1)


def spread(*values: float) -> dict[str, Any]:
    return asdict(Distribution.of(values))


def latencies() -> dict[str, Any]:
    return {name: spread(1.0, 2.0, 30.0) for name in ("ttft_ms", "itl_ms", "tpot_ms", "tfcl_ms")}


def engine_results() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in ("bf16", "mixed"):
        rates = {"tokens_per_s": spread(30.0, 31.0, 33.3333333333), "gb_per_s": 20.0}
        read = {"weight_bytes_per_step": 10**9, "kv_bytes_per_step": 10**6}
        again = {"cold_ttft_ms": spread(1500.0), "warm_ttft_ms": spread(30.0), "warm_over_cold": spread(0.02)}
        measured: list[dict[str, Any]] = [
            {"measure": "decode", "batch": 1, **rates, **read, **latencies()},
            {"measure": "decode", "batch": 8, **rates, **read, **latencies()},
            {"measure": "prefill", **rates, "prompt_tokens": spread(512), "ttft_ms": spread(500.0)},
            {"measure": "repeat", "prompt_tokens": spread(1500), "cached_tokens": spread(1488), **again},
        ]
        rows += [{"model": "a-model", "format": name, **row} for row in measured]
    return rows


def serving_results() -> list[dict[str, Any]]:
    arrivals = (Arrival(1.0, 1, "a\n"), Arrival(1.5, 1, "b"))
    good = summarise([RequestRecord("r", 0.5, 1.5, arrivals)]).as_dict()
    failed = summarise([RequestRecord("r", 0.5, 1.5, error="CallFailed: no")]).as_dict()
    return [
        {"measure": "serving", "target": target, "prompts": kind, "concurrency": load, "rate_per_s": None, **summary}
        for target, summary in (("grpc://a:1", good), ("http://b:2", failed))
        for kind in ("short", "fim")
        for load in (1, 4)
    ]


def overhead_results() -> list[dict[str, Any]]:
    def record(first_s: float, gap_s: float) -> RequestRecord:
        arrivals = tuple(Arrival(first_s + gap_s * number, 1, "x") for number in range(3))
        return RequestRecord("r", 0.0, arrivals[-1].at_s, arrivals, server_first_token_ms=100.0)

    return overhead_rows({"direct": [record(0.101, 0.010)] * 3, "served": [record(0.105, 0.0105)] * 3})


RESULTS = {"engine": engine_results, "serving": serving_results, "overhead": overhead_results}


def report_of(kind: str) -> dict[str, Any]:
    return make_report(
        kind,  # type: ignore[arg-type]
        RESULTS[kind](),
        prompts=PROMPTS.identity,
        settings={"rounds": 3},
        bandwidth=Bandwidth(40.0, 2, 1024) if kind == "engine" else None,
        foreign_cpu_share=0.3 if kind == "engine" else None,
    )


@pytest.mark.parametrize("kind", RESULTS)
def test_a_report_is_the_same_shape_whatever_was_measured(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(report_of(kind), path)
    loaded = json.loads(path.read_text())
    assert set(loaded) == {
        "schema", "kind", "created", "machine", "foreign_cpu_share", "prompts", "settings", "results",
    }  # fmt: skip
    assert (loaded["schema"], loaded["kind"]) == (SCHEMA, kind)
    assert set(loaded["machine"]) == {
        "cores", "threads", "processor", "architecture", "cpu_flags", "memory_gib", "system", "python", "packages",
        "read_gb_per_s",
    }  # fmt: skip
    assert loaded["machine"]["cores"] >= 1 and loaded["machine"]["packages"]["torch"]
    assert loaded["prompts"] == {"sha256": PROMPTS.sha256, "python": PROMPTS.python_version, "count": 5}
    assert all(row["measure"] for row in loaded["results"])
    assert list(tmp_path.iterdir()) == [path]  # no half-written file beside it


def test_numbers_carry_six_digits() -> None:
    rate = report_of("engine")["results"][0]["tokens_per_s"]
    assert rate["maximum"] == 33.3333
    assert rate["count"] == 3


@pytest.mark.parametrize("kind", RESULTS)
def test_every_report_prints(kind: str) -> None:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - the console owns it
    for part in show(report_of(kind)):
        console.print(part)
    text = console.export_text()
    expected = {
        "engine": ["disturbed", "a-model", "bf16", "20.0", "50%", "2.0%"],
        "serving": ["grpc://a:1", "C=4", "fim", "500"],
        "overhead": ["direct", "served", "added on the first token: p50 5.00 ms", "chunk: 0.50 ms"],
    }
    assert [word for word in expected[kind] if word not in text] == []


@pytest.mark.parametrize("kind", RESULTS)
def test_every_report_draws(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from zenray.bench.plot import plot_report

    plot_report(report_of(kind), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_added_latency_is_what_the_engine_did_not_report() -> None:
    added = overhead_results()[-1]
    assert added["ttft_ms"]["p50"] == pytest.approx(5.0)  # 105 ms seen, 100 ms reported by the engine
    assert added["ttft_p50_difference_ms"] == pytest.approx(4.0)
    assert added["itl_p50_difference_ms"] == pytest.approx(0.5)


def test_bytes_of_a_step() -> None:
    step = StepBytes(weights=10**9, kv_per_token=1000)
    assert step.gb_per_s(steps_per_s=10.0, context_tokens=10**6) == pytest.approx(20.0)


def test_a_plan_knows_its_length() -> None:
    assert EnginePlan((1, 4, 8), ("decode", "prefill", "repeat"), rounds=3).num_steps == 15
    assert EnginePlan((1, 4, 8), ("prefill",), rounds=3).num_steps == 3
