"""Take a user's own model file into the store under a name, and write it into the user's catalog."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from zenray.config import home
from zenray.errors import InvalidRequest, ModelFileError
from zenray.model import digest
from zenray.model.catalog import Catalog, CatalogEntry, FimTemplate, ModelFile, user_catalog_path
from zenray.model.gguf_header import read_header

_DESCRIPTION = {"title", "architecture", "parameters", "license", "context_length", "format", "fim"}
_UNKNOWN_LICENSE = "unknown"
_QWEN_ARCHITECTURES = ("qwen2", "qwen3", "qwen2moe", "qwen3moe")


def import_model(
    path: Path,
    name: str | None = None,
    *,
    link: bool = False,
    license_name: str | None = None,
    progress: digest.HashProgress | None = None,
) -> CatalogEntry:
    """Copy `path` (a GGUF file or a safetensors folder) into the store, or link it in place.

    A file whose hash the catalog knows becomes that entry's file. Importing the same bytes again
    under the same name changes nothing.

    Raises ModelFileError for a file that is damaged or no model, InvalidRequest for a name that is
    taken by other bytes or not a name.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        raise ModelFileError(f"{path}: no such file or folder")
    digest.check_layout(path)
    found = digest.digest(path, progress)
    with _overlay_lock():
        catalog = Catalog.load()
        known = catalog.by_sha256(found.sha256)
        if known is not None and name in (None, known.name):
            return _place(known, path)
        wanted = name or _name_from(path)
        require_name("--name", wanted)
        taken = catalog.entries.get(wanted)
        if taken is not None and taken.sha256 != found.sha256:
            raise InvalidRequest.of("--name", wanted, "a name that no other model has; see zenray models list")
        # Known bytes under another name keep what the catalog knows of them.
        description = known.model_dump(include=_DESCRIPTION) if known is not None else _describe(path)
        if license_name is not None:
            description["license"] = license_name
        entry = CatalogEntry(
            name=wanted,
            size_bytes=found.size_bytes,
            sha256=found.sha256,
            linked_path=path if link else None,
            **description,
        )
        _place(entry, path)
        _write_overlay(entry)
        return entry


def require_name(option: str, name: str) -> None:
    """Raises InvalidRequest, naming the option, unless `name` can be a catalog name."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
        raise InvalidRequest.of(option, name, "letters, digits, dots, dashes and underscores")


def description_of(found: ModelFile) -> dict[str, Any]:
    """The fields of a catalog entry that say what a model is: the catalog's, else what the file says of itself."""
    return _describe(found.path) if found.entry is None else found.entry.model_dump(include=_DESCRIPTION)


def record(entry: CatalogEntry) -> None:
    """Write a model that was made here into the user's catalog, over an earlier one of its name."""
    with _overlay_lock():
        _write_overlay(entry)


def _overlay_lock() -> FileLock:
    home().mkdir(parents=True, exist_ok=True)
    return FileLock(home() / "import.lock")


def _place(entry: CatalogEntry, source: Path) -> CatalogEntry:
    """Bring the bytes to `entry.path`: copied aside, checked, renamed."""
    if entry.path == source:
        return entry
    if entry.path.exists():
        with contextlib.suppress(OSError):
            if digest.size_bytes(entry.path) == entry.size_bytes and digest.digest(entry.path).sha256 == entry.sha256:
                return entry
        remove(entry.path)
    aside = entry.path.parent / ".partial" / f"import-{entry.name}-{os.getpid()}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    _require_space(entry, aside.parent)
    try:
        if source.is_dir():
            aside.mkdir()
            for file in digest.files_of(source):
                _copy(file, aside / file.name)
        else:
            _copy(source, aside)
        if digest.digest(aside, fresh=True).sha256 != entry.sha256:
            raise ModelFileError(f"{source} changed while it was being copied; import it again")
        aside.replace(entry.path)
    except OSError as error:
        raise ModelFileError(f"{source} could not be copied to {entry.path}: {error.strerror or error}") from error
    finally:
        remove(aside)
    digest.digest(entry.path)  # remembered under the final name
    return entry


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Delete a file or a folder, whichever is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _require_space(entry: CatalogEntry, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < entry.size_bytes:
        raise ModelFileError(
            f"{entry.name}: {entry.size_bytes / 1e9:.2f} GB must be free in {folder.parent}, {free / 1e9:.2f} GB are; "
            "use the file where it lies: --link"
        )


def _name_from(path: Path) -> str:
    stem = path.name.removesuffix(".gguf").lower()
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-._") or "model"


def _describe(path: Path) -> dict[str, Any]:
    return _describe_folder(path) if path.is_dir() else _describe_gguf(path)


def _describe_gguf(path: Path) -> dict[str, object]:
    header = read_header(path)
    metadata = header.metadata
    architecture = str(metadata.get("general.architecture", "unknown"))
    shapes = {tensor.name: tensor.num_weights for tensor in header.tensors}
    parameters = sum(shapes.values())
    return {
        "title": str(metadata.get("general.name", path.stem)),
        "architecture": architecture,
        "parameters": max(parameters, 1),
        "license": str(metadata.get("general.license", _UNKNOWN_LICENSE)),
        "context_length": int(str(metadata.get(f"{architecture}.context_length", 2048))),
        "format": "gguf",
        "fim": _fim(architecture),
    }


def _describe_folder(path: Path) -> dict[str, object]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        architecture = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path / 'config.json'}: not a model configuration: {error}") from error
    return {
        "title": path.name,
        "architecture": architecture,
        "parameters": max(sum(_count_weights(shard) for shard in path.glob("*.safetensors")), 1),
        "license": _UNKNOWN_LICENSE,
        "context_length": int(config.get("max_position_embeddings", 2048)),
        "format": "safetensors",
        "fim": _fim(architecture),
    }


def _count_weights(shard: Path) -> int:
    with shard.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
    total = 0
    for name, info in header.items():
        if name != "__metadata__":
            count = 1
            for size in info["shape"]:
                count *= size
            total += count
    return total


def _fim(architecture: str) -> FimTemplate | None:
    """What the layout family usually has; the tokenizer decides when the model is loaded."""
    if architecture in _QWEN_ARCHITECTURES:
        return FimTemplate(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>")
    return None


def _write_overlay(entry: CatalogEntry) -> None:
    path = user_catalog_path()
    raw = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    entries = dict(raw or {})
    entries[entry.name] = entry.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    text = "# Models of `zenray models import` and `upcycle`.\n" + yaml.safe_dump(entries, sort_keys=False)
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
