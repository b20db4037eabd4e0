"""Upcycled models by name: made once, found again, made anew when damaged, and never half there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from zenray.cli.main import app
from zenray.errors import InvalidRequest, ModelFileError
from zenray.model import catalog as catalogs
from zenray.model.catalog import Catalog, CatalogEntry
from zenray.model.convert import open_source
from zenray.model.download import PullProgress, pull
from zenray.model.importing import import_model
from zenray.model.upcycle_settings import Upcycling
from zenray.model.upcycle_store import make, new_entry, settings_of

_MAKE = """
import os, signal, sys
from zenray.model.download import pull
from zenray.model.upcycle_settings import Upcycling
from zenray.model.upcycle_store import new_entry

def die_midway(progress):
    if progress.stage == "make" and progress.done_bytes > progress.total_bytes // 2:
        os.kill(os.getpid(), signal.SIGKILL)

pull(new_entry("moe", "dense", Upcycling(num_experts=4)), die_midway)
"""


@pytest.fixture
def dense(model_path: Path) -> CatalogEntry:
    """A small dense model under the name `dense`."""
    return import_model(model_path, "dense", license_name="MIT")


@pytest.fixture
def shipped_recipe(dense: CatalogEntry, monkeypatch: pytest.MonkeyPatch) -> CatalogEntry:
    """`shipped-moe`, a recipe for the small model in the shipped catalog."""
    entry = CatalogEntry.model_validate(
        {
            "name": "shipped-moe",
            "architecture": "qwen2_moe",
            "parameters": 1,
            "license": "MIT",
            "context_length": 64,
            "format": "safetensors",
            "size_bytes": 1,
            "sources": [{"kind": "upcycle", "model": "dense", "num_experts": 4}],
        }
    )
    monkeypatch.setattr(catalogs, "_shipped_entries", lambda: {entry.name: entry})
    return entry


def left_over(home: Path) -> list[str]:
    """What lies in the store besides whole models and locks."""
    folder = home / "models" / ".partial"
    return [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


class TestMaking:
    def test_a_new_model_is_in_the_catalog_and_verified(self, own_home: Path, dense: CatalogEntry) -> None:
        seen: list[PullProgress] = []
        path = pull(new_entry("moe", "dense", Upcycling(num_experts=4)), seen.append)
        found = Catalog.load().locate("moe")
        entry = found.entry
        assert entry is not None and entry.path == path
        assert (entry.architecture, entry.license, entry.context_length) == ("qwen2_moe", "MIT", 256)
        assert entry.parameters == open_source(path).config.num_parameters
        assert entry.recipe is not None and entry.recipe.model == "dense"
        made = [progress for progress in seen if progress.stage == "make"]
        assert made[-1].done_bytes == made[-1].total_bytes
        assert [each.done_bytes for each in made] == sorted(each.done_bytes for each in made)
        assert left_over(own_home) == []

    def test_its_files_need_not_be_read_again_to_be_known(
        self, dense: CatalogEntry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from zenray.model import digest

        path = pull(new_entry("moe", "dense", Upcycling(num_experts=4)))
        assert digest.remembered(path) == Catalog.load().entry("moe").sha256
        assert digest.digest(path, fresh=True).sha256 == Catalog.load().entry("moe").sha256

    def test_pulling_again_does_nothing_and_a_damaged_one_is_made_again(self, dense: CatalogEntry) -> None:
        path = pull(new_entry("moe", "dense", Upcycling(num_experts=4)))
        entry, shard = Catalog.load().entry("moe"), next(iter(path.glob("*.safetensors")))
        written = shard.stat().st_mtime_ns
        pull(entry)
        assert shard.stat().st_mtime_ns == written
        with shard.open("r+b") as file:
            file.truncate(100)
        with pytest.raises(ModelFileError, match="truncated"):
            Catalog.load().locate("moe")
        said: list[str] = []
        pull(entry, lambda progress: said.append(progress.message))
        assert any("making it again" in message for message in said)
        assert Catalog.load().locate("moe").sha256 == entry.sha256

    def test_a_path_will_do_as_a_source(self, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(model_path.parent)
        pull(new_entry("moe", f"./{model_path.name}", Upcycling(num_experts=4)))
        recipe = Catalog.load().entry("moe").recipe
        assert recipe is not None and recipe.model == str(model_path)

    @pytest.mark.parametrize("name", ["dense", "qwen2.5-coder-0.5b", "no/name", ""])
    def test_a_name_that_is_taken_or_none(self, dense: CatalogEntry, name: str) -> None:
        with pytest.raises(InvalidRequest, match="--output is"):
            new_entry(name, "dense", Upcycling(num_experts=4))


class TestInterruption:
    def test_ctrl_c_leaves_nothing_behind(self, own_home: Path, dense: CatalogEntry) -> None:
        def interrupt(progress: PullProgress) -> None:
            if progress.stage == "make" and progress.done_bytes > progress.total_bytes // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pull(new_entry("moe", "dense", Upcycling(num_experts=4)), interrupt)
        assert left_over(own_home) == []
        assert not (own_home / "models" / "moe").exists()
        assert "moe" not in Catalog.load().entries

    @pytest.mark.parametrize("name", ["moe", "another"])
    def test_what_a_killed_process_left_is_cleared_by_the_next(
        self, own_home: Path, dense: CatalogEntry, name: str
    ) -> None:
        killed = subprocess.run([sys.executable, "-c", _MAKE], env={**os.environ, "ZENRAY_HOME": str(own_home)})
        assert killed.returncode == -signal.SIGKILL
        assert left_over(own_home) != []
        assert "moe" not in Catalog.load().entries
        pull(new_entry(name, "dense", Upcycling(num_experts=4)))
        assert left_over(own_home) == []
        Catalog.load().locate(name)


class TestRecipes:
    def test_one_is_followed_on_the_first_pull_and_its_hash_recorded(self, shipped_recipe: CatalogEntry) -> None:
        with pytest.raises(ModelFileError, match="made of dense on this machine; make it: zenray models pull"):
            Catalog.load().locate("shipped-moe")
        path = pull(shipped_recipe)
        entry = Catalog.load().entry("shipped-moe")
        assert entry.sha256 == Catalog.load().locate("shipped-moe").sha256
        assert entry.title == shipped_recipe.title
        assert entry.path == path

    def test_the_source_is_pulled_first(self, shipped_recipe: CatalogEntry, dense: CatalogEntry) -> None:
        lost = dense.path.rename(dense.path.with_suffix(".moved"))
        overlay = catalogs.user_catalog_path()
        data: dict[str, Any] = yaml.safe_load(overlay.read_text())
        data["dense"]["sources"] = [{"kind": "path", "path": str(lost)}]
        overlay.write_text(yaml.safe_dump(data))
        pull(shipped_recipe)
        assert dense.path.exists()

    def test_only_a_recipe_may_leave_its_hash_open(self) -> None:
        fields = {"architecture": "llama", "parameters": 1, "license": "MIT", "context_length": 1, "size_bytes": 1}
        with pytest.raises(ValueError, match="sha256 is missing"):
            CatalogEntry.model_validate({"name": "x", "format": "gguf", **fields})

    def test_settings_are_checked_by_field(self) -> None:
        with pytest.raises(InvalidRequest, match=r"noise is -1.0; allowed: .*greater than or equal to 0"):
            settings_of(noise=-1.0)
        with pytest.raises(InvalidRequest, match=r"dtype is 'int8'; allowed: .*'float16'"):
            settings_of(dtype="int8")


class TestCommand:
    def test_it_makes_a_model_and_says_how_to_serve_it(self, dense: CatalogEntry) -> None:
        result = CliRunner().invoke(app, ["models", "upcycle", "dense", "--experts", "8", "--seed", "1", "-o", "mine"])
        assert result.exit_code == 0, result.output
        assert "mine is ready: qwen2_moe" in result.output
        assert "times its share" in result.output
        inspected = CliRunner().invoke(app, ["models", "inspect", "mine"])
        assert inspected.exit_code == 0, inspected.output
        assert "experts per token" in inspected.output
        listed = CliRunner().invoke(app, ["models", "list"]).output
        assert any(line.startswith("mine") and "ready" in line for line in listed.splitlines())

    def test_wrong_numbers_are_one_line(self, dense: CatalogEntry) -> None:
        result = CliRunner().invoke(app, ["models", "upcycle", "dense", "--experts", "7", "-o", "mine"])
        assert result.exit_code == 1
        assert "experts is 7; allowed: multiples of top_k" in result.stderr


def test_making_twice_at_once_is_one_making(
    own_home: Path, dense: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Thread

    from zenray.model import upcycle_store

    calls: list[str] = []

    def counted(entry: CatalogEntry, *rest: Any) -> None:
        calls.append(entry.name)
        make(entry, *rest)

    monkeypatch.setattr(upcycle_store, "make", counted)
    entry = new_entry("moe", "dense", Upcycling(num_experts=4))
    threads = [Thread(target=pull, args=(entry,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert calls == ["moe"]
