"""A toy mixture of experts: as a preset, as a checkpoint on disk, and served by shards in threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from zenray.config import ExpertSettings, ModelSettings
from zenray.experts.link import ExpertCall
from zenray.experts.placement import ExpertId
from zenray.experts.shard import compute
from zenray.experts.shard_server import ShardServer
from zenray.experts.store import ExpertStore
from zenray.experts.stream_link import StreamLink, connect
from zenray.model.bpe import bpe_definition, byte_to_char
from zenray.model.build import open_weights
from zenray.model.load import OpenedWeights
from zenray.model.pre_tokenizers import pre_tokenizer


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and lose much when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_settings() -> ModelSettings:
    """2 layers of 8 experts, width 64, exact enough to compare bits."""
    return ModelSettings(name="preset:tiny-moe", weight_format="float32")


@pytest.fixture(scope="session")
def toy(toy_settings: ModelSettings) -> OpenedWeights:
    return open_weights(toy_settings)


@pytest.fixture(scope="session")
def expected(toy: OpenedWeights) -> Callable[[ExpertCall], torch.Tensor]:
    """What a shard with all experts of the toy computes."""
    store = ExpertStore(toy.provider)
    store.load(ExpertId(layer, expert) for layer in range(2) for expert in range(8))
    return lambda call: compute(store, toy.ops, call)


@pytest.fixture(scope="session")
def make_call(toy: OpenedWeights) -> Callable[..., ExpertCall]:
    """`make_call(seed=0, experts=(0, 1), num_rows=2, layer=0)`: every expert takes every row, last row first."""

    def make(seed: int = 0, experts: tuple[int, ...] = (0, 1), num_rows: int = 2, layer: int = 0) -> ExpertCall:
        x_ND = torch.randn(num_rows, toy.config.hidden_size, generator=torch.Generator().manual_seed(seed))
        rows_P = torch.arange(num_rows).flip(0).repeat(len(experts))
        return ExpertCall(1, layer, experts, (num_rows,) * len(experts), rows_P, x_ND.to(toy.provider.dtype))

    return make


class GatedOps:
    """Kernels that stop at a gate in every call, so that a test decides when a shard is in mid-computation."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops
        self.entered, self.gate = threading.Event(), threading.Event()

    def swiglu_rows(self, *arguments: Any) -> torch.Tensor:
        self.entered.set()
        assert self.gate.wait(60)
        y_PD: torch.Tensor = self._ops.swiglu_rows(*arguments)
        return y_PD

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)


@pytest.fixture
def gated(toy: OpenedWeights) -> Iterator[GatedOps]:
    ops = GatedOps(toy.ops)
    yield ops
    ops.gate.set()


class Served:
    """Shard 1 in a thread, as a leader finds it."""

    def __init__(self, weights: OpenedWeights, ops: Any, bind: str, settings: ExpertSettings) -> None:
        self.weights, self.settings, self.token = weights, settings, "the token of this test"
        served = OpenedWeights(weights.config, weights.provider, ops or weights.ops)
        self.server = ShardServer(1, served, settings, self.token, bind=bind)
        self.thread = threading.Thread(target=self.server.serve, name="shard under test", daemon=True)
        self.thread.start()

    def link(self) -> StreamLink:
        digest = self.weights.provider.digest
        return connect(self.server.address, self.token, digest, 1, self.settings)


@pytest.fixture
def serve(toy: OpenedWeights) -> Iterator[Callable[..., Served]]:
    """`serve(ops=None, bind="unix", weights=toy, **settings)`: a shard that waits for its leader."""
    with ExitStack() as ends:

        def start(ops: Any = None, bind: str = "unix", weights: OpenedWeights = toy, **fields: Any) -> Served:
            served = Served(weights, ops, bind, ExpertSettings(**fields))
            ends.callback(served.thread.join, 60)
            ends.callback(served.server.close)
            return served

        yield start


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint on disk: 3 layers of 4 experts."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), layers=3, experts=4, width=256)


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer of 8 experts of 3 MiB each: more than the kernel maps at one fault."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), layers=1, experts=8, width=4096)


def write_checkpoint(folder: Path, *, layers: int, experts: int, width: int, hidden: int = 64) -> Path:
    """Safetensors in the layout of Qwen3-MoE."""
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": 264,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "eos_token_id": 256,
        "num_experts": experts,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": width,
        "norm_topk_prob": True,
        "tie_word_embeddings": False,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (264, hidden),
        "lm_head.weight": (264, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}post_attention_layernorm.weight": (hidden,),
            f"{at}self_attn.q_proj.weight": (64, hidden),
            f"{at}self_attn.k_proj.weight": (32, hidden),
            f"{at}self_attn.v_proj.weight": (32, hidden),
            f"{at}self_attn.o_proj.weight": (hidden, 64),
            f"{at}self_attn.q_norm.weight": (16,),
            f"{at}self_attn.k_norm.weight": (16,),
            f"{at}mlp.gate.weight": (experts, hidden),
        }
        for expert in range(experts):
            inner = f"{at}mlp.experts.{expert}."
            shapes |= {
                f"{inner}gate_proj.weight": (width, hidden),
                f"{inner}up_proj.weight": (width, hidden),
                f"{inner}down_proj.weight": (hidden, width),
            }
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5 for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    vocab = {char: byte for byte, char in byte_to_char().items()}
    definition = bpe_definition(vocab, [], pre_tokenizer("qwen2"))
    definition["added_tokens"] = [
        {
            "id": 256,
            "content": "<|endoftext|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ]
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    return folder
