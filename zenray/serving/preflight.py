"""What can be known before Ray starts: are the ports free, is the model here, is there memory for it."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil

from zenray.config import ServerSettings, WeightFormat, ZenrayConfig
from zenray.errors import ConfigError
from zenray.model.catalog import Catalog, is_preset, locate
from zenray.model.presets import preset_config

RUNTIME_MIB = 1024
"""What a verifier process may use beside weights and KV blocks: libraries, activations, tokenizer."""
_NEARBY_PORTS = 50
_BYTES_PER_PARAMETER = {"float32": 4.0, "bf16": 2.0, "int8": 1.1, "mixed": 0.8, "int4": 0.65}


def preflight(config: ZenrayConfig) -> None:
    """Raises NotFound or ModelFileError for a model that cannot be served and ConfigError for anything else
    that is in the way; each says what to do."""
    check_ports(config.server)
    if not is_preset(config.model.name):
        locate(config.model.name)
    check_experts(config)
    drafts_here = config.has_draft_pool or "draft_model" in config.speculation.drafters
    if drafts_here and config.draft.model is not None and not is_preset(config.draft.model):
        locate(config.draft.model)
    if config.model.device == "cpu":
        check_memory(config, available_mib())


def check_ports(settings: ServerSettings) -> None:
    """Raises ConfigError naming the setting of a port that is taken."""
    if settings.grpc_port == settings.http_port and settings.grpc_port:
        raise ConfigError(f"server.grpc_port and server.http_port are both {settings.grpc_port}; give them two ports")
    for name in ("grpc_port", "http_port"):
        port = getattr(settings, name)
        if port and (reason := _bind_error(settings.host, port)):
            raise ConfigError(
                f"server.{name}: cannot listen on {settings.host}:{port} ({reason}); "
                f"stop what listens there or choose another, such as --set server.{name}={port + 100}"
            )


def free_port(host: str, wanted: int = 0) -> int:
    """A port nobody listens on now: `wanted`, else one of those above it, else any."""
    nearby = range(wanted, min(wanted + _NEARBY_PORTS, 65536)) if wanted else ()
    for candidate in nearby:
        if _bind_error(host, candidate) is None:
            return candidate
    with _socket(host) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def check_experts(config: ZenrayConfig) -> None:
    """Raises ConfigError for a model without experts that is to share them out, and the errors of `open_source`."""
    name, num_shards = config.model.name, config.experts.num_shards
    if num_shards == 1:
        return
    if is_preset(name):
        architecture = preset_config(name.partition(":")[2], config.model.preset_overrides)
    else:
        from zenray.model.convert import open_source  # torch: only who wants shards waits for it here

        architecture = open_source(locate(name).path).config
    if not architecture.num_experts:
        raise ConfigError(
            f"experts.num_shards is {num_shards}, but {name} is a dense model without experts to share out; "
            "leave experts.num_shards at 1 or choose a Mixture-of-Experts model.name"
        )


def check_memory(config: ZenrayConfig, available: float) -> None:
    """Raises ConfigError when `available` MiB do not hold every verifier, with its expert shards, and every draft
    replica of this machine."""
    weights = weights_mib(config.model.name, config.model.weight_format, config.model.preset_overrides)
    num_shards = config.experts.num_shards
    verifier = process_mib(weights, config.engine.kv_cache_mib) + (num_shards - 1) * runtime_mib(weights / num_shards)
    needed = config.server.verifier_replicas * verifier
    with_whom = f" on {num_shards} expert shards" if num_shards > 1 else ""
    if config.draft.model is not None:
        draft = weights_mib(config.draft.model, config.draft.weight_format, {})
        if "draft_model" in config.speculation.drafters:
            needed += config.server.verifier_replicas * (draft + config.draft.kv_cache_mib)
        if config.has_draft_pool:
            needed += config.draft.num_replicas * process_mib(draft, config.draft.kv_cache_mib)
        with_whom += f" with {config.draft.model} drafting"
    if needed > available:
        raise ConfigError(
            f"{config.server.verifier_replicas} verifier of {config.model.name} in {config.model.weight_format}"
            f"{with_whom} needs about {needed:.0f} MiB "
            f"(weights {weights:.0f}, engine.kv_cache_mib {config.engine.kv_cache_mib:g}), "
            f"and {available:.0f} MiB are free; choose a smaller model, a narrower model.weight_format, "
            "a smaller engine.kv_cache_mib or fewer server.verifier_replicas"
        )


def process_mib(weights: float, kv_cache: float) -> float:
    """What a replica with that much of weights and cache takes in all."""
    return weights + kv_cache + runtime_mib(weights)


def runtime_mib(weights: float) -> float:
    """What a process with that much of weights takes beside them; a toy's libraries count as a quarter."""
    return RUNTIME_MIB * min(1.0, 0.25 + weights / RUNTIME_MIB)


def weights_mib(name: str, weight_format: WeightFormat, preset_overrides: dict[str, int]) -> float:
    """An estimate of the weights' size; 0 where nothing is known before the file is read."""
    if is_preset(name):
        num_parameters = preset_config(name.partition(":")[2], preset_overrides).num_parameters
    else:
        entry = Catalog.load().entries.get(name)
        if entry is None:
            return Path(name).stat().st_size / 2**20 if Path(name).is_file() else 0.0
        num_parameters = entry.parameters
    return num_parameters * _BYTES_PER_PARAMETER[weight_format] / 2**20


def available_mib() -> float:
    """Memory this process could still get: the machine's, or its control group's where that is less."""
    free = psutil.virtual_memory().available / 2**20
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            limit, used = Path(limit_file).read_text().strip(), Path(used_file).read_text().strip()
        except OSError:
            continue
        if limit.isdigit() and int(limit) < 2**60:
            # Page cache counts as used there; half of it is a cautious guess of what can be dropped.
            free = min(free, max((int(limit) - int(used)) / 2**20, int(limit) / 2**21))
        break
    return free


def _bind_error(host: str, port: int) -> str | None:
    try:
        with _socket(host) as probe:
            # Connections of a server that just ended do not count, one that listens does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
