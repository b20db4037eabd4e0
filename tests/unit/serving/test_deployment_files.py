"""Cluster files and dashboards say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from zenray.api.service import VerifierLoad
from zenray.config_load import load_config
from zenray.context.suggestion.model import Suggestion, SuggestionFilter
from zenray.context.suggestion.outcomes import Outcome
from zenray.engine.request import (
    Delta,
    DrafterLoad,
    DrafterUsage,
    EngineLoad,
    Final,
    FinishReason,
    Started,
    Timings,
    Usage,
)
from zenray.errors import ConfigError
from zenray.experts.link import ShardReport
from zenray.experts.placement import ExpertPlacement
from zenray.experts.status import ExpertStatus, ShardStatus
from zenray.observe.metrics import RequestMeter, ServingMetrics
from zenray.serving.app import APP_NAME, AppArguments, config_of, placement_group_options
from zenray.serving.app import app as build
from zenray.serving.environment import RAY_ENVIRONMENT
from zenray.serving.preflight import check_experts

ROOT = Path(__file__).parents[3]
DEPLOYMENTS = {"ContextAggregator", "Verifier", "DraftPool"}


@pytest.fixture
def kuberay() -> dict[str, dict]:
    documents = yaml.safe_load_all((ROOT / "clusters/kuberay.yaml").read_text())
    return {document["kind"]: document for document in documents}


def test_the_kuberay_service_runs_this_application(kuberay: dict[str, dict]) -> None:
    from ray.serve.schema import ServeDeploySchema

    serve_config = yaml.safe_load(kuberay["RayService"]["spec"]["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(serve_config)
    (application,) = schema.applications
    assert application.name == APP_NAME
    assert str(schema.proxy_location.value) == "Disabled"
    module, _, name = application.import_path.partition(":")
    assert name == build.__name__ == "app"
    assert module == build.__module__
    config = config_of(AppArguments.model_validate(application.args))
    assert config.server.host == "0.0.0.0"
    assert config.model.device.startswith("cuda")
    assert {deployment.name for deployment in application.deployments} <= DEPLOYMENTS

    groups = {
        group["groupName"]: group for group in kuberay["RayService"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    }
    assert groups["verifiers"]["replicas"] == config.server.verifier_replicas
    assert groups["doors"]["replicas"] == config.server.aggregator_replicas
    ports = {port["name"]: port["containerPort"] for port in containers(groups["doors"])[0]["ports"]}
    assert ports == {"serve": config.server.http_port, "grpc": config.server.grpc_port}
    door_label = groups["doors"]["template"]["metadata"]["labels"]
    assert kuberay["Service"]["spec"]["selector"].items() <= door_label.items()
    pulled = groups["verifiers"]["template"]["spec"]["initContainers"][0]["command"]
    assert pulled == ["zenray", "models", "pull", config.model.name]


def test_the_expert_parallel_service_has_a_gpu_for_every_shard() -> None:
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "clusters/experts.yaml").read_text()))
    (application,) = schema.applications
    config = config_of(AppArguments.model_validate(application.args))
    check_experts(config)
    options = placement_group_options(config)
    assert [bundle["GPU"] for bundle in options["placement_group_bundles"]] == [1.0] * config.experts.num_shards
    assert options["placement_group_strategy"] == "SPREAD"


def containers(group: dict) -> list[dict]:
    return group["template"]["spec"]["containers"]


def test_every_node_has_the_environment_ray_needs(kuberay: dict[str, dict]) -> None:
    cluster = kuberay["RayService"]["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        environment = {entry["name"]: entry.get("value") for entry in containers(group)[0]["env"]}
        assert RAY_ENVIRONMENT.items() <= environment.items()
    launcher = (ROOT / "clusters/launcher.yaml").read_text()
    assert launcher.count("python -m zenray.serving.environment") == 2


def test_ray_takes_the_launcher_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "clusters/launcher.yaml").read_text())))


def test_the_cluster_files_ask_for_the_ray_that_is_tested() -> None:
    import ray

    assert f"ray:{ray.__version__}-" in (ROOT / "clusters/Dockerfile").read_text()
    assert f'rayVersion: "{ray.__version__}"' in (ROOT / "clusters/kuberay.yaml").read_text()


def test_application_arguments_are_checked_like_a_profile() -> None:
    assert config_of(AppArguments(profile="tiny")) == load_config("tiny")
    changed = config_of(AppArguments(profile="tiny", settings={"server.verifier_replicas": 3, "model.name": "a: b"}))
    assert (changed.server.verifier_replicas, changed.model.name) == (3, "a: b")
    with pytest.raises(ConfigError, match=r"verifier_replicas"):
        config_of(AppArguments(profile="tiny", settings={"server.verifier_replica": 3}))


def test_serve_builds_the_application_from_what_a_file_says() -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as call_builder
    from ray.serve._private.build_app import build_app as build_for_serve

    def deployments(settings: dict[str, object]) -> dict[str, int]:
        built = build_for_serve(call_builder(build, {"profile": "tiny", "settings": settings}), name=APP_NAME)
        return {deployment.name: deployment.num_replicas for deployment in built.deployments}

    alone = {"ContextAggregator": 1, "Verifier": 1}
    pool = {"draft.num_replicas": 2, "draft.model": "preset:tiny", "speculation.drafters": ["draft_pool"]}
    assert deployments(pool) == {**alone, "DraftPool": 2}
    for nobody_asks in ({"speculation.drafters": ["suffix"]}, {"speculation.gamma": 0}):
        assert deployments({**pool, **nobody_asks}) == alone


def test_a_verifier_has_a_bundle_for_each_of_its_shards() -> None:
    def options(**experts: object) -> dict[str, object]:
        settings = {"model.name": "preset:tiny-moe", **{f"experts.{name}": value for name, value in experts.items()}}
        return placement_group_options(config_of(AppArguments(profile="tiny", settings=settings)))

    assert options() == {}
    shards = options(num_shards=3, shard_num_cpus=0.25)
    assert shards["placement_group_bundles"] == [{"CPU": 0.5}, {"CPU": 0.25}, {"CPU": 0.25}]
    assert shards["placement_group_strategy"] == "PACK"
    on_gpus = options(num_shards=2, shard_num_cpus=0, shard_num_gpus=1, spread=True)
    assert on_gpus["placement_group_bundles"] == [{"CPU": 0.5}, {"GPU": 1.0}]
    assert on_gpus["placement_group_strategy"] == "SPREAD"
    (nothing,) = options(num_shards=2, shard_num_cpus=0)["placement_group_bundles"][1:]
    assert 0 < nothing["CPU"] < 0.01  # Ray takes no empty bundle.


def exported_names() -> set[str]:
    """The sample names of a process that has seen a request."""
    shard = ShardStatus(0, "serving", "in-process", ShardReport(0, "host", 1, 1, 1, 1, None, 0, 0, 0.0))
    experts = ExpertStatus(ExpertPlacement(0, {0: ((0,),)}), (shard,), {}, 0, 0.0, 0.0, 0, 0.0, 0.0, None)
    metrics = ServingMetrics(lambda: {"a": VerifierLoad(EngineLoad(drafters=(DrafterLoad("suffix"),)), experts)})
    meter = RequestMeter(metrics, "interactive")
    for event in (
        Started(1, 0),
        Delta(0, "a", (1,)),
        Delta(0, "b", (2,)),
        Final(0, "ab", FinishReason.EOS, Usage(1, 2, 0, 1, (DrafterUsage("suffix", 1, 1, 1),)), Timings(0, 0, 0)),
    ):
        meter.see(event)
    meter.end("EOS")
    suggestions = metrics.suggestions
    suggestions.wasted(1, "superseded")
    suggestions.reused(1)
    suggestions.prefetched("KEPT")
    suggestions.suggested(Suggestion("", SuggestionFilter.EMPTY))
    suggestions.reported("python", Outcome.ACCEPTED, 1, 1)
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}


def test_dashboards_and_rules_ask_for_metrics_that_exist() -> None:
    dashboard = json.loads((ROOT / "dashboards/grafana.json").read_text())
    rules = yaml.safe_load((ROOT / "dashboards/rules.yml").read_text())["groups"][0]["rules"]
    assert yaml.safe_load((ROOT / "dashboards/prometheus.yml").read_text())["rule_files"] == ["rules.yml"]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for rule in rules]
    asked = {name for expression in expressions for name in re.findall(r"\bzenray[a-z_:0-9]*", expression)}
    assert len(asked) > 12
    assert asked <= exported_names() | recorded
