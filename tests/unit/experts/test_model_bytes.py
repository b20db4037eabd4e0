"""Bytes by arithmetic against models on torch's meta device: every tensor has its shape, none has memory."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.experts.model_bytes import PlanFormat, matrix_bytes, model_bytes, packed_format
from zenray.experts.scale_plan import (
    Wanted,
    kv_bytes,
    step_reads,
)
from zenray.model.config import ModelConfig
from zenray.model.decoder import Decoder
from zenray.model.formats import activation_dtype
from zenray.model.load import load_preset
from zenray.model.moe import LocalExperts
from zenray.model.presets import PRESETS
from zenray.model.weights import ModelWeights, gather, has_bias, matrix_parts, part_shape
from zenray.ops import backend_for, pack
from zenray.ops.packing import DENSE_DTYPES
from zenray.ops.weights import PackedWeight

FORMATS: tuple[PlanFormat, ...] = get_args(PlanFormat)


def meta_matrix(num_rows: int, num_columns: int, format_: str, has_bias: bool = False) -> PackedWeight:
    """What `zenray.ops.pack` would make, and for fp8 a byte a weight with a float32 scale per 128 of a row."""

    def empty(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    panels, groups, supers = -(-num_rows // 16), -(-num_columns // 32), -(-num_columns // 256)
    shape = (num_rows, num_columns)
    if format_ in DENSE_DTYPES:
        dtype = DENSE_DTYPES[format_]
        bias = empty(dtype, num_rows) if has_bias else None
        return PackedWeight("dense", shape, empty(dtype, *shape), bias=bias)
    bias = empty(torch.float32, num_rows) if has_bias else None
    if format_ == "fp8":
        scales = empty(torch.float32, num_rows, -(-num_columns // 128))
        return PackedWeight("fp8", shape, empty(torch.float8_e4m3fn, *shape), scales, bias=bias)
    if format_ == "int8":
        data, scales = empty(torch.uint8, panels, 8 * groups, 16, 4), empty(torch.float32, panels, 16)
        return PackedWeight("int8", shape, data, scales, bias=bias)
    assert format_ == "int4"
    return PackedWeight(
        "int4",
        shape,
        empty(torch.uint8, panels, groups, 4, 16, 4),
        empty(torch.uint8, panels, groups, 2, 16),
        supers=empty(torch.float16, panels, supers, 2, 16),
        group_size=32,
        bias=bias,
    )


class MetaProvider:
    """A `WeightProvider` of meta tensors, as a file's weights are packed; it remembers the vectors it gave."""

    def __init__(self, config: ModelConfig, weight_format: PlanFormat) -> None:
        self.dtype = activation_dtype("float32" if weight_format == "float32" else "bf16")
        self.vector_bytes = self.num_parameters = 0
        self._config, self._format = config, packed_format(weight_format)
        self._embed: PackedWeight | None = None

    def matrix(self, name: str) -> PackedWeight:
        if name == "head" and self._config.tie_word_embeddings:
            assert self._embed is not None
            return self._embed
        shapes = [part_shape(self._config, part) for part in matrix_parts(self._config, name)]
        num_rows, num_columns = sum(shape[0] for shape in shapes), shapes[0][1]
        made = meta_matrix(num_rows, num_columns, self._format, has_bias(self._config, name))
        self.num_parameters += num_rows * num_columns
        if made.bias is not None:
            self.num_parameters += num_rows
            self.vector_bytes += made.bias.numel() * made.bias.element_size()
        if name == "embed":
            self._embed = made
        return made

    def vector(self, name: str) -> torch.Tensor:
        is_router = name.endswith(".router")
        shape = part_shape(self._config, name)
        made = torch.empty(shape, dtype=torch.float32 if is_router else self.dtype, device="meta")
        self.num_parameters += made.numel()
        if not is_router:
            self.vector_bytes += made.numel() * made.element_size()
        return made


def wanted(weight_format: PlanFormat, **others: Any) -> Wanted:
    limits = {"num_shards": 1, "memory_bytes": 80e9, "context_length": 8192, "concurrency": 8}
    return Wanted(weight_format, **{**limits, **others})


def on_meta(config: ModelConfig, weight_format: PlanFormat) -> tuple[ModelWeights, MetaProvider]:
    provider = MetaProvider(config, weight_format)
    return gather(config, provider), provider


class TestAgainstModelsWithoutMemory:
    @pytest.mark.parametrize("weight_format", FORMATS)
    @pytest.mark.parametrize("name", PRESETS)
    def test_bytes_are_those_of_every_tensor(self, name: str, weight_format: PlanFormat) -> None:
        config = PRESETS[name]
        found = model_bytes(config, weight_format)
        weights, provider = on_meta(config, weight_format)
        assert found.total - found.vectors == weights.num_bytes
        assert found.vectors == provider.vector_bytes
        assert provider.num_parameters == config.num_parameters

    @pytest.mark.parametrize("name", ["zen4-coder-flash", "moe-70b", "moe-358b", "dense-4b", "tiny-moe"])
    def test_what_a_token_reads_is_what_the_decoder_says(self, name: str) -> None:
        config = PRESETS[name]
        weights, _ = on_meta(config, "int4")
        decoder = Decoder(config, weights, backend_for("cpu", weights.dtype), LocalExperts([], None))  # type: ignore[arg-type]
        found = model_bytes(config, "int4")
        reads = step_reads(config, found, wanted("int4", gamma=0), 1)
        assert reads.weight_bytes - found.vectors == pytest.approx(decoder.weight_bytes_per_token)

    @pytest.mark.parametrize("weight_format", ["bf16", "float32"])
    @pytest.mark.parametrize("name", PRESETS)
    def test_kv_bytes_are_those_of_the_caches(self, name: str, weight_format: PlanFormat) -> None:
        config = PRESETS[name]
        weights, _ = on_meta(config, weight_format)
        decoder = Decoder(config, weights, backend_for("cpu", weights.dtype), LocalExperts([], None))  # type: ignore[arg-type]
        caches = decoder.new_caches(num_blocks=3 * 7, block_size=16)  # three sequences of 100 tokens: 7 blocks each
        held = sum(tensor.numel() * tensor.element_size() for cache in caches for tensor in (cache.keys, cache.values))
        assert kv_bytes(config, wanted(weight_format, context_length=100), 3) == held

    @pytest.mark.parametrize(
        ("name", "kind", "own"),
        [
            ("dense-4b", "Qwen3", {}),
            ("moe-70b", "Mixtral", {"num_local_experts": 16, "num_experts_per_tok": 4, "intermediate_size": 1792}),
        ],
    )
    def test_parameters_are_those_of_transformers(self, name: str, kind: str, own: dict[str, int]) -> None:
        transformers = pytest.importorskip("transformers")
        config = PRESETS[name]
        described = getattr(transformers, f"{kind}Config")(
            **{
                "vocab_size": config.vocab_size,
                "hidden_size": config.hidden_size,
                "intermediate_size": config.intermediate_size,
                "num_hidden_layers": config.num_layers,
                "num_attention_heads": config.num_heads,
                "num_key_value_heads": config.num_kv_heads,
                "head_dim": config.head_dim,
                "tie_word_embeddings": config.tie_word_embeddings,
                **own,
            }
        )
        with torch.device("meta"):
            model = getattr(transformers, f"{kind}ForCausalLM")(described)
        assert sum(parameter.numel() for parameter in model.parameters()) == config.num_parameters

    def test_a_loaded_model_reports_the_same_bytes(self) -> None:
        for weight_format in ("bf16", "float32"):
            loaded = load_preset("tiny-moe", dtype=activation_dtype(weight_format), weight_format=weight_format)
            found = model_bytes(PRESETS["tiny-moe"], weight_format)
            assert loaded.info.weight_bytes == found.total - found.vectors

    def test_presets_have_the_size_of_their_name(self) -> None:
        sizes = {"moe-70b": 70, "moe-358b": 358, "moe-1t": 1000, "dense-4b": 4, "dense-14b": 14, "dense-24b": 24}
        sizes |= {"dense-123b": 123, "zen4-coder-flash": 8}
        for name, billions in sizes.items():
            assert PRESETS[name].num_parameters / 1e9 == pytest.approx(billions, rel=0.06)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 600), st.sampled_from(["float32", "bf16", "int8", "int4"]))
def test_a_matrix_takes_what_packing_it_takes(num_rows: int, num_columns: int, weight_format: str) -> None:
    packed = pack(torch.ones(num_rows, num_columns), weight_format)
    assert matrix_bytes(num_rows, num_columns, weight_format) == packed.num_bytes
    described = meta_matrix(num_rows, num_columns, weight_format)
    assert {name: (t.shape, t.dtype) for name, t in described.to_tensors().items()} == {
        name: (t.shape, t.dtype) for name, t in packed.to_tensors().items()
    }
