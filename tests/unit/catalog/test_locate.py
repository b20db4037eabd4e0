"""A model file is refused before anything starts unless its bytes are right; its hash is computed once."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from zenray.errors import ConfigError, InvalidRequest, ModelFileError, NotFound
from zenray.model import digest
from zenray.model.catalog import Catalog, CatalogEntry, locate, resolve
from zenray.model.gguf_header import read_header
from zenray.model.importing import import_model


@pytest.fixture
def gguf_file(tmp_path: Path, model_home: Path) -> Path:
    """A GGUF with one tensor of 64 x 4 float32, aligned to 32 bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    metadata = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.license") + struct.pack("<I", 8) + text("mit"),
        text("llama.context_length") + struct.pack("<II", 4, 512),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
    ]
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(metadata)) + b"".join(metadata) + tensor
    head += bytes(-len(head) % 32)
    path = tmp_path / "My Model.gguf"
    path.write_bytes(head + bytes(range(256)) * 4)
    return path


@pytest.fixture
def safetensors_folder(tmp_path: Path, model_home: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 128}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(32))
    return folder


class TestShippedCatalog:
    def test_names_three_models_with_their_hashes_and_recipes_for_two_more(self, model_home: Path) -> None:
        entries = Catalog.load().entries
        fetched = {name: entry for name, entry in entries.items() if entry.sha256 is not None}
        assert {name: (entry.architecture, entry.size_bytes, entry.sha256[:8]) for name, entry in fetched.items()} == {
            "qwen2.5-coder-0.5b": ("qwen2", 491_400_064, "1d961463"),
            "qwen2.5-coder-1.5b": ("qwen2", 1_117_320_768, "cc324af0"),
            "smollm2-135m": ("llama", 98_362_432, "b179c952"),
        }
        recipes = {name: entry.recipe for name, entry in entries.items() if name not in fetched}
        assert {name: recipe.model for name, recipe in recipes.items() if recipe is not None} == {
            "qwen2.5-coder-0.5b-moe": "qwen2.5-coder-0.5b",
            "qwen2.5-coder-1.5b-moe": "qwen2.5-coder-1.5b",
        }

    def test_every_entry_has_the_hub_first_then_a_mirror_or_is_made_here(self, model_home: Path) -> None:
        for entry in Catalog.load().entries.values():
            assert [source.kind for source in entry.sources] in (["hub", "packages"], ["upcycle"])
            assert entry.license == "Apache-2.0"

    def test_a_bad_overlay_names_file_and_entry(self, model_home: Path) -> None:
        (model_home / "catalog.yaml").write_text("mine:\n  architecture: llama\n")
        with pytest.raises(ConfigError, match=r"catalog\.yaml: mine: "):
            Catalog.load()

    def test_an_overlay_cannot_take_a_shipped_name(
        self, model_home: Path, add_entry: Callable[..., CatalogEntry]
    ) -> None:
        fields = add_entry().model_dump(mode="json", exclude={"name"})
        (model_home / "catalog.yaml").write_text(yaml.safe_dump({"smollm2-135m": fields}))
        with pytest.raises(ConfigError, match="smollm2-135m: this name belongs to the shipped catalog"):
            Catalog.load()


class TestResolve:
    def test_not_pulled_says_how_to(self, model_home: Path) -> None:
        with pytest.raises(ModelFileError, match="fetch it: zenray models pull smollm2-135m"):
            resolve("smollm2-135m")

    def test_neither_name_nor_path(self, model_home: Path) -> None:
        with pytest.raises(NotFound, match=r"did you mean 'qwen2\.5-coder-1\.5b'"):
            resolve("qwen2.5-coder-15b")
        with pytest.raises(ModelFileError, match="no such file"):
            resolve("./gone.gguf")

    def test_a_preset_has_no_file(self, model_home: Path) -> None:
        with pytest.raises(InvalidRequest, match="preset:tiny"):
            resolve("preset:tiny")

    def test_a_path_is_checked_for_completeness(self, gguf_file: Path) -> None:
        assert resolve(str(gguf_file)) == gguf_file
        os.truncate(gguf_file, gguf_file.stat().st_size - 1)
        with pytest.raises(ModelFileError, match=r"truncated: [\d,]+ bytes, its header declares"):
            resolve(str(gguf_file))

    @pytest.mark.parametrize("num_bytes", [0, 3, 4, 20, 60, 150])
    def test_a_file_cut_in_its_header_is_refused(self, gguf_file: Path, num_bytes: int) -> None:
        os.truncate(gguf_file, num_bytes)
        with pytest.raises(ModelFileError):
            resolve(str(gguf_file))

    def test_a_file_of_another_kind_is_refused(self, tmp_path: Path, model_home: Path) -> None:
        other = tmp_path / "notes.gguf"
        other.write_text("not a model at all")
        with pytest.raises(ModelFileError, match="not a GGUF file"):
            resolve(str(other))

    def test_a_folder_needs_config_and_whole_shards(self, safetensors_folder: Path) -> None:
        assert resolve(str(safetensors_folder)) == safetensors_folder
        shard = safetensors_folder / "model.safetensors"
        os.truncate(shard, shard.stat().st_size - 4)
        with pytest.raises(ModelFileError, match="truncated or damaged"):
            resolve(str(safetensors_folder))
        shard.unlink()
        with pytest.raises(ModelFileError, match="not a model folder"):
            resolve(str(safetensors_folder))

    def test_shards_of_the_index_must_be_there(self, safetensors_folder: Path) -> None:
        index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
        (safetensors_folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelFileError, match=r"missing: model-2\.safetensors"):
            resolve(str(safetensors_folder))


class TestHash:
    def test_is_remembered_until_the_file_changes(self, gguf_file: Path) -> None:
        read: list[int] = []
        first = locate(str(gguf_file), lambda done, total: read.append(done))
        os.chmod(gguf_file, 0)  # a second read would still work as root; the record decides
        assert digest.remembered(gguf_file) == first.sha256
        os.chmod(gguf_file, 0o644)
        data = bytearray(gguf_file.read_bytes())
        data[-1] ^= 1
        gguf_file.write_bytes(data)
        os.utime(gguf_file, ns=(1, 1))
        assert digest.remembered(gguf_file) is None
        assert locate(str(gguf_file)).sha256 != first.sha256

    def test_a_folder_is_the_hash_of_its_manifest(self, safetensors_folder: Path) -> None:
        before = digest.digest(safetensors_folder).sha256
        assert digest.digest(safetensors_folder).sha256 == before
        (safetensors_folder / "config.json").rename(safetensors_folder / "other.json")
        assert digest.digest(safetensors_folder).sha256 != before

    def test_a_record_that_cannot_be_written_only_costs_time(self, gguf_file: Path, model_home: Path) -> None:
        (model_home / "verified").write_text("a file where a folder should be")
        assert digest.digest(gguf_file).sha256 == digest.digest(gguf_file).sha256
        assert digest.remembered(gguf_file) is None


class TestHeader:
    def test_reads_metadata_and_tensors(self, gguf_file: Path) -> None:
        header = read_header(gguf_file)
        assert header.metadata["general.architecture"] == "llama"
        assert header.metadata["tokenizer.ggml.tokens"] == 2
        assert [(t.name, t.shape, t.type_name, t.num_bytes) for t in header.tensors] == [
            ("token_embd.weight", (64, 4), "F32", 1024)
        ]
        assert header.file_bytes == gguf_file.stat().st_size


class TestImport:
    def test_copies_describes_and_makes_it_servable(self, gguf_file: Path) -> None:
        entry = import_model(gguf_file)
        assert (entry.name, entry.architecture, entry.license, entry.context_length) == (
            "my-model",
            "llama",
            "mit",
            512,
        )
        gguf_file.unlink()
        assert resolve("my-model") == entry.path
        assert Catalog.load().entry("my-model") == entry

    def test_linked_stays_where_it_lies(self, gguf_file: Path, model_home: Path) -> None:
        import_model(gguf_file, "mine", link=True)
        assert resolve("mine") == gguf_file
        assert not (model_home / "models").exists() or not list((model_home / "models").glob("*.gguf"))
        gguf_file.unlink()
        with pytest.raises(ModelFileError, match="is gone; import it again"):
            resolve("mine")

    def test_a_folder(self, safetensors_folder: Path) -> None:
        entry = import_model(safetensors_folder, "folder", license_name="MIT")
        assert (entry.format, entry.architecture, entry.parameters, entry.license) == ("safetensors", "qwen2", 8, "MIT")
        assert (resolve("folder") / "config.json").is_file()

    def test_bytes_the_catalog_knows_take_their_entry(
        self, tmp_path: Path, parts: list[bytes], gguf_file: Path, add_entry: Callable[..., CatalogEntry]
    ) -> None:
        found = digest.digest(gguf_file)
        toy = add_entry(size_bytes=found.size_bytes, sha256=found.sha256)
        assert import_model(gguf_file) == toy
        assert resolve("toy").read_bytes() == gguf_file.read_bytes()

    def test_twice_is_once(self, gguf_file: Path) -> None:
        assert import_model(gguf_file) == import_model(gguf_file)

    def test_a_name_of_other_bytes_is_refused(self, gguf_file: Path) -> None:
        with pytest.raises(InvalidRequest, match="a name that no other model has"):
            import_model(gguf_file, "smollm2-135m")
        with pytest.raises(InvalidRequest, match="letters, digits"):
            import_model(gguf_file, "../escape")

    def test_a_damaged_file_is_refused(self, gguf_file: Path) -> None:
        os.truncate(gguf_file, gguf_file.stat().st_size - 100)
        with pytest.raises(ModelFileError, match="truncated"):
            import_model(gguf_file)
