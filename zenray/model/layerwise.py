"""A text's way through a model, with one layer's weights in memory at a time: for calibration and comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from zenray.model.attention import Attention
from zenray.model.evaluate import BLOCK_SIZE, step_batch
from zenray.model.formats import pack_matrix, read_vector
from zenray.model.rope import cos_sin_table
from zenray.model.source import ModelSource, checked
from zenray.model.weights import LayerWeights, MoeWeights
from zenray.ops.batch import LayerCache
from zenray.ops.reference import ReferenceBackend


class LayerwisePass:
    """Windows of token ids through a model file, in float32 and by the reference kernels.

    The caller computes the feed-forwards: `feed_forward_input`, then `add`, for each layer in order.
    """

    def __init__(self, source: ModelSource, windows: Sequence[Sequence[int]]) -> None:
        self._source, self._config, self._ops = source, source.config, ReferenceBackend(torch.float32)
        self._attention = Attention(self._config, self._ops)
        longest = max(len(window) for window in windows)
        self._batch = step_batch([(window, 0) for window in windows], max_tokens=longest)
        self._num_blocks = len(windows) * -(-longest // BLOCK_SIZE)
        self._cos_sin_PC = cos_sin_table(self._config, longest, torch.float32)
        self._residual_TD = _embedded(source, self._batch.token_ids_T)

    @torch.inference_mode()
    def feed_forward_input(self, layer: int) -> torch.Tensor:
        """What the feed-forward of `layer` is given: [T, D]. Layers come in order."""
        config, ops = self._config, self._ops
        weights = self._attention_weights(layer)
        x_TD = ops.rms_norm(self._residual_TD, weights.input_norm_D, config.rms_norm_eps)
        shape = (self._num_blocks, config.num_kv_heads, BLOCK_SIZE, config.head_dim)
        cache = LayerCache(torch.zeros(shape), torch.zeros(shape))
        heads = self._attention(x_TD, weights, self._cos_sin_PC, cache, self._batch)
        assert heads is not None
        attended_TD = ops.linear(heads, weights.out)
        return ops.add_rms_norm_(attended_TD, self._residual_TD, weights.post_norm_D, config.rms_norm_eps)

    @torch.inference_mode()
    def add(self, y_TD: torch.Tensor) -> None:
        """Ends a layer with the output of its feed-forward."""
        self._residual_TD += y_TD

    @torch.inference_mode()
    def final_hidden(self) -> torch.Tensor:
        """Behind the last layer, what the head is given: [T, D]."""
        norm_D = read_vector(self._source, "final_norm", torch.float32)
        return self._ops.rms_norm(self._residual_TD, norm_D, self._config.rms_norm_eps)

    def _attention_weights(self, layer: int) -> LayerWeights:
        source, at = self._source, f"layers.{layer}."

        def vector(name: str) -> torch.Tensor:
            return read_vector(source, at + name, torch.float32)

        has_qk_norm = self._config.qk_norm != "none"
        return LayerWeights(
            input_norm_D=vector("input_norm"),
            qkv=pack_matrix(source, at + "qkv", "float32"),
            q_norm=vector("q_norm") if has_qk_norm else None,
            k_norm=vector("k_norm") if has_qk_norm else None,
            out=pack_matrix(source, at + "out", "float32"),
            post_norm_D=vector("post_norm"),
            feed_forward=MoeWeights(torch.empty(0), (), 0),  # the caller's
        )


def _embedded(source: ModelSource, token_ids_T: torch.Tensor) -> torch.Tensor:
    """Rows of the embedding, without holding the table."""
    table = checked(source, "embed")
    found_U, places_T = torch.unique(token_ids_T, return_inverse=True)
    return torch.cat([table.read(row, row + 1) for row in found_U.tolist()])[places_T]
