"""What a dense model is upcycled into, as data: how many experts, how many at a time, how wide, from which seed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from zenray.config import Settings
from zenray.errors import InvalidRequest, ModelFileError
from zenray.model.config import ModelConfig

UpcycleDtype = Literal["float16", "bfloat16", "float32"]


class Upcycling(Settings):
    """Virtual-group initialisation of a mixture of experts (He et al., arXiv 2410.07524).

    The neurons of each feed-forward are split into `top_k` groups, and every group is copied
    `num_experts / top_k` times. The groups of one copy share a router row, so the router always picks one whole
    copy: together its groups are the feed-forward that was split.
    """

    num_experts: int = Field(16, ge=1)
    top_k: int = Field(2, ge=1)
    expert_dim: int | None = Field(
        None, ge=1, description="Neurons of one expert; by default as many as top_k groups hold of the source."
    )
    seed: int = Field(0, ge=0, description="Of the router's directions and of the noise.")
    noise: float = Field(
        0.0, ge=0, description="Noise on every copy but the first, as a share of a matrix's own root mean square."
    )
    dtype: UpcycleDtype | None = Field(
        None, description="Of the matrices; by default the source's own, and float16 for a quantised source."
    )

    def moe_config(self, source: ModelConfig, where: str) -> ModelConfig:
        """The architecture that upcycling `source` gives; `where` names the source in errors.

        Raises:
            InvalidRequest: a number of experts, top-k or width that does not fit, naming what is allowed.
            ModelFileError: a source that is no dense model, or has biases that no published layout has room for.
        """
        if source.num_experts:
            raise ModelFileError(f"{where}: it is a mixture of experts already; only a dense model can be upcycled")
        if source.mlp_bias or source.attention_out_bias:
            raise ModelFileError(f"{where}: its feed-forward or output projection has a bias, which is not supported")
        if self.num_experts % self.top_k:
            raise InvalidRequest.of("experts", self.num_experts, f"multiples of top_k, which is {self.top_k}")
        widest = source.intermediate_size // self.top_k
        if not 1 <= (width := widest if self.expert_dim is None else self.expert_dim) <= widest:
            allowed = f"1 to {widest}, the {source.intermediate_size} neurons of the source over top_k {self.top_k}"
            raise InvalidRequest.of("expert_dim", width, allowed)
        return source.replace(
            {
                "architecture": published_layout(source, where),
                "intermediate_size": 0,
                "num_experts": self.num_experts,
                "num_experts_per_token": self.top_k,
                "expert_intermediate_size": width,
                "norm_topk_prob": True,
            }
        )


def published_layout(source: ModelConfig, where: str) -> str:
    """The `model_type` whose attention is that of `source`.

    Raises:
        ModelFileError: no layout that is read here has it.
    """
    layouts = {(True, "none"): "qwen2_moe", (False, "head"): "qwen3_moe", (False, "none"): "mixtral"}
    layout = layouts.get((source.qkv_bias, source.qk_norm))
    if layout is None:
        raise ModelFileError(
            f"{where}: qkv_bias {source.qkv_bias} with qk_norm {source.qk_norm!r}; supported: a bias without a norm "
            "(qwen2_moe), the norm of each head without a bias (qwen3_moe), neither (mixtral)"
        )
    return layout
