"""What is refused before Ray starts."""

from __future__ import annotations

import socket

import pytest

from zenray.config import ExpertSettings, ServerSettings, ZenrayConfig
from zenray.config_load import load_config
from zenray.errors import ConfigError, ModelFileError, NotFound
from zenray.serving.preflight import (
    RUNTIME_MIB,
    available_mib,
    check_experts,
    check_memory,
    check_ports,
    free_port,
    preflight,
    weights_mib,
)


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"server\.http_port.*127\.0\.0\.1:{port}.*--set server\.http_port="):
            check_ports(ServerSettings(grpc_port=0, http_port=port))
    check_ports(ServerSettings(grpc_port=0, http_port=port))


def test_a_port_shared_by_another_server_is_taken_too() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"server\.grpc_port"):
            check_ports(ServerSettings(grpc_port=taken.getsockname()[1], http_port=0))


def test_a_wanted_port_that_is_taken_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) not in (0, port)
    assert free_port("127.0.0.1", port) == port


def test_two_doors_need_two_ports() -> None:
    port = free_port("127.0.0.1")
    with pytest.raises(ConfigError, match="give them two ports"):
        check_ports(ServerSettings(grpc_port=port, http_port=port))


@pytest.fixture
def config() -> ZenrayConfig:
    return load_config("local", None, ["server.grpc_port=0", "server.http_port=0"])


def test_too_little_memory_says_what_needs_it(config: ZenrayConfig) -> None:
    needed = weights_mib("qwen2.5-coder-1.5b", "mixed", {})
    assert 900 < needed < 1600
    check_memory(config, 8192)
    with pytest.raises(ConfigError, match=r"engine\.kv_cache_mib.*1000 MiB are free; choose a smaller model"):
        check_memory(config, 1000)


def test_draft_models_need_memory_too() -> None:
    def fits(drafters: str, available: float) -> bool:
        draft = ["draft.model=qwen2.5-coder-0.5b", "draft.num_replicas=2", f"speculation.drafters={drafters}"]
        try:
            check_memory(load_config("local", None, draft), available)
        except ConfigError:
            return False
        return True

    one_process, two_more = 3_000, 6_000
    assert fits("[suffix]", one_process)
    assert fits("[draft_model]", one_process + 500)
    assert not fits("[draft_pool]", one_process)
    assert fits("[draft_pool]", two_more)


def test_every_expert_shard_needs_memory_for_a_process() -> None:
    def needed(num_shards: int) -> float:
        wanted = ["model.name=preset:zen4-coder-flash", f"experts.num_shards={num_shards}"]
        with pytest.raises(ConfigError, match=r"needs about (\d+) MiB") as refused:
            check_memory(load_config("tiny", None, wanted), 1)
        return float(str(refused.value).partition("about ")[2].partition(" ")[0])

    one, two, four = map(needed, (1, 2, 4))
    assert two == one + RUNTIME_MIB  # The weights are shared out, not copied.
    assert four == one + 3 * RUNTIME_MIB


def test_a_dense_model_has_no_experts_to_share_out() -> None:
    dense, moe = (load_config("tiny", None, [f"model.name=preset:{name}"]) for name in ("tiny", "tiny-moe"))
    shared = {"experts": ExpertSettings(num_shards=2)}
    check_experts(dense)
    check_experts(moe.model_copy(update=shared))
    with pytest.raises(ConfigError, match=r"experts\.num_shards is 2, but preset:tiny is a dense model"):
        check_experts(dense.model_copy(update=shared))


def test_a_preset_is_sized_by_its_parameters() -> None:
    one = weights_mib("preset:zen4-coder-flash", "bf16", {})
    assert 14_000 < one < 18_000
    assert weights_mib("preset:zen4-coder-flash", "bf16", {"num_layers": 2}) < one / 4


def test_an_unknown_or_missing_model_is_refused(
    config: ZenrayConfig, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENRAY_HOME", str(tmp_path))

    def of(name: str) -> ZenrayConfig:
        return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})

    with pytest.raises(NotFound, match=r"qwen2\.5-coder"):
        preflight(of("qwen2.5-codr-0.5b"))
    with pytest.raises(ModelFileError, match="zenray models pull"):
        preflight(of("qwen2.5-coder-0.5b"))
    with pytest.raises(NotFound):
        preflight(of("preset:tyni"))


def test_this_machine_has_some_memory() -> None:
    assert available_mib() > 100
