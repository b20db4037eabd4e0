"""The converted cache: complete or absent, written once, mapped, shared, refused when damaged."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from zenray.errors import ModelFileError
from zenray.model import convert
from zenray.model.config import ModelConfig, RopeScaling
from zenray.model.convert import converted_folder
from zenray.model.evaluate import sequence_logits
from zenray.model.formats import SourceProvider
from zenray.model.load import load_model, load_tokenizer
from zenray.model.source import ModelSource
from zenray.model.tensor_file import TensorFileWriter, map_tensors
from zenray.model.weights import gather, matrix_names, vector_names

WriteModel = Callable[..., Path]
IDS = list(b"def f(x): return x")


def folders(home: Path) -> list[Path]:
    return [path for path in (home / "converted").iterdir() if path.is_dir()]


@pytest.mark.parametrize("weight_format", ["float32", "bf16", "int8", "int4", "mixed"])
def test_what_is_mapped_is_what_was_packed(weight_format: str, model_path: Path) -> None:
    first = load_model(model_path, weight_format=weight_format)  # type: ignore[arg-type]
    again = load_model(model_path, weight_format=weight_format)  # type: ignore[arg-type]
    source = convert.open_source(model_path)
    direct = gather(source.config, SourceProvider(source, weight_format))  # type: ignore[arg-type]
    assert torch.equal(first.decoder.weights.layers[1].qkv.data, direct.layers[1].qkv.data)
    assert torch.equal(sequence_logits(first.decoder, IDS), sequence_logits(again.decoder, IDS))
    assert first.decoder.weights.head is first.decoder.weights.embed, "tied tables are held once"
    assert first.info.sha256 == again.info.sha256
    assert first.info.weight_bytes == direct.num_bytes


def test_the_second_load_converts_nothing(model_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model(model_path, weight_format="int8")
    assert len(folders(own_home)) == 1
    monkeypatch.setattr(convert, "write_weights", None)
    load_model(model_path, weight_format="int8")


def test_one_home_keeps_models_and_formats_apart(
    tmp_path: Path, model_path: Path, own_home: Path, write_model: WriteModel
) -> None:
    other = write_model(tmp_path / "other.gguf", seed=1)
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(model_path.read_bytes())
    for path in (model_path, other, copy):
        for weight_format in ("bf16", "int8"):
            load_model(path, weight_format=weight_format)  # type: ignore[arg-type]
    assert len(folders(own_home)) == 4, "content, not names, makes a folder"


def test_a_change_of_the_file_is_noticed(model_path: Path, write_model: WriteModel) -> None:
    before = load_model(model_path, weight_format="bf16")
    write_model(model_path, seed=2)
    after = load_model(model_path, weight_format="bf16")
    assert before.info.sha256 != after.info.sha256
    assert not torch.equal(sequence_logits(before.decoder, IDS), sequence_logits(after.decoder, IDS))


def test_other_packed_layouts_are_another_folder(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = converted_folder(model_path, "int8")
    convert.version.cache_clear()
    monkeypatch.setattr(convert, "CONVERTER_VERSION", convert.CONVERTER_VERSION + 1)
    second, _ = converted_folder(model_path, "int8")
    convert.version.cache_clear()
    assert first != second


def test_progress_reaches_its_total(model_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    load_model(model_path, weight_format="int8", progress=lambda done, total, label: seen.append((done, total, label)))
    labels = {label for _, _, label in seen}
    assert labels == {"hashing model.gguf", "converting to int8"}
    for label in labels:
        numbers = [(done, total) for done, total, which in seen if which == label]
        assert numbers == sorted(numbers)
        assert numbers[-1][0] == numbers[-1][1] > 0


def test_a_failure_leaves_nothing_behind(model_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModelFileError("tensor x is broken")

    monkeypatch.setattr(convert, "pack_matrix", fail)
    with pytest.raises(ModelFileError, match="tensor x is broken"):
        load_model(model_path, weight_format="int8")
    assert folders(own_home) == []


def test_converting_leaves_the_number_of_threads_alone(model_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        converted_folder(model_path, "int8")
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_too_little_disk_is_told_before_the_work(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelFileError, match="set ZENRAY_HOME to a larger disk"):
        load_model(model_path, weight_format="int8")


def test_a_damaged_cache_says_what_to_delete(model_path: Path) -> None:
    folder, _ = converted_folder(model_path, "int8")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="delete its folder to convert again"):
        load_model(model_path, weight_format="int8")


def _convert(path: str, home: str, start: Callable[[], object], results: multiprocessing.Queue[str]) -> None:
    os.environ["ZENRAY_HOME"] = home
    start()
    results.put(str(converted_folder(Path(path), "int8")[0]))


def test_two_processes_convert_once(tmp_path: Path, own_home: Path, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "model.gguf", hidden=256, layers=4)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_convert, args=(str(path), str(own_home), barrier.wait, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [str(folder) for folder in folders(own_home) if folder.name != "digests"] == list(found)


def _convert_and_hang(path: str, home: str, reached: multiprocessing.synchronize.Event) -> None:
    os.environ["ZENRAY_HOME"] = home

    def hang(done: int, total: int, label: str) -> None:
        if label.startswith("converting") and done > 0:
            reached.set()
            signal.pause()

    converted_folder(Path(path), "int8", hang)


def test_a_killed_conversion_is_taken_over(model_path: Path, own_home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    reached = context.Event()
    process = context.Process(target=_convert_and_hang, args=(str(model_path), str(own_home), reached))
    process.start()
    assert reached.wait(timeout=120)
    (part,) = folders(own_home)
    assert ".part-" in part.name
    process.kill()
    process.join(timeout=60)
    load_model(model_path, weight_format="int8")
    (whole,) = folders(own_home)
    assert ".part-" not in whole.name


def test_the_tokenizer_loads_alone(model_path: Path) -> None:
    tokenizer = load_tokenizer(model_path)
    assert tokenizer.encode("ab") == load_model(model_path, weight_format="int8").tokenizer.encode("ab")
    assert load_tokenizer("preset:tiny").vocab_size == 264
    assert load_tokenizer("preset:tiny", {"vocab_size": 300}).vocab_size == 300


def test_tensor_files_are_safetensors_with_aligned_tensors(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = tmp_path / "t.safetensors"
    tensors = {
        "a": torch.arange(3, dtype=torch.int64),
        "b": torch.randn(16, 33).to(torch.bfloat16),
        "c/d": torch.arange(200, dtype=torch.uint8).reshape(8, 25),
        "e": torch.randn(64, 64, dtype=torch.float64),
        "f": torch.randn(7),
    }
    with TensorFileWriter(path, max_tensors=len(tensors)) as writer:
        for name, tensor in tensors.items():
            writer.add(name, tensor)
    for read in (map_tensors(path), load_file(path)):
        for name, tensor in tensors.items():
            assert torch.equal(read[name], tensor)
    assert all(map_tensors(path)[name].data_ptr() % 64 == 0 for name in ("b", "c/d", "e"))


def test_a_configuration_survives_its_own_json() -> None:
    config = ModelConfig(
        architecture="llama",
        vocab_size=10,
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        intermediate_size=16,
        rope_scaling=RopeScaling(type="factors", frequency_factors=(1.0, 2.0)),
        num_experts=4,
        num_experts_per_token=2,
        expert_intermediate_size=8,
        dense_layers=(1,),
        eos_token_ids=(3, 4),
    )
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_every_tensor_of_an_architecture_has_a_name_and_a_shape(model_path: Path) -> None:
    source: ModelSource = convert.open_source(model_path)
    names = [*vector_names(source.config), *matrix_names(source.config)]
    assert len(names) == len(set(names)) == 2 * 2 + 1 + 4 * 2 + 2
