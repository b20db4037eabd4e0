"""The placement as operators see it: complete as JSON, within 80 columns as a picture, in words without colours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from zenray.api.convert_experts import expert_status_to_proto
from zenray.cli.main import app
from zenray.experts.link import ShardReport
from zenray.experts.placement import ExpertId, ExpertPlacement
from zenray.experts.status import ExpertStatus, ShardState, ShardStatus
from zenray.v1 import completion_pb2

Drawn = Callable[[completion_pb2.ReplicaExperts], list[str]]
STATES: tuple[ShardState, ...] = ("serving", "serving", "lost", "joining")


def message(num_layers: int, num_experts: int, unavailable: str | None = None) -> completion_pb2.ReplicaExperts:
    """Expert e is on shard e % 2; expert 3 is on both and has half of the load."""
    copies = {
        layer: tuple((0, 1) if expert == 3 else (expert % 2,) for expert in range(num_experts))
        for layer in range(num_layers)
    }
    load = {
        ExpertId(layer, expert): 0.5 if expert == 3 else 0.5 / (num_experts - 1)
        for layer in copies
        for expert in range(num_experts)
    }
    placement = ExpertPlacement(7, copies)
    shards = tuple(
        ShardStatus(
            shard,
            state,
            "unix" if shard else "in-process",
            None
            if state == "joining"
            else ShardReport(
                shard, "10.20.130.240", 4_000_000 + shard, 9, 210_000_000, 1_230_000_000, None, 5, 300 + shard, 1.0
            ),
        )
        for shard, state in enumerate(STATES)
    )
    status = ExpertStatus(placement, shards, load, 3, 312.4, 892.0, 1, 120.0, 1000.0, unavailable)
    return completion_pb2.ReplicaExperts(replica_id="replica-1", status=expert_status_to_proto(status))


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args), env={"COLUMNS": "80", "TERM": "dumb"})


@pytest.fixture
def drawn(fake_server: Any) -> Drawn:
    """What `zenray status` prints of a replica's experts, line by line."""

    def draw(sent: completion_pb2.ReplicaExperts) -> list[str]:
        fake_server.experts = (sent,)
        lines = [line.rstrip() for line in run("status", "--address", fake_server.address).stdout.splitlines()]
        return lines[lines.index("experts of verifier replica-1") + 1 :]

    return draw


@pytest.mark.parametrize(("num_layers", "num_experts"), [(2, 8), (24, 16), (90, 128), (61, 256)])
def test_it_fits_a_terminal(drawn: Drawn, num_layers: int, num_experts: int) -> None:
    lines = drawn(message(num_layers, num_experts))
    assert max(map(len, lines)) <= 80
    assert f"{num_layers} layers of {num_experts} experts, {num_layers} spare copies" in " ".join(lines)
    assert sum(line.startswith("shard 0") for line in lines) == -(-num_experts // 64)


def test_the_grid_says_who_holds_what_and_what_is_busy(drawn: Drawn) -> None:
    lines = drawn(message(24, 8))
    grid = {line[:9].strip(): line[9:].split() for line in lines if line.startswith(("shard ", "load", "expert"))}
    assert grid["expert"] == list("01234567")
    assert grid["shard 0"] == ["24", "·", "24", "24", "24", "·", "24", "·"]
    assert grid["shard 1"] == ["·", "24", "·", "24", "·", "24", "·", "24"]
    assert grid["shard 2"] == grid["shard 3"] == ["·"] * 8
    assert grid["load"][3] == "█"
    assert set(grid["load"]) == {"█", grid["load"][0]}


def test_every_shard_has_a_line_with_its_state_process_and_memory(drawn: Drawn) -> None:
    text = "\n".join(drawn(message(24, 16)))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()[1:2] and line[:1] == " "}
    assert rows["0"] == ["serving", "10.20.130.240", "4000000", "-", "9", "210.0", "MB", "1.23", "GB", "33%"]
    assert rows["1"][:4] == ["serving", "10.20.130.240", "4000001", "unix"]
    assert rows["2"][0] == "lost"
    assert rows["3"] == ["joining"]
    assert "epoch 7" in text
    assert "3, the last in 312 ms, the longest 892; 1 rebalances" in text
    assert "12.0% of the time of all steps" in text


def test_experts_that_nobody_holds_are_counted(drawn: Drawn) -> None:
    sent = message(2, 8)
    assert "imbalance 1." in drawn(sent)[0]
    sent.status.layers[1].holders[5] = 0
    (summary,) = [line for line in drawn(sent) if line.startswith("placement")]
    assert summary.endswith("2 spare copies, 1 missing")


def test_what_has_no_place_comes_first(drawn: Drawn) -> None:
    assert drawn(message(2, 8, "expert 5 of layer 1 has no place"))[0].endswith("expert 5 of layer 1 has no place")


def test_json_says_everything(fake_server: Any) -> None:
    fake_server.experts = (message(2, 4),)
    (found,) = json.loads(run("status", "--json", "--address", fake_server.address).stdout)["experts"]
    assert (found["replica_id"], found["epoch"], found["unavailable"]) == ("replica-1", 7, None)
    assert [shard["state"] for shard in found["shards"]] == list(STATES)
    assert [shard["pid"] for shard in found["shards"]] == [4_000_000, 4_000_001, 4_000_002, None]
    assert found["shards"][1]["capacity"] is None
    assert [layer["holders"] for layer in found["layers"]] == [[[0], [1], [0], [0, 1]]] * 2
    assert found["layers"][1]["load"][3] == 0.5
    assert found["imbalance"] >= 1
