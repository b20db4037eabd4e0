"""What `zenray models inspect` finds out about a model, and how it shows it."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from zenray.cli.console import facts, megabytes, millions, printable, stdout, table
from zenray.cli.progress import hashing
from zenray.errors import ModelFileError

_FORMATS = ("bf16", "int8", "int4", "mixed")
_INT4_BITS = 4.625
_ROW_SCALE_BYTES = 4


@dataclass(frozen=True)
class TensorKind:
    """All tensors of one type together."""

    type_name: str
    num_tensors: int
    num_weights: int
    num_bytes: int


@dataclass(frozen=True)
class Inspection:
    """A model file in numbers. `shape` holds the architecture's own, by name."""

    name: str
    title: str
    path: Path
    architecture: str
    license: str
    num_parameters: int
    size_bytes: int
    sha256: str
    hash_state: str
    context_length: int
    fim: str
    shape: dict[str, object]
    tensors: tuple[TensorKind, ...]
    format_bytes: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        values = {**self.__dict__, "path": str(self.path)}
        values["tensors"] = [kind.__dict__ for kind in self.tensors]
        return values


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type_name: str
    num_bytes: int

    @property
    def num_weights(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


def inspect_model(name: str, *, rehash: bool = False) -> Inspection:
    """Check the file and read its header. Raises NotFound or ModelFileError."""
    from zenray.model import digest
    from zenray.model.catalog import locate

    with hashing(name) as progress:
        if rehash and Path(name).exists():
            digest.digest(Path(name), progress, fresh=True)
        elif rehash:
            _rehash_entry(name, progress)
        found = locate(name, progress)
    shape, tensors = _read_folder(found.path) if found.path.is_dir() else _read_gguf(found.path)
    entry = found.entry
    architecture = str(shape.pop("architecture"))
    tied_bytes = sum(t.num_weights for t in tensors if t.name in ("output.weight", "lm_head.weight"))
    counted = sum(t.num_weights for t in tensors)
    return Inspection(
        name=entry.name if entry else found.path.name,
        title=entry.title if entry else str(shape.get("name", "")),
        path=found.path,
        architecture=architecture,
        license=entry.license if entry else str(shape.get("license", "unknown")),
        num_parameters=entry.parameters if entry else counted,
        size_bytes=found.size_bytes,
        sha256=found.sha256,
        hash_state="matches the catalog" if entry else "not in a catalog; the header's extents are complete",
        context_length=entry.context_length if entry else int(str(shape.get("context length", 0))),
        fim=_fim_in_words(entry.fim if entry else None),
        shape={key: value for key, value in shape.items() if key not in ("name", "license", "context length")}
        | ({"separate output matrix": millions(tied_bytes)} if tied_bytes else {}),
        tensors=_histogram(tensors),
        format_bytes={name: sum(_bytes_in_format(tensor, name) for tensor in tensors) for name in _FORMATS},
    )


def show_inspection(found: Inspection) -> None:
    console = stdout()
    console.print(Text.assemble((found.name, "name"), (f"  {printable(found.title)}", "quiet")))
    rows = facts()
    rows.add_row("architecture", f"{found.architecture}, {millions(found.num_parameters)} parameters")
    rows.add_row("shape", ", ".join(f"{key} {value}" for key, value in found.shape.items()))
    rows.add_row("context", f"{found.context_length:,} tokens")
    rows.add_row("fill in the middle", found.fim)
    rows.add_row("licence", found.license)
    rows.add_row("file", f"{found.path} ({megabytes(found.size_bytes)})")
    rows.add_row("sha256", found.sha256)
    rows.add_row("hash", Text(found.hash_state, "good" if found.hash_state.startswith("matches") else "warn"))
    console.print(rows)
    kinds = table("tensor type", "tensors", "weights", "bytes", right=("tensors", "weights", "bytes"))
    for kind in found.tensors:
        kinds.add_row(kind.type_name, str(kind.num_tensors), f"{kind.num_weights:,}", megabytes(kind.num_bytes))
    console.print()
    console.print(kinds)
    memory = table("weight format", "memory of the weights", right=("memory of the weights",))
    for name, num_bytes in found.format_bytes.items():
        memory.add_row(name, megabytes(num_bytes))
    console.print()
    console.print(memory)


def _rehash_entry(name: str, progress: Any) -> None:
    from zenray.model import digest
    from zenray.model.catalog import Catalog

    path = Catalog.load().entry(name).path
    if path.exists():
        digest.digest(path, progress, fresh=True)


def _read_gguf(path: Path) -> tuple[dict[str, object], list[_Tensor]]:
    from zenray.model.gguf_header import read_header

    header = read_header(path)
    metadata = header.metadata
    architecture = str(metadata.get("general.architecture", "unknown"))
    shape: dict[str, object] = {
        "architecture": architecture,
        "name": metadata.get("general.name", path.stem),
        "license": metadata.get("general.license", "unknown"),
    }
    wanted = {
        "block_count": "layers",
        "embedding_length": "hidden",
        "attention.head_count": "heads",
        "attention.head_count_kv": "KV heads",
        "feed_forward_length": "feed-forward",
        "expert_count": "experts",
        "context_length": "context length",
    }
    for key, words in wanted.items():
        if f"{architecture}.{key}" in metadata:
            shape[words] = metadata[f"{architecture}.{key}"]
    if "tokenizer.ggml.tokens" in metadata:
        shape["vocabulary"] = metadata["tokenizer.ggml.tokens"]
    return shape, [_Tensor(t.name, t.shape, t.type_name, t.num_bytes) for t in header.tensors]


def _read_folder(path: Path) -> tuple[dict[str, object], list[_Tensor]]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path / 'config.json'}: {error}") from error
    wanted = {
        "num_hidden_layers": "layers",
        "hidden_size": "hidden",
        "num_attention_heads": "heads",
        "num_key_value_heads": "KV heads",
        "intermediate_size": "feed-forward",
        "num_experts": "experts",
        "num_local_experts": "experts",
        "num_experts_per_tok": "experts per token",
        "moe_intermediate_size": "neurons of an expert",
        "vocab_size": "vocabulary",
        "max_position_embeddings": "context length",
    }
    shape: dict[str, object] = {"architecture": config.get("model_type", "unknown")}
    shape |= {words: config[key] for key, words in wanted.items() if key in config}
    tensors: list[_Tensor] = []
    for shard in sorted(path.glob("*.safetensors")):
        with shard.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes))
        for name, info in header.items():
            if name != "__metadata__":
                start, end = info["data_offsets"]
                # Row-major here, contiguous dimension first in GGUF: keep GGUF's order.
                tensors.append(_Tensor(name, tuple(reversed(info["shape"])), info["dtype"], end - start))
    return shape, tensors


def _histogram(tensors: list[_Tensor]) -> tuple[TensorKind, ...]:
    counts: Counter[str] = Counter(tensor.type_name for tensor in tensors)
    return tuple(
        TensorKind(
            type_name,
            count,
            sum(t.num_weights for t in tensors if t.type_name == type_name),
            sum(t.num_bytes for t in tensors if t.type_name == type_name),
        )
        for type_name, count in counts.most_common()
    )


def _bytes_in_format(tensor: _Tensor, weight_format: str) -> int:
    """Memory of one tensor in a weight format; vectors (norms, biases) stay two bytes a weight."""
    if len(tensor.shape) < 2 or tensor.num_weights == 0:
        return 2 * tensor.num_weights
    if weight_format == "mixed":
        from zenray.ops.packing import mixed_format

        weight_format = mixed_format(tensor.type_name)
    if weight_format == "bf16":
        return 2 * tensor.num_weights
    if weight_format == "int8":
        return tensor.num_weights + _ROW_SCALE_BYTES * (tensor.num_weights // tensor.shape[0])
    return int(tensor.num_weights * _INT4_BITS / 8)


def _fim_in_words(template: Any) -> str:
    if template is None:
        return "no control tokens known"
    return f"{template.order}: {template.prefix} {template.suffix} {template.middle}"
