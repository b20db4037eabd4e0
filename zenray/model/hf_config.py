"""Hugging Face `config.json` to `ModelConfig`, as transformers 4 and 5 write it, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zenray.errors import ConfigError, ModelFileError
from zenray.model.config import ModelConfig, QkNorm, RopeScaling

_QK_NORM: dict[str, QkNorm] = {"qwen3": "head", "qwen3_moe": "head", "olmoe": "full"}
_MOE = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe")
_QKV_BIAS = ("qwen2", "qwen2_moe")
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", *_MOE)
"""Values of `model_type` that are read."""


def config_from_hf(data: Mapping[str, Any], where: str) -> ModelConfig:
    """The architecture of a parsed config.json; `where` names the file in errors.

    Raises:
        ModelFileError: another model_type, a missing key, or a feature no layout here has.
    """
    model_type = data.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ModelFileError(f"{where}: model_type is {model_type!r}; supported: {', '.join(MODEL_TYPES)}")

    def key(*names: str) -> int:
        for name in names:
            value = data.get(name)
            if value is not None:
                if type(value) is not int or value < 0:
                    raise ModelFileError(f"{where}: {name} is {value!r}; expected a whole number")
                return value
        raise ModelFileError(f"{where}: {names[0]} is missing")

    _refuse(data, where, "hidden_act", lambda value: value in (None, "silu"), "silu")
    _refuse(data, where, "clip_qkv", lambda value: value is None, "null")
    _refuse(data, where, "quantization_config", lambda value: value is None, "none: weights in F32, F16 or BF16")
    _refuse(data, where, "decoder_sparse_step", lambda value: value in (None, 1), "1")
    if model_type == "qwen2_moe":
        shared = {"shared_expert_intermediate_size": "missing", **data}
        _refuse(shared, where, "shared_expert_intermediate_size", lambda value: value == 0, "0, no shared expert")
    is_moe = model_type in _MOE
    num_heads, hidden = max(key("num_attention_heads"), 1), key("hidden_size")
    eos = data.get("eos_token_id")
    biased = bool(data.get("attention_bias", False))
    width = key("intermediate_size")
    # Past a sliding window attention would differ from full attention, so the context ends there.
    window = data.get("sliding_window") if data.get("use_sliding_window", True) else None
    try:
        return ModelConfig(
            architecture=model_type,
            vocab_size=key("vocab_size"),
            hidden_size=hidden,
            num_layers=key("num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=key("num_key_value_heads", "num_attention_heads"),
            head_dim=key("head_dim") if data.get("head_dim") is not None else hidden // num_heads,
            intermediate_size=0 if is_moe and not data.get("mlp_only_layers") else width,
            rms_norm_eps=_real(data, "rms_norm_eps", where),
            rope_theta=_real({"rope_theta": 10_000.0, **data, **_rope(data)}, "rope_theta", where),
            rope_scaling=_rope_scaling(data, where),
            max_position_embeddings=min(key("max_position_embeddings"), window or 1 << 62),
            qkv_bias=bool(data.get("qkv_bias", True)) if model_type in _QKV_BIAS else biased,
            attention_out_bias=biased and model_type not in _QKV_BIAS,
            mlp_bias=bool(data.get("mlp_bias", False)),
            qk_norm=_QK_NORM.get(model_type, "none"),
            tie_word_embeddings=bool(data.get("tie_word_embeddings", False)),
            num_experts=key("num_local_experts", "num_experts") if is_moe else 0,
            num_experts_per_token=key("num_experts_per_tok") if is_moe else 0,
            expert_intermediate_size=key("moe_intermediate_size", "intermediate_size") if is_moe else 0,
            norm_topk_prob=model_type == "mixtral" or bool(data.get("norm_topk_prob", False)),
            dense_layers=tuple(data.get("mlp_only_layers") or ()) if is_moe else (),
            eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
            bos_token_id=data.get("bos_token_id"),
        )
    except ConfigError as error:
        raise ModelFileError(f"{where}: {error}") from None
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"{where}: a value is missing or of the wrong type ({error})") from None


def _real(data: Mapping[str, Any], name: str, where: str) -> float:
    value = data.get(name)
    if type(value) not in (int, float):
        raise ModelFileError(f"{where}: {name} is {value!r}; expected a number")
    return float(value)  # type: ignore[arg-type]


def _refuse(data: Mapping[str, Any], where: str, name: str, accepts: Callable[[Any], bool], allowed: str) -> None:
    if not accepts(data.get(name)):
        raise ModelFileError(f"{where}: {name} is {data[name]!r}; supported: {allowed}")


def _rope(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """transformers 5 writes `rope_parameters` (with rope_theta), transformers 4 `rope_scaling`."""
    return data.get("rope_parameters") or data.get("rope_scaling") or {}


def _rope_scaling(data: Mapping[str, Any], where: str) -> RopeScaling:
    rope = _rope(data)
    kind = rope.get("rope_type", rope.get("type", "default"))
    original = rope.get("original_max_position_embeddings") or data.get("max_position_embeddings", 0)
    if kind == "default":
        return RopeScaling()
    if kind == "linear":
        return RopeScaling(type="linear", factor=rope["factor"])
    if kind == "llama3":
        return RopeScaling(
            type="llama3",
            factor=rope["factor"],
            original_max_position_embeddings=original,
            low_freq_factor=rope["low_freq_factor"],
            high_freq_factor=rope["high_freq_factor"],
        )
    if kind == "yarn" and not rope.get("mscale") and not rope.get("mscale_all_dim"):
        return RopeScaling(
            type="yarn",
            factor=rope["factor"],
            original_max_position_embeddings=original,
            beta_fast=rope.get("beta_fast") or 32.0,
            beta_slow=rope.get("beta_slow") or 1.0,
            attention_factor=rope.get("attention_factor"),
            truncate=rope.get("truncate", True),
        )
    raise ModelFileError(f"{where}: rope scaling {dict(rope)!r}; supported: default, linear, llama3, yarn")


_CLASSES = {"qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe", "mixtral": "Mixtral"}


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json of a mixture of experts in every layer, in the layout that `config.architecture` names.

    Raises:
        ModelFileError: another layout, or rotary positions that config.json cannot state.
    """
    layout = config.architecture
    if layout not in _CLASSES:
        raise ModelFileError(f"architecture is {layout!r}; it can be written as: {', '.join(_CLASSES)}")
    experts_key = "num_local_experts" if layout == "mixtral" else "num_experts"
    width = config.expert_intermediate_size
    layouts: dict[str, dict[str, Any]] = {
        "mixtral": {"intermediate_size": width, "sliding_window": None},
        "qwen3_moe": {"moe_intermediate_size": width, "norm_topk_prob": config.norm_topk_prob, "mlp_only_layers": []},
        "qwen2_moe": {
            "moe_intermediate_size": width,
            "shared_expert_intermediate_size": 0,
            "norm_topk_prob": config.norm_topk_prob,
            "mlp_only_layers": [],
            "qkv_bias": True,
            "use_sliding_window": False,
        },
    }
    return {
        "architectures": [f"{_CLASSES[layout]}ForCausalLM"],
        "model_type": layout,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": width * config.num_experts_per_token,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": _rope_parameters(config),
        "rope_theta": config.rope_theta,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        experts_key: config.num_experts,
        "num_experts_per_tok": config.num_experts_per_token,
        "decoder_sparse_step": 1,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids),
        **layouts[layout],
    }


def _rope_parameters(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    fields = {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        "yarn": (
            "factor",
            "original_max_position_embeddings",
            "beta_fast",
            "beta_slow",
            "attention_factor",
            "truncate",
        ),
    }.get(scaling.type)
    if fields is None:
        raise ModelFileError(f"rotary positions of type {scaling.type!r} cannot be written into a config.json")
    stated = {name: getattr(scaling, name) for name in fields if getattr(scaling, name) is not None}
    return {"rope_type": scaling.type, "rope_theta": config.rope_theta, **stated}
