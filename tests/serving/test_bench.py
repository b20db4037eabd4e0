"""The benchmark against a running platform: both doors, and what they add to the engine."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from zenray.api.client import Client
from zenray.bench.cli import app
from zenray.serving.app import Platform


def test_both_doors_under_load(platform: Platform, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "serving.json"
    doors = ["--target", f"grpc://{platform.grpc_address}", "--target", platform.http_url]
    load = ["--concurrency", "1,3", "--kind", "short,fim", "--requests", "4", "--max-tokens", "5"]
    result = CliRunner().invoke(app, ["serving", *doors, *load, "--json", str(out)])
    assert result.exit_code == 0, result.exception
    rows = json.loads(out.read_text())["results"]
    assert [(row["prompts"], row["concurrency"]) for row in rows[::2]] == [
        ("short", 1), ("short", 3), ("fim", 1), ("fim", 3),
    ]  # fmt: skip
    for row in rows:
        assert (row["num_requests"], row["num_failed"], row["errors"]) == (4, 0, {})
        assert row["output_tokens"] == 4 * 5 and row["prompt_tokens"] > 0
        assert row["ttft_ms"]["count"] == 4


def test_an_open_loop(platform: Platform, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "open.json"
    load = ["--rate", "20", "--requests", "5", "--max-tokens", "3", "--json", str(out)]
    result = CliRunner().invoke(app, ["serving", "--target", f"grpc://{platform.grpc_address}", *load])
    assert result.exit_code == 0, result.exception
    (row,) = json.loads(out.read_text())["results"]
    assert (row["rate_per_s"], row["num_failed"], row["output_tokens"]) == (20, 0, 15)


def test_what_serving_adds(platform: Platform, client: Client, tmp_path: Path) -> None:
    out = tmp_path / "overhead.json"
    plan = ["--profile", "tiny", "--requests", "4", "--rounds", "2", "--max-tokens", "4", "--json", str(out)]
    result = CliRunner().invoke(app, ["overhead", "--target", f"grpc://{platform.grpc_address}", *plan])
    assert result.exit_code == 0, result.exception
    rows = json.loads(out.read_text())["results"]
    paths = {row["path"]: row for row in rows if row["measure"] == "path"}
    assert {path: row["ttft_ms"]["count"] for path, row in paths.items()} == {"direct": 8, "served": 8}
    (added,) = [row for row in rows if row["measure"] == "added"]
    assert added["ttft_ms"]["count"] == 8 and added["ttft_ms"]["minimum"] > 0
    memory = [row for row in rows if row["measure"] == "memory"]  # of every verifier on this machine, also others'
    assert memory
    assert all(row["resident_mib"] > 0 < row["kv_budget_mib"] for row in memory)
