"""GGUF files of every architecture and block type we claim, written by the gguf package and loaded by us."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGMLQuantizationType as Quant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zenray.errors import ModelFileError
from zenray.model.bpe import byte_to_char
from zenray.model.evaluate import sequence_logits
from zenray.model.formats import matrix_format, pack_matrix
from zenray.model.gguf_source import GgufSource
from zenray.model.load import load_model
from zenray.model.source import checked
from zenray.model.weights import matrix_names, matrix_parts
from zenray.ops import unpack

transformers = pytest.importorskip("transformers")

TYPES = [Quant.F32, Quant.F16, Quant.BF16, Quant.Q8_0, Quant.Q4_0, Quant.Q4_1, Quant.Q5_0, Quant.Q5_1]
K_TYPES = [Quant.Q4_K, Quant.Q5_K, Quant.Q6_K]
BASE = {
    "vocab_size": 300,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "Llama", {}),
    "llama-tied": ("llama", "Llama", {"tie_word_embeddings": True}),
    "mixtral": ("llama", "Mixtral", {"num_local_experts": 4}),
    "qwen2": ("qwen2", "Qwen2", {}),
    "qwen3": ("qwen3", "Qwen3", {"head_dim": 32}),
    "qwen3moe": (
        "qwen3moe",
        "Qwen3Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "norm_topk_prob": True},
    ),
    "olmoe": ("olmoe", "Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny(architecture: str, seed: int = 0) -> Any:
    """A tiny transformers model with weights at which everything matters."""
    _, family, changes = ARCHITECTURES[architecture]
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**BASE, **changes))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        scale = 1.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.2
        parameter.data = values * scale + (1.0 if parameter.dim() == 1 else 0.0)
    return model.float().eval()


def permuted(values: npt.NDArray[np.float32], num_heads: int) -> npt.NDArray[np.float32]:
    """What llama.cpp's converter does to q and k of the llama architecture."""
    heads = values.reshape(num_heads, 2, values.shape[0] // num_heads // 2, *values.shape[1:])
    return heads.swapaxes(1, 2).reshape(values.shape)


def gguf_tensors(model: Any, architecture: str) -> dict[str, npt.NDArray[np.float32]]:
    """llama.cpp's names for the weights of a transformers model; stacked experts as it stacks them."""
    config, tensors = model.config, {}
    for name, parameter in model.state_dict().items():
        values = parameter.numpy()
        if name == "model.embed_tokens.weight":
            tensors["token_embd.weight"] = values
        elif name == "model.norm.weight":
            tensors["output_norm.weight"] = values
        elif name == "lm_head.weight":
            if not config.tie_word_embeddings:
                tensors["output.weight"] = values
        else:
            layer, _, leaf = name.removeprefix("model.layers.").partition(".")
            if leaf == "mlp.experts.gate_up_proj":
                gate, up = np.split(values, 2, axis=1)
                tensors[f"blk.{layer}.ffn_gate_exps.weight"] = gate
                tensors[f"blk.{layer}.ffn_up_exps.weight"] = up
                continue
            if leaf == "mlp.experts.down_proj":
                tensors[f"blk.{layer}.ffn_down_exps.weight"] = values
                continue
            stem, _, suffix = leaf.rpartition(".")
            if ARCHITECTURES[architecture][0] == "llama" and stem in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = config.num_attention_heads if "q_proj" in stem else config.num_key_value_heads
                values = permuted(values, heads)
            tensors[f"blk.{layer}.{NAMES[stem]}.{suffix}"] = values
    return tensors


def write_gguf(
    path: Path,
    model: Any,
    architecture: str,
    type_: Quant = Quant.F32,
    raw: Mapping[str, npt.NDArray[np.uint8]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes the model with matrices in `type_`; `raw` gives blocks for tensors gguf cannot quantise."""
    arch, config = ARCHITECTURES[architecture][0], model.config
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if head_dim := getattr(config, "head_dim", None):
        writer.add_key_length(head_dim)
    if hasattr(config, "num_experts_per_tok"):
        writer.add_expert_count(getattr(config, "num_experts", None) or config.num_local_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        if arch == "qwen3moe":
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    add_toy_vocabulary(writer)
    for key, value in (metadata or {}).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, values in gguf_tensors(model, architecture).items():
        if raw is not None and name in raw:
            writer.add_tensor(name, raw[name], raw_dtype=type_)
        elif values.ndim == 1 or "gate_inp" in name or type_ == Quant.F32:
            writer.add_tensor(name, np.ascontiguousarray(values))
        else:
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_toy_vocabulary(writer: gguf.GGUFWriter) -> None:
    table = byte_to_char()
    controls = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<tool_call>"]
    tokens = [table[byte] for byte in range(256)] + controls
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] * 4 + [4])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)


def expected_logits(model: Any, token_ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([token_ids])).logits[0]


TOKEN_IDS = torch.randint(0, 256, (80,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_the_logits_of_transformers(architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture)
    write_gguf(tmp_path / "model.gguf", model, architecture)
    loaded = load_model(tmp_path / "model.gguf", weight_format="float32")
    error = (sequence_logits(loaded.decoder, TOKEN_IDS) - expected_logits(model, TOKEN_IDS)).abs().max()
    assert float(error) <= 1e-4


def test_experts_may_lie_in_tensors_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first Mixtral files have them: blk.0.ffn_gate.3.weight instead of ffn_gate_exps."""
    model = tiny("mixtral")
    split: dict[str, npt.NDArray[np.float32]] = {}
    for name, values in gguf_tensors(model, "mixtral").items():
        if "_exps" in name:
            split |= {name.replace("_exps", f".{expert}"): values[expert] for expert in range(len(values))}
        else:
            split[name] = values
    monkeypatch.setitem(globals(), "gguf_tensors", lambda *_: split)
    write_gguf(tmp_path / "model.gguf", model, "mixtral")
    loaded = load_model(tmp_path / "model.gguf", weight_format="float32")
    error = (sequence_logits(loaded.decoder, TOKEN_IDS) - expected_logits(model, TOKEN_IDS)).abs().max()
    assert float(error) <= 1e-4


def with_dequantised(model: Any, blocks: Mapping[str, npt.NDArray[np.uint8]], type_: Quant) -> Any:
    """The transformers model with the weights that gguf reads back from the blocks."""
    names = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}
    for layer in range(model.config.num_hidden_layers):
        for hf, ours in NAMES.items():
            names[f"blk.{layer}.{ours}.weight"] = f"model.layers.{layer}.{hf}.weight"
    state = model.state_dict()
    for name, raw in blocks.items():
        state[names[name]] = torch.from_numpy(gguf.quants.dequantize(raw, type_).astype(np.float32))
    model.load_state_dict(state)
    return model


def random_k_blocks(shape: tuple[int, ...], type_: Quant, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Random K-quant blocks, which the gguf package reads but cannot write; only the float16 scales are chosen."""
    _, size = gguf.GGML_QUANT_SIZES[type_]
    num_blocks = shape[0] * shape[1] // 256
    raw = rng.integers(0, 256, (num_blocks, size), dtype=np.uint8)
    halves = {Quant.Q4_K: [0, 2], Quant.Q5_K: [0, 2], Quant.Q6_K: [208]}[type_]
    for offset in halves:
        scale = rng.uniform(0.5, 1.5, num_blocks) * {Quant.Q4_K: 2e-4, Quant.Q5_K: 1e-4, Quant.Q6_K: 3e-5}[type_]
        raw[:, offset : offset + 2] = scale.astype(np.float16)[:, None].view(np.uint8)
    return raw.reshape(shape[0], -1)


@pytest.mark.parametrize("type_", [*TYPES, *K_TYPES], ids=lambda type_: type_.name)
def test_every_block_type_is_read_as_gguf_reads_it(type_: Quant, tmp_path: Path) -> None:
    """qwen2 rather than llama, whose permuted rows the test above covers."""
    model, rng = tiny("qwen2"), np.random.default_rng(0)
    matrices = {name: t for name, t in gguf_tensors(model, "qwen2").items() if t.ndim > 1}
    if type_ in K_TYPES:
        blocks = {name: random_k_blocks(values.shape, type_, rng) for name, values in matrices.items()}
    else:
        blocks = {name: gguf.quants.quantize(values, type_) for name, values in matrices.items()}
    write_gguf(tmp_path / "model.gguf", model, "qwen2", type_, raw=blocks if type_ in K_TYPES else None)
    reference = with_dequantised(model, blocks, type_)
    loaded = load_model(tmp_path / "model.gguf", weight_format="float32")
    expected = expected_logits(reference, TOKEN_IDS)
    assert float((sequence_logits(loaded.decoder, TOKEN_IDS) - expected).abs().max()) <= 1e-4 * float(
        expected.abs().max().clamp(min=1)
    )


@pytest.mark.parametrize("type_", [Quant.Q4_0, Quant.Q4_1, Quant.Q4_K], ids=lambda type_: type_.name)
def test_mixed_keeps_the_quants_of_4_bit_blocks(type_: Quant, tmp_path: Path) -> None:
    """Only scales and mins may be rounded: at most 1/126 of the largest of 8 groups, times 15 quants."""
    model, rng = tiny("llama"), np.random.default_rng(0)
    matrices = {name: t for name, t in gguf_tensors(model, "llama").items() if t.ndim > 1}
    raw = (
        {name: random_k_blocks(values.shape, type_, rng) for name, values in matrices.items()}
        if type_ == Quant.Q4_K
        else None
    )
    write_gguf(tmp_path / "model.gguf", model, "llama", type_, raw=raw)
    source = GgufSource(tmp_path / "model.gguf")
    for name in ("layers.0.qkv", "layers.1.gate_up", "layers.1.down", "head"):
        exact, packed = unpack(pack_matrix(source, name, "float32")), pack_matrix(source, name, "mixed")
        assert packed.format == "int4"
        relative = (unpack(packed) - exact).norm() / exact.norm()
        assert float(relative) < (2e-3 if type_ == Quant.Q4_K else 1e-2)


@pytest.mark.parametrize(
    ("kinds", "format_"),
    [
        (["Q4_K", "Q4_K", "Q4_K"], "int4"),
        (["Q4_K", "Q4_K", "Q6_K"], "int8"),
        (["Q5_0", "Q5_0"], "int8"),
        (["BF16"], "int8"),
    ],
)
def test_a_fused_matrix_takes_the_wider_format_of_its_parts(kinds: list[str], format_: str) -> None:
    assert matrix_format("layers.0.qkv", kinds, "mixed") == format_


def test_llama3_frequencies_come_as_factors(tmp_path: Path) -> None:
    """llama.cpp stores the llama3 rule as one divisor per rotary pair, in `rope_freqs.weight`."""
    model = tiny("llama")
    factors = np.linspace(1, 8, 32).astype(np.float32)
    original = gguf_tensors(model, "llama")
    path = tmp_path / "model.gguf"
    write_gguf(path, model, "llama")
    plain = load_model(path, weight_format="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "gguf_tensors", lambda *_: original | {"rope_freqs.weight": factors})
        write_gguf(path, model, "llama")
    scaled = load_model(path, weight_format="float32")
    assert scaled.config.rope_scaling.type == "factors"
    model.model.rotary_emb.inv_freq /= torch.from_numpy(factors)
    error = (sequence_logits(scaled.decoder, TOKEN_IDS) - expected_logits(model, TOKEN_IDS)).abs().max()
    assert float(error) <= 1e-4
    assert float((sequence_logits(plain.decoder, TOKEN_IDS) - expected_logits(model, TOKEN_IDS)).abs().max()) > 1e-2


def test_the_embedded_tokenizer_is_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", tiny("qwen2"), "qwen2")
    tokenizer = GgufSource(tmp_path / "model.gguf").tokenizer()
    assert tokenizer.eos_token_ids == {256}
    assert tokenizer.fim is not None
    assert (tokenizer.fim.prefix, tokenizer.fim.suffix, tokenizer.fim.middle) == (257, 258, 259)
    text = "x <tool_call> <|fim_prefix|>\r\n\t日本 🙂"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not tokenizer.control_token_ids & set(tokenizer.encode(text))


# Bad files


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "model.gguf"
    write_gguf(path, tiny("qwen2"), "qwen2", Quant.Q8_0)
    return path.read_bytes()


@pytest.mark.parametrize("kept", [0, 3, 10, 24, 1000, 0.5, 0.9, -1])
def test_a_truncated_file_is_refused_wherever_it_ends(good_file: bytes, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    end = int(kept * len(good_file)) if isinstance(kept, float) else int(kept)
    path.write_bytes(good_file[:end])
    with pytest.raises(ModelFileError, match=r"short\.gguf"):
        load_model(path, weight_format="float32")


def test_a_truncated_file_names_the_tensor_that_is_cut(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(good_file[:-1])
    with pytest.raises(ModelFileError, match=r"truncated: tensor \S+ .* ends at byte \d+, the file has \d+"):
        load_model(path, weight_format="float32")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        load_model(path, weight_format="float32")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(ModelFileError, match="version 1"):
        load_model(path, weight_format="float32")
    with pytest.raises(ModelFileError, match="does not exist"):
        load_model(tmp_path / "absent.gguf", weight_format="float32")


def _replaced(data: bytes, name: str, offset: int, value: bytes) -> bytes:
    """The file with bytes of a tensor's header entry replaced, counted from the end of its name."""
    at = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name) + offset
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value", "named"),
    [
        (4 + 16, struct.pack("<I", 999), "has the unknown type 999"),
        (4 + 16, struct.pack("<I", 10), "has type Q2_K; supported: .*Q4_K"),
        (4, struct.pack("<Q", 128), r"has shape \[256, 128\], expected \[256, 256\]"),
        (0, struct.pack("<I", 9), "has 9 dimensions"),
    ],
)
def test_a_tensor_that_cannot_be_read_is_named(
    good_file: bytes, offset: int, value: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(_replaced(good_file, "blk.1.attn_q.weight", offset, value))
    with pytest.raises(ModelFileError, match=rf"odd\.gguf: .*tensor blk\.1\.attn_q\.weight {named}"):
        load_model(path, weight_format="float32")


def test_a_missing_tensor_is_named(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(good_file.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight is missing"):
        load_model(path, weight_format="float32")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (b"\x05\0\0\0\0\0\0\0qwen2", b"\x05\0\0\0\0\0\0\0mamba", "architecture 'mamba'"),
        (b"qwen2.block_count", b"qwen2.block_cxxxx", r"qwen2\.block_count is missing"),
        (b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0bert", r"tokenizer\.ggml\.model is 'bert'"),
        (b"tokenizer.ggml.merges", b"tokenizer.ggml.mergxx", r"tokenizer\.ggml\.merges is missing"),
    ],
)
def test_metadata_that_cannot_be_used_is_named(
    good_file: bytes, old: bytes, new: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.gguf"
    assert old in good_file
    path.write_bytes(good_file.replace(old, new, 1))
    with pytest.raises(ModelFileError, match=named):
        load_model(path, weight_format="float32")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = tiny("qwen2")
    model.model.layers[1].mlp.down_proj.weight.data[3, 3] = float("nan")
    write_gguf(tmp_path / "model.gguf", model, "qwen2")
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_down\.weight"):
        load_model(tmp_path / "model.gguf", weight_format="int8")


def _read_through(path: Path) -> None:
    """Everything short of the weights' values."""
    source = GgufSource(path)
    source.tokenizer()
    for name in matrix_names(source.config):
        for part in matrix_parts(source.config, name):
            checked(source, part)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    values=st.lists(st.sampled_from((0, 1, 4, 8, 9, 127, 128, 255)), min_size=1, max_size=4),
)
def test_damage_to_the_header_ends_in_a_typed_error_or_nowhere(
    good_file: bytes, tmp_path: Path, data: st.DataObject, values: list[int]
) -> None:
    damaged = bytearray(good_file)
    header_end = good_file.index(b"output_norm.weight") + 64
    for value in values:
        damaged[data.draw(st.integers(0, header_end - 1))] = value
    path = tmp_path / "damaged.gguf"
    path.write_bytes(bytes(damaged))
    with contextlib.suppress(ModelFileError):
        _read_through(path)
