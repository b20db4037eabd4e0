"""A dense checkpoint written again as a mixture of experts that computes the same (`Upcycling` says how).

Expert `copy * top_k + group` holds one group of neurons; its down projection is scaled by top_k because each of the
top_k chosen experts gets the weight 1 / top_k. One layer is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from zenray.errors import ModelFileError
from zenray.model.checkpoint_writer import Piece, TensorSpec, write_checkpoint
from zenray.model.config import ModelConfig
from zenray.model.hf_source import MIXTRAL_NAMES, NAMES
from zenray.model.hf_writer import write_description
from zenray.model.layerwise import LayerwisePass
from zenray.model.source import ModelSource, checked
from zenray.model.upcycle_calibration import calibration_windows
from zenray.model.upcycle_router import balanced_router, copy_loads, kept_neurons, neuron_importance
from zenray.model.upcycle_settings import Upcycling
from zenray.model.weights import part_shape

RECORD_NAME = "upcycling.json"
"""What was done, beside the weights: the settings, and per layer how the router shares out the calibration text."""

Progress = Callable[[int, int], None]
"""Called with (bytes written, bytes in total)."""

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_PIECE_BYTES = 64 * 2**20
_SPARE_BYTES = 256 * 2**20


def upcycle(
    source: ModelSource,
    folder: Path,
    settings: Upcycling,
    progress: Progress | None = None,
    provenance: dict[str, Any] | None = None,
) -> dict[str, str]:
    """Fills the new `folder` with the upcycled `source`; the SHA-256 of each file of weights by name.

    provenance: kept in the record beside the weights.

    Raises:
        InvalidRequest: settings that do not fit the source.
        ModelFileError: a source that cannot be upcycled, a value beyond the range of the dtype, too little disk.
    """
    config = settings.moe_config(source.config, str(source.path))
    dtype_name = settings.dtype or _own_dtype(source)
    work = _Upcycle(source, config, settings, _DTYPES[dtype_name])
    total = sum(spec.num_bytes for spec in work.specs)
    _require_disk(source, total, folder.parent)
    folder.mkdir()
    write_description(folder, config, dtype_name, source.tokenizer())

    def counted() -> Iterator[Piece]:
        done = 0
        for name, rows in work.pieces():
            yield name, rows
            done += rows.numel() * rows.element_size()
            if progress is not None:
                progress(done, total)

    digests = write_checkpoint(folder, work.specs, counted())
    record = {
        **(provenance or {}),
        "settings": {**settings.model_dump(mode="json"), "expert_dim": config.expert_intermediate_size},
        "dtype": dtype_name,
        "layers": work.layer_records,
    }
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return digests


def _own_dtype(source: ModelSource) -> str:
    kind = source.tensor("layers.0.gate").kind
    return {"BF16": "bfloat16", "F32": "float32", "F64": "float32"}.get(kind, "float16")


def _require_disk(source: ModelSource, num_bytes: int, folder: Path) -> None:
    needed, free = num_bytes + min(num_bytes, _SPARE_BYTES), shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFileError(
            f"{source.path}: upcycling needs {needed / 1e9:.2f} GB in {folder}, {free / 1e9:.2f} GB are free; "
            "free some, or set ZENRAY_HOME to a larger disk"
        )


class _Upcycle:
    """One model on its way: `specs` say what comes, `pieces` yields it in that order."""

    def __init__(self, source: ModelSource, config: ModelConfig, settings: Upcycling, dtype: torch.dtype) -> None:
        self._source, self._config, self._settings, self._dtype = source, config, settings, dtype
        self._num_copies = config.num_experts // config.num_experts_per_token
        self.specs = [self._spec(part) for part in _parts(config)]
        self.layer_records: list[dict[str, Any]] = []

    def _spec(self, part: str) -> TensorSpec:
        sizes = _SHARED_EXPERT.get(part.rpartition(".")[2]) or part_shape(self._config, part)
        shape = tuple(self._config.hidden_size if size is None else size for size in sizes)
        is_matrix = len(shape) == 2 and not part.endswith(".router")
        dtype = self._dtype if is_matrix else torch.float32
        return TensorSpec(_published_name(part, self._config.architecture), dtype, shape)

    def pieces(self) -> Iterator[Piece]:
        """Every tensor that is not empty, in the order of `specs`; large tables a few rows at a time."""
        windows = calibration_windows(self._source.tokenizer(), self._source.config.max_position_embeddings)
        calibration = LayerwisePass(self._source, windows)
        layer_at, new_tensors = -1, {}
        for part, spec in zip(_parts(self._config), self.specs, strict=True):
            if part.startswith("layers.") and (layer := int(part.split(".")[1])) != layer_at:
                layer_at, new_tensors = layer, self._feed_forward(calibration, layer)
            if not spec.num_bytes:
                continue
            leaf = part.rpartition(".")[2]
            if ".experts." in part:
                yield spec.name, self._expert_part(new_tensors, part)
            elif leaf in new_tensors:
                yield spec.name, new_tensors[leaf]
            elif leaf in _SHARED_EXPERT:
                yield spec.name, torch.zeros(spec.shape, dtype=spec.dtype)
            else:
                yield from self._copied(part, spec)

    def _copied(self, part: str, spec: TensorSpec) -> Iterator[Piece]:
        tensor = checked(self._source, part)
        row_bytes = 4 * (tensor.shape[1] if len(tensor.shape) > 1 else 1)
        step = max(_PIECE_BYTES // row_bytes, 1)
        for start in range(0, tensor.shape[0], step):
            rows = tensor.read(start, min(start + step, tensor.shape[0]))
            yield spec.name, self._narrowed(rows, spec.dtype, tensor.name)

    def _feed_forward(self, calibration: LayerwisePass, layer: int) -> dict[str, torch.Tensor]:
        """The layer's router, and the parts of each group as they are before noise: `gate.0`, `gate.1`, …"""
        config, source = self._config, self._source
        x_TD = calibration.feed_forward_input(layer)
        if not bool(x_TD.isfinite().all()):
            raise ModelFileError(f"{source.path}: up to layer {layer} it computes values that are not finite")
        tensors = {leaf: checked(source, f"layers.{layer}.{leaf}") for leaf in ("gate", "up", "down")}
        gate_FD, up_FD, down_DF = (tensor.read(0, tensor.shape[0]) for tensor in tensors.values())
        hidden_TF = F.silu(x_TD @ gate_FD.T) * (x_TD @ up_FD.T)
        calibration.add(hidden_TF @ down_DF.T)

        top_k, width = config.num_experts_per_token, config.expert_intermediate_size
        importance_F = neuron_importance(hidden_TF, down_DF)
        kept = kept_neurons(importance_F, top_k * width)
        generator = torch.Generator().manual_seed(_seed(self._settings.seed, layer, "router"))
        router_MD = balanced_router(x_TD, self._num_copies, generator)
        self.layer_records.append(
            {
                "copy_loads": copy_loads(x_TD, router_MD),
                "dropped_importance": 1 - float(importance_F[kept].sum() / importance_F.sum().clamp_min(1e-30)),
            }
        )
        found = {"router": router_MD.repeat_interleave(top_k, dim=0)}
        for group, columns in enumerate(torch.split(kept, width)):
            for leaf, rows in (("gate", gate_FD[columns]), ("up", up_FD[columns]), ("down", down_DF[:, columns])):
                scaled = rows * top_k if leaf == "down" else rows
                # Kept narrow: what is written is what noise is laid over.
                found[f"{leaf}.{group}"] = self._narrowed(scaled, self._dtype, tensors[leaf].name)
        return found

    def _expert_part(self, tensors: dict[str, torch.Tensor], part: str) -> torch.Tensor:
        _, layer, _, expert, leaf = part.split(".")
        copy, group = divmod(int(expert), self._config.num_experts_per_token)
        tensor = tensors[f"{leaf}.{group}"]
        if copy == 0 or self._settings.noise == 0:
            return tensor
        generator = torch.Generator().manual_seed(_seed(self._settings.seed, int(layer), f"{expert}.{leaf}"))
        scale = self._settings.noise * tensor.float().square().mean().sqrt()
        return self._narrowed(tensor + scale * torch.randn(tensor.shape, generator=generator), self._dtype, part)

    def _narrowed(self, values: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
        largest = max(abs(float(extreme)) for extreme in torch.aminmax(values))  # a NaN makes both NaN
        if not largest < math.inf:
            raise ModelFileError(f"{self._source.path}: tensor {name} holds values that are not finite")
        if largest > torch.finfo(dtype).max:
            raise ModelFileError(
                f"{self._source.path}: tensor {name} holds {largest:.4g}, but float16 ends at 65504; "
                "choose the dtype bfloat16 or float32"
            )
        return values.to(dtype)


# Qwen2-MoE adds an expert that sees every token; ours has no neurons. None stands for the model's width.
_SHARED_EXPERT: dict[str, tuple[int | None, ...]] = {
    "shared_gate": (0, None),
    "shared_up": (0, None),
    "shared_down": (None, 0),
    "shared_expert_gate": (1, None),
}


def _parts(config: ModelConfig) -> Iterator[str]:
    """Every tensor to write, by its canonical part name, in file order."""
    yield "embed"
    attention = ["input_norm", "q", "k", "v", "out", "post_norm", "router"]
    if config.qkv_bias:
        attention += ["q.bias", "k.bias", "v.bias"]
    if config.qk_norm != "none":
        attention += ["q_norm", "k_norm"]
    if config.architecture == "qwen2_moe":
        attention += _SHARED_EXPERT
    for layer in range(config.num_layers):
        yield from (f"layers.{layer}.{leaf}" for leaf in attention)
        for expert in range(config.num_experts):
            yield from (f"layers.{layer}.experts.{expert}.{leaf}" for leaf in ("gate", "up", "down"))
    yield "final_norm"
    if not config.tie_word_embeddings:
        yield "head"


def _published_name(part: str, layout: str) -> str:
    """The tensor's name in a folder of the layout, as `save_pretrained` writes it."""
    stem, suffix = (part.removesuffix(".bias"), ".bias") if part.endswith(".bias") else (part, ".weight")
    pieces = stem.split(".")
    leaf = pieces[-1]
    if pieces[0] != "layers":
        return NAMES[leaf] + suffix
    at = f"model.layers.{pieces[1]}."
    block = "block_sparse_moe" if layout == "mixtral" else "mlp"
    if leaf == "shared_expert_gate":
        return f"{at}{block}.shared_expert_gate{suffix}"
    if leaf in _SHARED_EXPERT:
        return f"{at}{block}.shared_expert.{leaf.removeprefix('shared_')}_proj{suffix}"
    if leaf == "router":
        return f"{at}{block}.gate{suffix}"
    if pieces[2] != "experts":
        return at + NAMES[leaf] + suffix
    projection = MIXTRAL_NAMES[leaf] if layout == "mixtral" else f"{leaf}_proj"
    return f"{at}{block}.experts.{pieces[3]}.{projection}{suffix}"


def _seed(seed: int, layer: int, what: str) -> int:
    digest = hashlib.sha256(f"{seed}:{layer}:{what}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
