"""A layer at a time gives what the whole decoder gives."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from zenray.model.convert import open_source
from zenray.model.evaluate import sequence_logits
from zenray.model.formats import pack_matrix
from zenray.model.layerwise import LayerwisePass
from zenray.model.load import load_unconverted
from zenray.ops import unpack


def test_windows_of_any_length_end_in_the_decoders_logits(model_path: Path) -> None:
    source, decoder = open_source(model_path), load_unconverted(model_path, "float32").decoder
    windows = [torch.randint(0, 256, (length,)).tolist() for length in (40, 7, 1)]
    layers = LayerwisePass(source, windows)
    for layer in range(source.config.num_layers):
        x_TD = layers.feed_forward_input(layer)
        gate_up, down = (
            unpack(pack_matrix(source, f"layers.{layer}.{name}", "float32")) for name in ("gate_up", "down")
        )
        gate_TF, up_TF = (x_TD @ gate_up.T).chunk(2, dim=-1)
        layers.add((F.silu(gate_TF) * up_TF) @ down.T)
    logits = layers.final_hidden() @ unpack(pack_matrix(source, "head", "float32")).T
    expected = torch.cat([sequence_logits(decoder, window) for window in windows])
    assert float((logits - expected).abs().max()) <= 1e-4
