"""Bytes of a model's weights, from its architecture alone: exactly what the loaded model would hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

from zenray.model.config import ModelConfig
from zenray.model.weights import has_bias, matrix_names, matrix_parts, part_shape, vector_names
from zenray.ops.packing import GROUP_SIZE, GROUPS_PER_SUPERBLOCK
from zenray.ops.weights import PANEL_ROWS

PlanFormat = Literal["float32", "bf16", "fp8", "int8", "int4", "mixed"]
"""The weight formats that are served, and fp8, which is reckoned with only."""

FormatOf = Callable[[str], str]
"""The packed format of a canonical matrix."""

_FP8_GROUP = 128
_ROUTER_BYTES = 4


def matrix_bytes(num_rows: int, num_columns: int, packed_format: str) -> int:
    """Of a matrix as `zenray.ops.packing` lays it out, its padding and scales included.

    fp8 is a byte a weight and a float32 scale for each 128 of a row.
    """
    if packed_format == "float32":
        return 4 * num_rows * num_columns
    if packed_format == "bf16":
        return 2 * num_rows * num_columns
    if packed_format == "fp8":
        return num_rows * (num_columns + 4 * -(-num_columns // _FP8_GROUP))
    rows = PANEL_ROWS * -(-num_rows // PANEL_ROWS)
    num_groups = -(-num_columns // GROUP_SIZE)
    if packed_format == "int8":
        return rows * (num_groups * GROUP_SIZE + 4)
    assert packed_format == "int4", packed_format
    num_supers = -(-num_groups // GROUPS_PER_SUPERBLOCK)
    return rows * (num_groups * GROUP_SIZE // 2 + 2 * num_groups + 4 * num_supers)


def activation_bytes(weight_format: PlanFormat) -> int:
    """Of one element of activations and KV cache."""
    return 4 if weight_format == "float32" else 2


def packed_format(weight_format: PlanFormat) -> str:
    """What `mixed` gives a model that is not 4-bit already."""
    return "int8" if weight_format == "mixed" else weight_format


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """Where a model's bytes are.

    tables: embedding and output head, a shared one once. head: what the logits read. embedding_row: of one token.
    attention, dense, routers, vectors: of all layers; vectors are norms and biases.
    experts: of all of them, `num_experts` in number.
    """

    tables: int
    head: int
    embedding_row: int
    attention: int
    dense: int
    routers: int
    vectors: int
    experts: int
    num_experts: int

    @property
    def leader(self) -> int:
        """Held by the leader alone: everything but experts."""
        return self.tables + self.attention + self.dense + self.routers + self.vectors

    @property
    def total(self) -> int:
        return self.leader + self.experts

    @property
    def expert(self) -> float:
        """Of one expert; a mean where layers differ in format."""
        return self.experts / self.num_experts if self.num_experts else 0.0


def model_bytes(config: ModelConfig, weight_format: PlanFormat, format_of: FormatOf | None = None) -> ModelBytes:
    """`format_of` is for "mixed" over a file whose matrices differ in format."""
    format_of = format_of or (lambda _: packed_format(weight_format))
    attention = dense = experts = vectors = 0
    embed = head = 0
    for name in matrix_names(config):
        owner, _, leaf = name.rpartition(".")
        if ".experts." in owner and not owner.endswith(".experts.0"):
            continue  # as its layer's first
        shapes = [part_shape(config, part) for part in matrix_parts(config, name)]
        num_rows = sum(shape[0] for shape in shapes)
        num_bytes = matrix_bytes(num_rows, shapes[0][1], format_of(name))
        if has_bias(config, name):
            vectors += num_rows * (2 if format_of(name) == "bf16" else 4)
        if leaf == "embed":
            embed = num_bytes
        elif leaf == "head":
            head = num_bytes
        elif ".experts." in owner:
            experts += config.num_experts * num_bytes
        elif leaf in ("qkv", "out"):
            attention += num_bytes
        else:
            dense += num_bytes
    routers = 0
    for name in vector_names(config):
        size = prod(part_shape(config, name))
        if name.endswith(".router"):
            routers += _ROUTER_BYTES * size
        else:
            vectors += activation_bytes(weight_format) * size
    is_shared = config.tie_word_embeddings and format_of("embed") == format_of("head")
    return ModelBytes(
        tables=embed if is_shared else embed + head,
        head=head,
        embedding_row=embed // config.vocab_size,
        attention=attention,
        dense=dense,
        routers=routers,
        vectors=vectors,
        experts=experts,
        num_experts=len(config.moe_layers) * config.num_experts,
    )
