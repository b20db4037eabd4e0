"""The one decoder: whatever `ModelConfig` describes, over paged caches, through a kernel backend.

Shapes: T tokens of the step, R rows whose logits are wanted, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch

from zenray.model.attention import Attention
from zenray.model.config import ModelConfig
from zenray.model.moe import ExpertBackend, LocalExperts, StepAborted
from zenray.model.rope import cos_sin_table
from zenray.model.weights import FeedForwardWeights, LayerWeights, ModelWeights, MoeWeights
from zenray.ops.backend import Backend
from zenray.ops.batch import LayerCache, StepBatch, select_rows

INITIAL_ROPE_POSITIONS = 4096


@dataclass(frozen=True, slots=True)
class States:
    """What a pass leaves of the rows whose logits are wanted, all [R, D] in the model's activation type.

    `final_RD` is the final norm's output. `hidden_RD` has the layers that were asked for, numbered as transformers
    does in `output_hidden_states`: 0 the embeddings, L the residual stream behind layer L, the number of layers again
    the final norm's output.
    """

    final_RD: torch.Tensor
    hidden_RD: dict[int, torch.Tensor] = field(default_factory=dict)


class Decoder:
    """Tokens to logits. Holds weights only; the caches are the caller's.

    `experts` replaces the local experts of an MoE model, for instance by sharded ones.
    """

    def __init__(
        self, config: ModelConfig, weights: ModelWeights, backend: Backend, experts: ExpertBackend | None = None
    ) -> None:
        self.config, self.weights, self.ops = config, weights, backend
        self.dtype = weights.dtype
        self.device = weights.final_norm_D.device
        self._wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._attention = Attention(config, backend)
        self.experts: ExpertBackend = experts or LocalExperts(
            [
                layer.feed_forward.experts if isinstance(layer.feed_forward, MoeWeights) else ()
                for layer in weights.layers
            ],
            backend,
        )
        # The norm after a layer is the next layer's input norm, fused with the residual addition.
        self._next_norms = [layer.input_norm_D for layer in weights.layers[1:]] + [weights.final_norm_D]
        self._cos_sin_PC = torch.empty(0)
        self._grow_rope(min(INITIAL_ROPE_POSITIONS, config.max_position_embeddings))

    def forward(self, batch: StepBatch, caches: Sequence[LayerCache]) -> torch.Tensor:
        """Logits [R, V] of `batch.logit_rows_R`, as `head` gives them of what `states` leaves."""
        return self.head(self.states(batch, caches).final_RD)

    @torch.inference_mode()
    def states(self, batch: StepBatch, caches: Sequence[LayerCache], hidden_layers: Collection[int] = ()) -> States:
        """The pass up to the final norm, with the states behind `hidden_layers` (0 to the number of layers).

        Writes the step's keys and values into `caches`, one per layer; a step whose experts were lost is run
        again and writes the same ones. Raises `StepPostponed` and `Unavailable` as `ExpertBackend.step`.
        """
        while True:
            with self.experts.step():
                try:
                    return self._run(batch, caches, hidden_layers)
                except StepAborted:
                    continue

    @torch.inference_mode()
    def head(self, states_RD: torch.Tensor, out_RV: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [R, V] of final states, float32 (float64 in a float64 model); written to `out_RV`, contiguous and of
        that type, where it is given. A row's logits do not depend on the other rows where `linear`'s do not."""
        if states_RD.shape[0] == 0:
            return torch.empty((0, self.config.vocab_size), dtype=self._wide, device=self.device)
        # Rounded to bfloat16, near-equal logits would tie and the lower id win.
        return self.ops.linear(states_RD, self.weights.head, self._wide, out_RV)

    def _run(self, batch: StepBatch, caches: Sequence[LayerCache], hidden_layers: Collection[int]) -> States:
        ops, eps = self.ops, self.config.rms_norm_eps
        if max(batch.context_lens_list) > self._cos_sin_PC.shape[0]:
            self._grow_rope(max(batch.context_lens_list))
        num_rows, num_tokens = batch.logit_rows_R.shape[0], batch.token_ids_T.shape[0]
        last = len(self.weights.layers) - 1
        residual_TD = ops.embed(batch.token_ids_T, self.weights.embed)
        hidden_RD: dict[int, torch.Tensor] = {}
        x_TD = ops.rms_norm(residual_TD, self.weights.layers[0].input_norm_D, eps)
        for index, layer in enumerate(self.weights.layers):
            if index in hidden_layers:  # a copy: the residual stream is written in place
                hidden_RD[index] = select_rows(residual_TD, batch.logit_rows_R)
            heads = self._attention(
                x_TD, layer, self._cos_sin_PC, caches[index], batch, store_only=index == last and num_rows == 0
            )
            if heads is None:
                return States(residual_TD[:0], hidden_RD)
            if index == last and num_rows != num_tokens:
                # Behind the last attention rows are independent: only those asked for go on.
                heads, residual_TD = (select_rows(x, batch.logit_rows_R) for x in (heads, residual_TD))
            x_TD = ops.add_rms_norm_(ops.linear(heads, layer.out), residual_TD, layer.post_norm_D, eps)
            x_TD = self._feed_forward(index, x_TD, layer)
            x_TD = ops.add_rms_norm_(x_TD, residual_TD, self._next_norms[index], eps)
        if last + 1 in hidden_layers:
            hidden_RD[last + 1] = x_TD
        return States(x_TD, hidden_RD)

    def _feed_forward(self, index: int, x_TD: torch.Tensor, layer: LayerWeights) -> torch.Tensor:
        weights = layer.feed_forward
        if isinstance(weights, FeedForwardWeights):
            return self.ops.linear(self.ops.silu_mul(self.ops.linear(x_TD, weights.gate_up)), weights.down)
        ids_TK, weights_TK = self.ops.route(
            x_TD, weights.router_ED, self.config.num_experts_per_token, self.config.norm_topk_prob
        )
        return self.experts(index, x_TD, ids_TK, weights_TK)

    def new_caches(self, num_blocks: int, block_size: int) -> list[LayerCache]:
        """Empty paged caches, one per layer, in the model's activation dtype.

        Zeroed: a masked slot is multiplied by zero, which must not meet a stray NaN.
        """
        shape = (num_blocks, self.config.num_kv_heads, block_size, self.config.head_dim)
        return [
            LayerCache(*(torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2)))
            for _ in range(self.config.num_layers)
        ]

    @property
    def weight_bytes_per_token(self) -> int:
        """Weight bytes one decode step at batch 1 reads: top-k experts, one embedding row, all else whole."""
        total = self.weights.head.num_bytes + self.weights.embed.num_bytes // self.config.vocab_size
        for layer in self.weights.layers:
            total += layer.qkv.num_bytes + layer.out.num_bytes
            feed_forward = layer.feed_forward
            if isinstance(feed_forward, MoeWeights):
                router = feed_forward.router_ED
                total += router.numel() * router.element_size()
                total += self.config.num_experts_per_token * feed_forward.expert_bytes
            else:
                total += feed_forward.num_bytes
        return total

    def _grow_rope(self, num_positions: int) -> None:
        """At least `num_positions` rows; doubles, so a long context rebuilds the table rarely."""
        rows = max(num_positions, min(2 * self._cos_sin_PC.shape[0], self.config.max_position_embeddings))
        self._cos_sin_PC = cos_sin_table(self.config, rows, self._wide).to(self.device)
