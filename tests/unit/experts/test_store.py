"""A store holds what it is told to, checks what it reads, and says no in time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from zenray.config import ModelSettings
from zenray.errors import ModelFileError
from zenray.experts.link import ShardRefused
from zenray.experts.placement import ExpertId
from zenray.experts.store import ExpertStore, capacity_of
from zenray.model.build import build_model, open_weights
from zenray.model.convert import ConvertedProvider, converted_folder
from zenray.model.load import OpenedWeights
from zenray.model.tensor_file import map_tensors
from zenray.model.weights import MoeWeights

ALL = [ExpertId(layer, expert) for layer in range(3) for expert in range(4)]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path / "home"))


def settings_of(checkpoint: Path, **fields: Any) -> ModelSettings:
    return ModelSettings(name=str(checkpoint), **{"weight_format": "int8", **fields})


def test_what_a_store_holds_is_what_the_decoder_holds(toy_checkpoint: Path) -> None:
    decoder = build_model(settings_of(toy_checkpoint)).decoder
    store = ExpertStore(open_weights(settings_of(toy_checkpoint)).provider)
    store.load(ALL)
    total = 0
    for layer, expert in ALL:
        moe = decoder.weights.layers[layer].feed_forward
        assert isinstance(moe, MoeWeights)
        held = store.held[ExpertId(layer, expert)]
        assert torch.equal(held.gate_up.data, moe.experts[expert].gate_up.data)
        assert torch.equal(held.down.data, moe.experts[expert].down.data)
        total += moe.experts[expert].num_bytes
    assert store.num_bytes == total
    store.drop([*ALL[:6], ExpertId(9, 9)])
    assert set(store.held) == set(ALL[6:])
    assert store.num_bytes == total // 2


def test_a_flipped_bit_is_found_by_whoever_loads_that_expert_and_by_nobody_else(toy_checkpoint: Path) -> None:
    folder, _ = converted_folder(toy_checkpoint, "int8")
    flip_bit_of(folder, "layers.1.experts.2.down/int8.data")
    store = ExpertStore(open_weights(settings_of(toy_checkpoint)).provider)
    store.load(at for at in ALL if at != ExpertId(1, 2))
    with pytest.raises(ModelFileError, match=r"weights\.safetensors: layers\.1\.experts\.2\.down has changed.*delete"):
        store.load([ExpertId(1, 2)])
    assert ExpertId(1, 2) not in store.held


@pytest.mark.parametrize("weight_format", ["float32", "bf16", "int8", "int4"])
def test_every_matrix_has_its_digest_in_every_format(toy_checkpoint: Path, weight_format: Any) -> None:
    folder, _ = converted_folder(toy_checkpoint, weight_format)
    provider = ConvertedProvider(folder)
    names = {name.partition("/")[0] for name in map_tensors(folder / "weights.safetensors")}
    recorded = json.loads((folder / "model.json").read_text())["sha256"]
    assert set(recorded) == names
    matrices = [name for name in names if "norm" not in name and not name.endswith("router")]
    assert len(matrices) == 2 + 3 * (2 + 2 * 4)
    for name in matrices:
        provider.check(name)


def test_equal_settings_have_equal_digests_and_others_have_not(toy_checkpoint: Path) -> None:
    def digest(**fields: Any) -> str:
        return open_weights(ModelSettings(**fields)).provider.digest

    toy = {"name": "preset:tiny-moe", "weight_format": "float32"}
    file = {"name": str(toy_checkpoint), "weight_format": "int8"}
    assert digest(**toy) == digest(**toy)
    assert digest(**file) == digest(**file)
    others = [
        toy,
        {**toy, "random_seed": 1},
        {**toy, "weight_format": "bf16"},
        {**toy, "weight_format": "int8"},
        {**toy, "preset_overrides": {"num_layers": 1}},
        file,
        {**file, "weight_format": "bf16"},
    ]
    assert len({digest(**fields) for fields in others}) == len(others)


def test_beyond_its_capacity_a_store_refuses_all_or_nothing(toy: OpenedWeights) -> None:
    expert_bytes = 3 * 64 * 64 * 4
    capacity = capacity_of(3.5 * expert_bytes / 2**20, toy.config, toy.provider)
    assert capacity == 3
    assert capacity_of(0, toy.config, toy.provider) is None
    store = ExpertStore(toy.provider, capacity=capacity)
    store.load([ExpertId(0, 0), ExpertId(0, 1)])
    with pytest.raises(ShardRefused, match="no memory"):
        store.load([ExpertId(0, 2), ExpertId(0, 3)])
    assert set(store.held) == {ExpertId(0, 0), ExpertId(0, 1)}
    store.load([ExpertId(0, 0), ExpertId(0, 2)])
    assert len(store.held) == 3, "what is held already needs no room"


def test_weights_in_use_survive_being_dropped(toy_checkpoint: Path) -> None:
    """A call that is being computed while its experts are dropped reads the same bytes."""
    store = ExpertStore(open_weights(settings_of(toy_checkpoint, weight_format="bf16")).provider)
    store.load(ALL)
    in_use = dict(store.held)
    before = {at: (weights.gate_up.data.clone(), weights.down.data.clone()) for at, weights in in_use.items()}
    store.drop(ALL)
    for at, (gate_up, down) in before.items():
        assert torch.equal(in_use[at].gate_up.data, gate_up)
        assert torch.equal(in_use[at].down.data, down)
    store.load(ALL[:2])
    assert set(store.held) == set(ALL[:2])


def test_loading_and_dropping_at_once_loses_nothing(toy: OpenedWeights) -> None:
    store = ExpertStore(toy.provider)
    start = threading.Barrier(8)

    def load(expert: int) -> None:
        start.wait(60)
        store.load([ExpertId(0, expert), ExpertId(1, expert)])
        store.drop([ExpertId(1, expert)])

    threads = [threading.Thread(target=load, args=(expert,)) for expert in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(store.held) == {ExpertId(0, expert) for expert in range(8)}


def flip_bit_of(folder: Path, tensor: str) -> None:
    """One bit in the middle of a stored tensor."""
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    header_bytes = int.from_bytes(data[:8], "little")
    start, stop = json.loads(data[8 : 8 + header_bytes])[tensor]["data_offsets"]
    data[8 + header_bytes + (start + stop) // 2] ^= 4
    path.write_bytes(data)
