"""A home of its own for every test, and a toy tokenizer to put beside tiny checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from zenray.model.bpe import bpe_definition, byte_to_char
from zenray.model.pre_tokenizers import pre_tokenizer

WriteTokenizer = Callable[..., None]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and lose much when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Conversions of a test go under its own folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("ZENRAY_HOME", str(home))
    return home


@pytest.fixture
def write_tokenizer() -> WriteTokenizer:
    """`write_tokenizer(folder, control_tokens, merges=())`: a byte-level tokenizer.json with a normaliser and
    added tokens, as Hugging Face writes one."""

    def write(folder: Path, control_tokens: Mapping[str, int], merges: Sequence[tuple[str, str]] = ()) -> None:
        vocab = {char: byte for byte, char in byte_to_char().items()}
        for left, right in merges:
            vocab[left + right] = len(vocab)
        definition = bpe_definition(vocab, merges, pre_tokenizer("qwen2"))
        definition["normalizer"] = {"type": "NFC"}
        definition["added_tokens"] = [
            {
                "id": token_id,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": not text.startswith("<tool"),
            }
            for text, token_id in control_tokens.items()
        ]
        (folder / "tokenizer.json").write_text(json.dumps(definition))

    return write


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """`write_model(path, hidden=64, vocab=264, seed=0, layers=2)`: a small qwen2 GGUF file of random weights."""

    def write(path: Path, *, hidden: int = 64, vocab: int = 264, seed: int = 0, layers: int = 2) -> Path:
        rng = np.random.default_rng(seed)
        writer = gguf.GGUFWriter(path, "qwen2")
        writer.add_block_count(layers)
        writer.add_context_length(256)
        writer.add_embedding_length(hidden)
        writer.add_feed_forward_length(2 * hidden)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        table = byte_to_char()
        writer.add_token_list([table[byte] for byte in range(256)] + ["<|endoftext|>"])
        writer.add_token_types([1] * 256 + [3])
        writer.add_token_merges(["a b"])
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocab, hidden), "output_norm.weight": (hidden,)}
        for layer in range(layers):
            shapes |= {
                f"blk.{layer}.attn_norm.weight": (hidden,),
                f"blk.{layer}.ffn_norm.weight": (hidden,),
                f"blk.{layer}.attn_q.weight": (hidden, hidden),
                f"blk.{layer}.attn_k.weight": (hidden // 2, hidden),
                f"blk.{layer}.attn_v.weight": (hidden // 2, hidden),
                f"blk.{layer}.attn_q.bias": (hidden,),
                f"blk.{layer}.attn_k.bias": (hidden // 2,),
                f"blk.{layer}.attn_v.bias": (hidden // 2,),
                f"blk.{layer}.attn_output.weight": (hidden, hidden),
                f"blk.{layer}.ffn_gate.weight": (2 * hidden, hidden),
                f"blk.{layer}.ffn_up.weight": (2 * hidden, hidden),
                f"blk.{layer}.ffn_down.weight": (hidden, 2 * hidden),
            }
        for name, shape in shapes.items():
            values = rng.standard_normal(shape).astype(np.float32)
            writer.add_tensor(name, values / np.float32(shape[-1] ** 0.5) if len(shape) > 1 else 1 + values / 10)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture
def model_path(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    return write_model(tmp_path / "model.gguf")
