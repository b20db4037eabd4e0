"""An upcycled model in the store: made aside, renamed when whole, recorded in the user's catalog with its hash."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from zenray.errors import FieldViolation, InvalidRequest
from zenray.model import digest
from zenray.model.catalog import Catalog, CatalogEntry, ModelFile, UpcycleSource
from zenray.model.convert import open_source
from zenray.model.importing import description_of, record, remove, require_name
from zenray.model.upcycle import RECORD_NAME, upcycle
from zenray.model.upcycle_settings import Upcycling

_ASIDE = "upcycled"


def settings_of(**fields: object) -> Upcycling:
    """`Upcycling` of what a user typed. Raises InvalidRequest naming every bad field."""
    try:
        return Upcycling.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequest(
            [FieldViolation(str(bad["loc"][0]), bad["input"], bad["msg"].lower()) for bad in error.errors()]
        ) from None


def new_entry(name: str, source: str, settings: Upcycling) -> CatalogEntry:
    """The entry of a model that is yet to be made of `source`, a catalog name or a path; pulling it makes it.

    Raises:
        InvalidRequest: a name that is taken or no name, settings that do not fit the source.
        NotFound, ModelFileError: as `Catalog.locate`, and a source that cannot be upcycled.
    """
    catalog = Catalog.load()
    require_name("--output", name)
    recipe = UpcycleSource(model=_lasting_name(catalog, source), **settings.model_dump())
    taken = catalog.entries.get(name)
    if taken is not None and taken.sources != (recipe,):
        raise InvalidRequest.of("--output", name, "a name that no other model has; see zenray models list")
    found = catalog.locate(source)
    config = settings.moe_config(open_source(found.path).config, str(found.path))
    description = description_of(found)
    return CatalogEntry(
        **{
            **description,
            "name": name,
            "title": f"{description['title']}, upcycled to {settings.num_experts} experts",
            "architecture": config.architecture,
            "parameters": config.num_parameters,
            "format": "safetensors",
            "size_bytes": 2 * config.num_parameters,
            "sources": (recipe,),
        }
    )


def make(
    entry: CatalogEntry,
    settings: Upcycling,
    source: ModelFile,
    staging: Path,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make the model of `entry` from `source`, in the folder `staging`, which is gone afterwards however it ends.

    Raises what `upcycle` raises.
    """
    aside = staging / _ASIDE
    remove(aside)  # of a process that was killed
    _sweep(staging.parent)
    try:
        provenance = {"source": {"name": source.path.name, "sha256": source.sha256}}
        shards = upcycle(open_source(source.path), aside, settings, progress, provenance)
        remove(entry.path)
        aside.replace(entry.path)
        for name, sha256 in shards.items():
            digest.carry_over(aside / name, entry.path / name, sha256)
        found = digest.digest(entry.path)
        record(entry.model_copy(update={"size_bytes": found.size_bytes, "sha256": found.sha256}))
    finally:
        remove(staging)


def _sweep(partial: Path) -> None:
    """Remove what killed processes left of other models: nobody goes on with it, and it may be many gigabytes."""
    for left in partial.glob(f"*/{_ASIDE}"):
        lock = FileLock(left.parent.with_suffix(left.parent.suffix + ".lock"))
        with contextlib.suppress(Timeout), lock.acquire(timeout=0):
            remove(left)


def router_imbalance(folder: Path) -> float:
    """Tokens of the busiest copy over the mean of all, on the calibration text, in the worst layer."""
    layers: list[dict[str, list[float]]] = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))["layers"]
    return max(max(layer["copy_loads"]) * len(layer["copy_loads"]) for layer in layers)


def _lasting_name(catalog: Catalog, source: str) -> str:
    """How a recipe names its source: paths in full, for it may be followed from elsewhere."""
    return source if source in catalog.entries else str(Path(source).expanduser().resolve())
