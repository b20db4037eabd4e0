"""Where a job runs: on the verifiers of a Ray cluster that is there, or on the same actors started for its time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass

from zenray.batch.client.generator import connected
from zenray.batch.client.settings import ClientSettings
from zenray.batch.client.verifiers import all_verifiers
from zenray.batch.job import Job, Say, ServedModel
from zenray.config import ZenrayConfig
from zenray.errors import ConfigError, Unavailable
from zenray.serving import app
from zenray.serving.cluster import Cluster

_DIRECTORY_TIMEOUT_S = 10.0
_RESOURCES_POLL_S = 1.0
_RESOURCES_SLACK = 1e-6  # Ray counts in ten-thousandths of a CPU.


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job runs. `model` is what its verifiers serve and `model_key` its identity in one text; None and empty
    for a job that asks none."""

    model: ServedModel | None = None
    model_key: str = ""


def asks_model(job: Job) -> bool:
    """Whether a stage of the job does."""
    return any(stage.needs_model for stage in job.stages)


@contextlib.contextmanager
def place_for(
    job: Job, workers: int, address: str | None, config: ZenrayConfig | None, client: ClientSettings, say: Say
) -> Iterator[Place]:
    """A connection to Ray and, for a job that asks a model, verifiers; what was started here ends with the block.

    `address` is HOST:PORT of a Ray cluster's head or auto. Without it the job runs on the cluster it was submitted
    to or that this process is connected to, else on a Ray of its own. Where no verifier is registered, those of
    `config` are started, and without a `config` none.

    Raises:
        Unavailable: no cluster at `address`; no verifier, and none to start; no room for the job's workers for
            `client.patience_s`.
        ConfigError: a cluster too small for the job's workers, and what `zenray.serving.app.start` raises.
    """
    needs_model = asks_model(job)
    num_cpus = workers * sum(stage.num_cpus for stage in job.stages)
    address = address or ("auto" if os.environ.get("RAY_ADDRESS") else None)
    with contextlib.ExitStack() as stack:
        say("connecting to Ray" if address else "looking for Ray")
        platform_cpus = app.num_cpus(config) if config is not None and needs_model else 0.0
        cluster = Cluster(address, platform_cpus + num_cpus)
        stack.callback(cluster.stop)
        if needs_model and _starts_verifiers(config, say):
            assert config is not None
            stack.enter_context(app.start(_on_free_ports(config), say, cluster=cluster))
        _wait_for_room(num_cpus, client.patience_s, say)
        yield asyncio.run(_served(client)) if needs_model else Place()


def _starts_verifiers(config: ZenrayConfig | None, say: Say) -> bool:
    """Whether verifiers are to be started: none is registered, and no application is about to bring some."""
    if asyncio.run(_has_verifiers()):
        return False
    if app.is_deployed():
        say("the platform of this cluster is starting; waiting for its verifiers")
        return False
    if config is None:
        raise Unavailable(
            "no verifier is registered in this Ray cluster; start `zenray serve` there, or name a profile for the job"
        )
    return True


async def _has_verifiers() -> bool:
    try:
        async with asyncio.timeout(_DIRECTORY_TIMEOUT_S), aclosing(all_verifiers()) as sets:
            return bool(await anext(sets))
    except TimeoutError:
        return False


async def _served(client: ClientSettings) -> Place:
    async with connected(all_verifiers, client) as generator:
        return Place(ServedModel(generator.model, generator.tokenizer), generator.model_key)


def _on_free_ports(config: ZenrayConfig) -> ZenrayConfig:
    """The doors of a platform that only a job knows of do not take the ports of one that people use."""
    server = config.server.model_copy(update={"grpc_port": 0, "http_port": 0})
    return config.model_copy(update={"server": server})


def _wait_for_room(num_cpus: float, patience_s: float, say: Say) -> None:
    """Until the cluster has the workers' CPUs free. A job that can never be placed says so instead of hanging."""
    import ray

    deadline_s = time.monotonic() + patience_s
    said = False
    while (free := ray.available_resources().get("CPU", 0.0)) + _RESOURCES_SLACK < num_cpus:  # type: ignore[no-untyped-call]
        total = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call]
        if total < num_cpus:
            raise ConfigError(f"the job's workers need {num_cpus:g} CPUs; this Ray cluster has {total:g}")
        if time.monotonic() > deadline_s:
            raise Unavailable(f"the job's workers need {num_cpus:g} CPUs; {free:g} of {total:g} are free")
        if not said:
            said = True
            say(f"waiting for {num_cpus:g} CPUs; {free:g} of {total:g} are free")
        time.sleep(_RESOURCES_POLL_S)
