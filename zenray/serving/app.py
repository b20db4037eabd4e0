"""The Ray Serve application `zenray`: ContextAggregator, Verifier and DraftPool from one configuration.

`start` and `run` bring it up from Python; `app` is the builder that a Serve config file names, as in
clusters/.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from zenray.config import ServerSettings, ZenrayConfig
from zenray.serving.cluster import Cluster
from zenray.serving.locality import check_nodes_here
from zenray.serving.preflight import free_port, preflight
from zenray.serving.ready import Interrupted, Progress, wait_until_ready

if TYPE_CHECKING:
    from ray import serve

log = logging.getLogger(__name__)

__all__ = ["APP_NAME", "AppArguments", "Interrupted", "Platform", "app", "build_app", "config_of", "run", "start"]

APP_NAME = "zenray"
AGGREGATOR_CPUS = 0.25
_CONSTRUCTOR_RETRIES = 2
_STOP_MARGIN_S = 5.0
_INTERRUPT_POLL_S = 1.0


class AppArguments(BaseModel):
    """Arguments of the builder in a Serve config file: the options of `zenray serve`."""

    model_config = ConfigDict(extra="forbid")

    profile: str = Field("local", description="A profile of the package.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Dotted keys over the profile's values.")


def app(arguments: dict[str, Any]) -> serve.Application:
    """The application of a Serve config file: `import_path: zenray.serving.app:app`, with `AppArguments`."""
    return build_app(config_of(AppArguments.model_validate(arguments)))


def config_of(arguments: AppArguments) -> ZenrayConfig:
    """The configuration that builder arguments ask for. Raises as `load_config`."""
    from zenray.config_load import load_config

    # JSON is YAML, which is what a setting is read as.
    overrides = [f"{key}={json.dumps(value)}" for key, value in arguments.settings.items()]
    return load_config(arguments.profile, None, overrides)


def build_app(config: ZenrayConfig, peer_host: str | None = None) -> serve.Application:
    """The deployments with their options, bound to each other. Ports must be real ones, not 0.

    `peer_host` is where replicas listen for each other; None takes each node's address in the cluster.
    """
    from zenray.serving.aggregator import ContextAggregator
    from zenray.serving.draft_pool import DraftPool
    from zenray.serving.verifier import Verifier

    settings = config.server
    plain = config.model_dump(mode="json")
    verifier = _deployment(
        Verifier,
        settings,
        num_replicas=settings.verifier_replicas,
        ray_actor_options={"num_cpus": settings.verifier_num_cpus, "num_gpus": settings.verifier_num_gpus},
        **placement_group_options(config),
    ).bind(plain, peer_host)
    draft_pool = None
    if config.has_draft_pool:
        draft_pool = _deployment(
            DraftPool,
            settings,
            num_replicas=config.draft.num_replicas,
            ray_actor_options={"num_cpus": config.draft.num_cpus},
        ).bind(plain, peer_host)
    application: serve.Application = _deployment(
        ContextAggregator,
        settings,
        num_replicas=settings.aggregator_replicas,
        ray_actor_options={"num_cpus": AGGREGATOR_CPUS},
    ).bind(plain, verifier, draft_pool)
    return application


def placement_group_options(config: ZenrayConfig) -> dict[str, Any]:
    """A bundle for a verifier and one for each of its expert shards, by shard number; none without shards."""
    settings, experts = config.server, config.experts
    if experts.num_shards == 1:
        return {}
    from zenray.serving.expert_shards import bundle, shard_bundle

    leader = bundle(settings.verifier_num_cpus, settings.verifier_num_gpus)
    return {
        "placement_group_bundles": [leader, *[shard_bundle(experts)] * (experts.num_shards - 1)],
        "placement_group_strategy": "SPREAD" if experts.spread else "PACK",
    }


def _deployment(
    replica_class: type,
    settings: ServerSettings,
    *,
    num_replicas: int,
    ray_actor_options: dict[str, float],
    **options: Any,
) -> Any:
    from ray import serve

    decorate = serve.deployment(
        **options,
        num_replicas=num_replicas,
        ray_actor_options=ray_actor_options,
        # Calls on a handle are questions of operators and tests; requests are bounded in the replicas.
        max_ongoing_requests=16,
        max_queued_requests=64,
        health_check_period_s=settings.health_check_period_s,
        health_check_timeout_s=settings.health_check_timeout_s,
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=settings.drain_timeout_s + _STOP_MARGIN_S,
        max_constructor_retry_count=_CONSTRUCTOR_RETRIES,
        logging_config={"enable_access_log": False},
    )
    return decorate(replica_class)


class Platform:
    """A running application. `config` has the ports it really listens on."""

    def __init__(self, config: ZenrayConfig, cluster: Cluster, *, owns_serve: bool) -> None:
        self.config = config
        self._cluster = cluster
        self._owns_serve = owns_serve
        self._stopped = False

    @property
    def grpc_address(self) -> str:
        return f"{self.config.server.host}:{self.config.server.grpc_port}"

    @property
    def http_url(self) -> str:
        return f"http://{self.config.server.host}:{self.config.server.http_port}"

    @property
    def job_server(self) -> str | None:
        """The URL of Ray's job server; None where there is none."""
        return self._cluster.job_server

    def stop(self) -> None:
        """Drains, takes the application down and ends every process `start` began. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        try:
            _take_down(owns_serve=self._owns_serve, owns_ray=self._cluster.owned)
        except Exception:
            log.warning("the application could not be taken down in order", exc_info=True)
        finally:
            self._cluster.stop()

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def start(
    config: ZenrayConfig,
    progress: Progress | None = None,
    *,
    address: str | None = None,
    cluster: Cluster | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Platform:
    """Brings the application up and returns when it answers.

    It runs on `cluster`, which then ends with it; else at `address`; else on the Ray this process is connected to, else
    on a new one of its own, on the loopback. A port 0 becomes a free port. `should_stop` is polled meanwhile. Whatever
    goes wrong or is interrupted, nothing that was started stays.

    Raises:
        ConfigError: a port is taken, memory or cluster resources are too small, a replica refused its settings, or
            context.mode is local and the cluster has other machines.
        NotFound, ModelFileError: the model cannot be served.
        Unavailable: no Ray cluster at `address`.
        DeadlineExceeded: not ready within server.start_timeout_s.
        Interrupted: `should_stop` said so.
    """
    say = progress or (lambda what: None)
    if address is None:
        say("checking ports, model and memory")
        preflight(config)
    config = _with_real_ports(config)
    settings = config.server
    say("Ray" if address is None else f"connecting to Ray at {address}")
    cluster = cluster or Cluster(address, num_cpus(config), settings.dashboard_port)
    platform = None
    try:
        if config.context.mode == "local":
            check_nodes_here(cluster.node_addresses())
        from ray import serve
        from ray.serve.schema import LoggingConfig

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        owns_serve = not _serve_runs()
        platform = Platform(config, cluster, owns_serve=owns_serve)
        say("Ray Serve")
        serve.start(proxy_location="Disabled", logging_config=LoggingConfig(enable_access_log=False))
        serve.run_many(
            [serve.RunTarget(build_app(config, cluster.peer_host), name=APP_NAME, route_prefix=None)],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )
        wait_until_ready(APP_NAME, settings, say, should_stop or (lambda: False))
    except BaseException:
        if platform is None:
            cluster.stop()
        else:
            platform.stop()
        raise
    return platform


def run(
    config: ZenrayConfig,
    on_ready: Callable[[Platform], None] | None = None,
    progress: Progress | None = None,
    *,
    address: str | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serves until `stop` is set or SIGINT (KeyboardInterrupt) arrives; then cleans up.

    Raises what `start` raises.
    """
    stop = stop or threading.Event()
    with (
        _remembered_interrupts() as interrupted,
        start(config, progress, address=address, should_stop=stop.is_set) as platform,
    ):
        if on_ready is not None:
            on_ready(platform)
        while not stop.wait(_INTERRUPT_POLL_S):
            if interrupted.is_set():
                raise KeyboardInterrupt


@contextmanager
def _remembered_interrupts() -> Iterator[threading.Event]:
    """Set once SIGINT has come. Python drops a KeyboardInterrupt that is raised inside a finaliser, of which Ray has
    many; a server would then never stop."""
    interrupted = threading.Event()
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupted
        return

    def remember(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _with_real_ports(config: ZenrayConfig) -> ZenrayConfig:
    settings = config.server
    ports: dict[str, int] = {}
    for name in ("grpc_port", "http_port"):
        while (port := getattr(settings, name) or free_port(settings.host)) in ports.values():
            pass
        ports[name] = port
    return config.model_copy(update={"server": settings.model_copy(update=ports)})


def num_cpus(config: ZenrayConfig) -> float:
    """Logical CPUs that the application's replicas reserve."""
    settings, experts = config.server, config.experts
    return (
        settings.verifier_replicas * (settings.verifier_num_cpus + (experts.num_shards - 1) * experts.shard_num_cpus)
        + settings.aggregator_replicas * AGGREGATOR_CPUS
        + config.has_draft_pool * config.draft.num_replicas * config.draft.num_cpus
    )


def is_deployed() -> bool:
    """Whether the cluster this process is connected to has the application, ready or not."""
    from ray import serve

    return _serve_runs() and APP_NAME in serve.status().applications


def _serve_runs() -> bool:
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _take_down(*, owns_serve: bool, owns_ray: bool) -> None:
    import ray
    from ray import serve

    from zenray.serving.directory import remove_directory

    if not ray.is_initialized():
        return
    serve.delete(APP_NAME)
    remove_directory()
    if owns_serve and not owns_ray:
        serve.shutdown()  # type: ignore[no-untyped-call]  # With a Ray of our own, its end is the end of Serve, and faster.
