"""What a model needs to be served: memory of each shard, bytes per token, and what stands in the way.

The leader holds attention, tables, routers, the KV cache and its even share of the experts; every other shard holds
experts alone. So shards divide the experts, while the leader bounds context and concurrency.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from zenray.experts.model_bytes import ModelBytes, PlanFormat, activation_bytes
from zenray.model.config import ModelConfig

MAX_SHARDS = 64
_FLOAT_BYTES = 4
_LOGIT_COPIES = 2
"""Logits, and the probabilities that sampling makes of them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be served, and on what. Bytes and rates are of one shard.

    chunk_tokens: tokens of a prefill step. acceptance: the chance that the verifier agrees with a draft token.
    """

    weight_format: PlanFormat
    num_shards: int
    memory_bytes: float
    context_length: int
    concurrency: int
    gamma: int = 8
    acceptance: float = 0.8
    redundant_experts: int = 0
    chunk_tokens: int = 512
    block_size: int = 16
    bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class ShardMemory:
    """One shard's bytes. All but experts and their rows are the leader's alone."""

    name: str
    num_experts: int
    expert_bytes: int
    leader_weight_bytes: int
    kv_bytes: int
    workspace_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.expert_bytes + self.leader_weight_bytes + self.kv_bytes + self.workspace_bytes

    @property
    def largest(self) -> str:
        """The component that takes the most."""
        parts = {
            "expert weights": self.expert_bytes,
            "attention, tables and dense weights": self.leader_weight_bytes,
            "KV cache": self.kv_bytes,
            "workspace": self.workspace_bytes,
        }
        return max(parts, key=parts.__getitem__)


@dataclass(frozen=True, slots=True)
class StepReads:
    """What one verification step of `num_sequences` reads: gamma + 1 tokens of each.

    distinct_experts: expected, of one MoE layer. busiest_expert_bytes: of the shard with most of them, at best.
    """

    num_sequences: int
    num_tokens: int
    committed_tokens: float
    distinct_experts: float
    expert_bytes: float
    busiest_expert_bytes: float
    leader_weight_bytes: int
    kv_bytes: int

    @property
    def weight_bytes(self) -> float:
        return self.expert_bytes + self.leader_weight_bytes

    @property
    def weight_bytes_per_verified(self) -> float:
        return self.weight_bytes / self.num_tokens

    @property
    def weight_bytes_per_committed(self) -> float:
        return self.weight_bytes / self.committed_tokens

    @property
    def serial_bytes(self) -> float:
        """What is read one after another: attention, then the busiest shard's experts, layer by layer."""
        return self.leader_weight_bytes + self.kv_bytes + self.busiest_expert_bytes

    @property
    def largest(self) -> str:
        parts = {
            "expert weights": self.busiest_expert_bytes,
            "the leader's weights": self.leader_weight_bytes,
            "KV cache": self.kv_bytes,
        }
        return max(parts, key=parts.__getitem__)

    def tokens_per_s(self, bytes_per_s: float) -> float:
        """Of all sequences together, were reading all that takes time."""
        return self.committed_tokens * bytes_per_s / self.serial_bytes


@dataclass(frozen=True)
class ScalePlan:
    """The answer for one model and one wish."""

    config: ModelConfig
    weights: ModelBytes
    wanted: Wanted

    @cached_property
    def shards(self) -> tuple[ShardMemory, ...]:
        """The leader, and the fullest of the others if there are any."""
        return shard_memory(self.config, self.weights, self.wanted, self.wanted.num_shards)

    @property
    def fits(self) -> bool:
        return all(shard.total_bytes <= self.wanted.memory_bytes for shard in self.shards)

    @cached_property
    def fewest_shards(self) -> int | None:
        """The smallest number that fits; None if none up to `MAX_SHARDS` does."""
        most = MAX_SHARDS if self.config.num_experts else 1
        for num_shards in range(1, most + 1):
            shards = shard_memory(self.config, self.weights, self.wanted, num_shards)
            if all(shard.total_bytes <= self.wanted.memory_bytes for shard in shards):
                return num_shards
        return None

    @cached_property
    def most_sequences(self) -> int:
        """Sequences of the wanted context that the leader's memory takes."""
        per_sequence = kv_bytes(self.config, self.wanted, 1) + _logit_bytes(self.config, self.wanted, 1)
        rest = self.shards[0].total_bytes - self.wanted.concurrency * per_sequence
        return max(0, int((self.wanted.memory_bytes - rest) // per_sequence))

    def reads(self, num_sequences: int) -> StepReads:
        return step_reads(self.config, self.weights, self.wanted, num_sequences)

    @property
    def bottleneck(self) -> str:
        """What stands in the way: the memory that does not suffice, else what a step reads most of."""
        if not self.fits:
            fullest = max(self.shards, key=lambda shard: shard.total_bytes)
            return f"memory of {fullest.name}: {fullest.largest}"
        return f"bandwidth: {self.reads(self.wanted.concurrency).largest}"


def distinct_experts(num_experts: int, num_chosen: int, num_tokens: int) -> float:
    """Expected experts of a layer that tokens touch, each choosing independently: E (1 - (1 - K/E)^T)."""
    return num_experts * (1.0 - (1.0 - num_chosen / num_experts) ** num_tokens)


def committed_per_round(gamma: int, acceptance: float) -> float:
    """Expected tokens of a round: the accepted prefix of the draft and one of the verifier's own
    (Leviathan et al., arXiv 2211.17192, equation 1)."""
    return float(gamma + 1) if acceptance == 1 else (1 - acceptance ** (gamma + 1)) / (1 - acceptance)


def kv_bytes(config: ModelConfig, wanted: Wanted, num_sequences: int) -> int:
    """Of whole blocks."""
    num_tokens = wanted.block_size * -(-wanted.context_length // wanted.block_size)
    return num_sequences * num_tokens * config.kv_bytes_per_token(activation_bytes(wanted.weight_format))


def shard_memory(config: ModelConfig, weights: ModelBytes, wanted: Wanted, num_shards: int) -> tuple[ShardMemory, ...]:
    """The leader's, and of the fullest other shard; experts dealt as `plan_placement` does without a load."""
    num_moe_layers = len(config.moe_layers)
    redundant = min(wanted.redundant_experts, config.num_experts * (num_shards - 1))
    num_copies = weights.num_experts + num_moe_layers * redundant
    held = [num_copies // num_shards, -(-num_copies // num_shards)]  # the leader has the rounded-down share
    leader = ShardMemory(
        name="the leader",
        num_experts=held[0],
        expert_bytes=round(held[0] * weights.expert),
        leader_weight_bytes=weights.leader,
        kv_bytes=kv_bytes(config, wanted, wanted.concurrency),
        workspace_bytes=_leader_workspace(config, wanted, held[0]),
    )
    if num_shards == 1:
        return (leader,)
    workspace = _expert_workspace(config, wanted, held[1])
    return leader, ShardMemory("each other shard", held[1], round(held[1] * weights.expert), 0, 0, workspace)


def step_reads(config: ModelConfig, weights: ModelBytes, wanted: Wanted, num_sequences: int) -> StepReads:
    """Expected reads of a verification step at full context."""
    num_tokens = num_sequences * (wanted.gamma + 1)
    num_moe_layers = len(config.moe_layers)
    touched = distinct_experts(config.num_experts, config.num_experts_per_token, num_tokens) if num_moe_layers else 0.0
    busiest = max(min(touched, 1.0), touched / wanted.num_shards)
    return StepReads(
        num_sequences=num_sequences,
        num_tokens=num_tokens,
        committed_tokens=num_sequences * committed_per_round(wanted.gamma, wanted.acceptance),
        distinct_experts=touched,
        expert_bytes=num_moe_layers * touched * weights.expert,
        busiest_expert_bytes=num_moe_layers * busiest * weights.expert,
        leader_weight_bytes=weights.attention
        + weights.dense
        + weights.routers
        + weights.vectors
        + weights.head
        + num_tokens * weights.embedding_row,
        kv_bytes=num_sequences * wanted.context_length * config.kv_bytes_per_token(_act(wanted)),
    )


def _act(wanted: Wanted) -> int:
    return activation_bytes(wanted.weight_format)


def _logit_bytes(config: ModelConfig, wanted: Wanted, num_sequences: int) -> int:
    return num_sequences * (wanted.gamma + 1) * config.vocab_size * _FLOAT_BYTES * _LOGIT_COPIES


def _expert_workspace(config: ModelConfig, wanted: Wanted, num_held: int) -> int:
    """Rows of a prefill chunk at a shard, at worst: in, gathered per pair, gate and up, their product, and out."""
    if not num_held:
        return 0
    hidden, width = config.hidden_size, config.expert_intermediate_size
    num_pairs = wanted.chunk_tokens * min(config.num_experts_per_token, num_held)
    return _act(wanted) * (wanted.chunk_tokens * hidden + num_pairs * (2 * hidden + 3 * width))


def _leader_workspace(config: ModelConfig, wanted: Wanted, num_held: int) -> int:
    """The largest layer's activations in a prefill chunk, the logits of a verification step, the rotary table."""
    tokens, hidden = wanted.chunk_tokens, config.hidden_size
    residual = 2 * tokens * hidden * _act(wanted)
    attention = tokens * 2 * (config.q_size + config.kv_size) * _act(wanted)
    dense = tokens * (3 * config.intermediate_size + hidden) * _act(wanted) if config.has_dense_layers else 0
    experts = 0
    if config.num_experts:
        returned = tokens * config.num_experts_per_token * hidden * _act(wanted)
        routing = tokens * config.num_experts * _FLOAT_BYTES
        experts = routing + returned + _expert_workspace(config, wanted, num_held) + tokens * hidden * _FLOAT_BYTES
    rope = wanted.context_length * config.head_dim * _FLOAT_BYTES
    logits = _logit_bytes(config, wanted, wanted.concurrency)
    return residual + max(attention, dense, experts) + rope + logits
