"""From settings to sharded experts: the factory a model is loaded with."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from zenray.config import ExpertSettings
from zenray.errors import ConfigError
from zenray.experts.fleet import Fleet
from zenray.experts.link import ShardHost, ShardLost, ShardRefused
from zenray.experts.planning import NoPlacement
from zenray.experts.sharded import ShardedExperts
from zenray.experts.status import ExpertStatus
from zenray.experts.store import ExpertStore, capacity_of
from zenray.model.config import ModelConfig
from zenray.model.load import ExpertsFactory
from zenray.model.moe import ExpertBackend
from zenray.model.weights import WeightProvider
from zenray.ops.backend import Backend

HostFactory = Callable[[str], ShardHost]
"""Makes what starts shards, given the digest of the weights they must have."""


def sharded_experts(settings: ExpertSettings, device: str, make_host: HostFactory) -> ExpertsFactory:
    """Experts of `settings.num_shards` processes, started when a model is loaded with this factory.

    The factory raises ConfigError when the shards cannot be brought up as configured.
    """

    def make(config: ModelConfig, weights: WeightProvider, ops: Backend) -> ShardedExperts:
        try:
            experts = connect_experts(config, weights, ops, settings, make_host(weights.digest), device)
        except NoPlacement as reason:
            raise ConfigError(
                f"experts.shard_memory_mib is {settings.shard_memory_mib:g} with experts.num_shards "
                f"{settings.num_shards}: {reason}; allow more memory or more shards"
            ) from None
        except (ShardLost, ShardRefused) as error:
            raise ConfigError(f"the expert shards cannot start: {error}") from error
        experts.upkeep.start()
        return experts

    return make


def connect_experts(
    config: ModelConfig,
    weights: WeightProvider,
    ops: Backend,
    settings: ExpertSettings,
    host: ShardHost,
    device: str = "cpu",
    clock_s: Callable[[], float] = time.monotonic,
) -> ShardedExperts:
    """Shards brought up and experts loaded; looking after them is left to the caller. Raises as `Fleet.start`."""
    shard_capacity = capacity_of(settings.shard_memory_mib, config, weights)
    leader_capacity = capacity_of(settings.leader_memory_mib or settings.shard_memory_mib, config, weights)
    store = ExpertStore(weights, capacity=leader_capacity, device=torch.device(device))
    fleet = Fleet(store, host, settings, config.moe_layers, config.num_experts, shard_capacity, clock_s)
    fleet.start()
    return ShardedExperts(fleet, ops)


def expert_status(experts: ExpertBackend) -> ExpertStatus | None:
    """What the shards of a model do; None where its experts, if it has any, live in one process."""
    return experts.status() if isinstance(experts, ShardedExperts) else None
