"""From a configuration to a running engine: the one place where models, drafters and settings meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from zenray.config import ZenrayConfig
from zenray.context.suggestion.stops import make_text_rule
from zenray.engine.engine import Engine
from zenray.errors import ConfigError
from zenray.experts.build import HostFactory, sharded_experts
from zenray.model.build import build_model, set_num_threads
from zenray.model.convert import Progress
from zenray.model.load import LoadedModel
from zenray.speculative.build import build_speculator
from zenray.speculative.drafter import Drafter
from zenray.speculative.warm_up import warm_up


def build_engine(
    config: ZenrayConfig,
    progress: Progress | None = None,
    remote_drafters: Callable[[LoadedModel], Sequence[Drafter]] = lambda verifier: (),
    shard_host: HostFactory | None = None,
) -> Engine:
    """Loads the configured models (they must be pulled already) and puts an engine around them.

    `remote_drafters` makes the drafters that whoever serves supplies, such as the client of a draft pool, and
    `shard_host` what starts expert shards; by default these are child processes.

    Raises `NotFound` for an unknown model, `ModelFileError` for a missing, corrupt or unreadable one and
    `ConfigError` for a draft model that does not fit the model, for shards that cannot start or have nothing to hold.
    """
    set_num_threads(config.model.num_threads)
    experts = None
    if config.experts.num_shards > 1:
        from zenray.experts.process_host import ProcessHost

        make_host = shard_host or partial(ProcessHost, config.model, config.experts)
        experts = sharded_experts(config.experts, config.model.device, make_host)
    model = build_model(config.model, progress, experts)
    if experts is not None and not model.config.num_experts:
        raise ConfigError(f"experts.num_shards is {config.experts.num_shards}, but {config.model.name} has no experts")
    speculator = build_speculator(config, model, remote_drafters(model), progress)
    engine = Engine(
        model, config.engine, config.model.context_length, speculator=speculator, make_text_rule=make_text_rule
    )
    if speculator is not None and "draft_model" in config.speculation.drafters:
        warm_up(engine)
    return engine
