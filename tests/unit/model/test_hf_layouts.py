"""Every Hugging Face layout, saved by transformers and loaded by us, gives the logits of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from zenray.errors import ModelFileError
from zenray.model.evaluate import BLOCK_SIZE, sequence_logits, step_batch
from zenray.model.load import LoadedModel, load_model

transformers = pytest.importorskip("transformers")

BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10_000.0,
    "eos_token_id": 257,
}
CONTROL = {
    "<|endoftext|>": 257,
    "<|fim_prefix|>": 258,
    "<|fim_suffix|>": 259,
    "<|fim_middle|>": 260,
    "<tool_call>": 261,
}
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 4}),
    "llama-multi-query-tied": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama-biased": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3-rope": (
        "Llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500_000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "linear-rope": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}}),
    "yarn-rope": (
        "Qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3-moe": ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    "qwen3-moe-normalised": (
        "Qwen3Moe",
        {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": True},
    ),
    "qwen3-moe-some-dense": (
        "Qwen3Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [1]},
    ),
    "olmoe": ("Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
}


Saved = Callable[..., Any]


@pytest.fixture
def saved(write_tokenizer: Callable[..., None]) -> Saved:
    """`saved(folder, layout, **save_options)`: a tiny transformers model, saved by transformers itself."""

    def save(folder: Path, layout: str, **options: Any) -> Any:
        family, changes = LAYOUTS[layout]
        fields = {**BASE, **changes}
        if "rope_parameters" in fields:
            del fields["rope_theta"]
        config = getattr(transformers, f"{family}Config")(**fields)
        model = lively(getattr(transformers, f"{family}ForCausalLM")(config).float())
        model.save_pretrained(folder, **options)
        write_tokenizer(folder, CONTROL)
        return model

    return save


def lively(model: Any, seed: int = 0) -> Any:
    """Weights at which attention, norms, biases and routers all matter; the default init is almost flat."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        scale = 1.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.2
        parameter.data = values * scale + (1.0 if parameter.dim() == 1 else 0.0)
    return model.eval()


def max_error(model: Any, loaded: LoadedModel) -> float:
    token_ids = torch.randint(0, 256, (100,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(token_ids[None]).logits[0].float()
    return float((sequence_logits(loaded.decoder, token_ids.tolist()) - expected).abs().max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_equal_those_of_transformers(layout: str, tmp_path: Path, saved: Saved) -> None:
    model = saved(tmp_path / "model", layout)
    loaded = load_model(tmp_path / "model", weight_format="float32")
    assert max_error(model, loaded) <= 1e-4
    assert loaded.config.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("layout", ["qwen2", "mixtral"])
def test_hidden_states_are_numbered_as_transformers_does(layout: str, tmp_path: Path, saved: Saved) -> None:
    model = saved(tmp_path / "model", layout)
    decoder = load_model(tmp_path / "model", weight_format="float32").decoder
    token_ids, rows = list(range(40, 80)), [0, 3, 38]
    with torch.inference_mode():
        expected = model(torch.tensor([token_ids]), output_hidden_states=True).hidden_states
    assert len(expected) == decoder.config.num_layers + 1
    batch = step_batch([(token_ids, 0)], max_tokens=len(token_ids), rows=rows)
    states = decoder.states(batch, decoder.new_caches(3, BLOCK_SIZE), range(len(expected)))
    for layer, theirs in enumerate(expected):
        assert float((states.hidden_RD[layer] - theirs[0, rows]).abs().max()) <= 1e-4, layer
    assert torch.equal(states.final_RD, states.hidden_RD[decoder.config.num_layers])


def test_sharded_checkpoints_are_read_through_their_index(tmp_path: Path, saved: Saved) -> None:
    model = saved(tmp_path / "model", "qwen2", max_shard_size="60KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 2
    assert max_error(model, load_model(tmp_path / "model", weight_format="float32")) <= 1e-4


def test_a_missing_shard_is_named(tmp_path: Path, saved: Saved) -> None:
    saved(tmp_path / "model", "qwen2", max_shard_size="60KB")
    shard = sorted((tmp_path / "model").glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelFileError, match=shard.name):
        load_model(tmp_path / "model", weight_format="float32")


@pytest.mark.parametrize("layout", ["mixtral", "qwen3-moe", "olmoe"])
def test_experts_may_be_stacked_in_one_tensor(layout: str, tmp_path: Path, saved: Saved) -> None:
    """transformers 5 holds experts as `experts.gate_up_proj` and may save them so."""
    model = saved(tmp_path / "model", layout)
    file = tmp_path / "model" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if ".experts." not in name}
    stacked = {name: p.detach().clone() for name, p in model.named_parameters() if ".experts." in name}
    assert any(name.endswith("experts.gate_up_proj") for name in stacked)
    save_file(kept | stacked, file)
    assert max_error(model, load_model(tmp_path / "model", weight_format="float32")) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_read(dtype: torch.dtype, tmp_path: Path, saved: Saved) -> None:
    saved(tmp_path / "model", "llama").to(dtype).save_pretrained(tmp_path / "model")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert max_error(reference, load_model(tmp_path / "model", weight_format="float32")) <= 1e-4


def test_transformers_4_spellings_of_rope_are_read(tmp_path: Path, saved: Saved) -> None:
    model = saved(tmp_path / "model", "llama3-rope")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    path.write_text(json.dumps(config))
    assert max_error(model, load_model(tmp_path / "model", weight_format="float32")) <= 1e-4


def test_a_sliding_window_bounds_the_context_instead_of_changing_results(tmp_path: Path, saved: Saved) -> None:
    saved(tmp_path / "model", "mistral")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sliding_window": 128}))
    assert load_model(tmp_path / "model", weight_format="float32").config.max_position_embeddings == 128


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"clip_qkv": 8.0}, "clip_qkv is 8.0"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"num_key_value_heads": 3}, "num_heads is 4"),
        ({"intermediate_size": 128}, r"gate_proj.weight has shape \[96, 64\], expected \[128, 64\]"),
        ({"hidden_size": "64"}, "hidden_size is '64'; expected a whole number"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'; expected a number"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": -1}}, "factor -1"),
        ({"num_hidden_layers": 5}, r"model\.layers\.3\..* is missing"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(
    change: dict[str, Any], named: str, tmp_path: Path, saved: Saved
) -> None:
    saved(tmp_path / "model", "llama")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFileError, match=named) as caught:
        load_model(tmp_path / "model", weight_format="float32")
    assert str(tmp_path / "model") in str(caught.value)


def test_pickles_are_never_read(tmp_path: Path, saved: Saved) -> None:
    saved(tmp_path / "model", "llama")
    (tmp_path / "model" / "model.safetensors").unlink()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ModelFileError, match="pickle"):
        load_model(tmp_path / "model", weight_format="float32")
    with pytest.raises(ModelFileError, match="pickle"):
        load_model(tmp_path / "model" / "pytorch_model.bin", weight_format="float32")


def test_a_truncated_shard_is_named(tmp_path: Path, saved: Saved) -> None:
    saved(tmp_path / "model", "llama")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        load_model(tmp_path / "model", weight_format="float32")


def test_the_tokenizer_of_the_folder_is_used(tmp_path: Path, saved: Saved) -> None:
    saved(tmp_path / "model", "qwen2")
    tokenizer = load_model(tmp_path / "model", weight_format="float32").tokenizer
    assert tokenizer.eos_token_ids == {257}
    assert tokenizer.fim is not None
    assert (tokenizer.fim.prefix, tokenizer.fim.suffix, tokenizer.fim.middle) == (258, 259, 260)
    assert tokenizer.control_token_text(261) == "<tool_call>"
    text = "e\u0301 <tool_call> <|endoftext|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not tokenizer.control_token_ids & set(tokenizer.encode(text))
