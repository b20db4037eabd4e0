"""Profile, file and --set make one configuration; every mistake names itself, its place and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zenray.config_load import load_config, profile_names, profile_text, resolve_config
from zenray.errors import ConfigError, NotFound


def fails(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error that `text` as a --config file causes."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", path, overrides)
    return str(caught.value).replace(str(path), "mine.yaml").splitlines()


class TestProfiles:
    def test_the_shipped_ones_are_valid_and_say_what_they_are_for(self) -> None:
        assert profile_names() == ["flash-8b", "gpu", "local", "moe", "pair", "tiny"]
        for name in profile_names():
            load_config(name)
            assert profile_text(name).startswith("# ")

    def test_tiny_needs_no_file_and_local_a_real_model(self) -> None:
        assert load_config("tiny").model.name == "preset:tiny"
        assert not load_config("local").model.name.startswith("preset:")

    def test_an_unknown_one_offers_the_nearest(self) -> None:
        with pytest.raises(NotFound, match="did you mean 'local'"):
            load_config("locale")


class TestOverlay:
    def test_file_over_profile_and_set_over_both(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text("server: {grpc_port: 1111, http_port: 2222}\n")
        config = load_config("tiny", path, ["server.http_port=3333"])
        assert (config.server.grpc_port, config.server.http_port) == (1111, 3333)
        assert config.model.name == "preset:tiny"
        assert config.server.drain_timeout_s == load_config("tiny").server.drain_timeout_s

    def test_values_of_set_are_yaml(self) -> None:
        config = load_config("tiny", None, ["engine.prefix_cache=false", "draft.model=null", "model.name=a=b"])
        assert config.engine.prefix_cache is False
        assert config.draft.model is None
        assert config.model.name == "a=b"

    def test_deep_mappings_merge(self) -> None:
        overrides = ["model.preset_overrides.num_layers=2", "model.preset_overrides.num_heads=4"]
        assert load_config("tiny", None, overrides).model.preset_overrides == {"num_layers": 2, "num_heads": 4}

    def test_a_section_whose_keys_are_commented_out_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text("model:\n  # name: x\n")
        assert load_config("tiny", path) == load_config("tiny")
        path.write_text("")
        assert load_config("tiny", path) == load_config("tiny")

    def test_origins_name_the_last_writer(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_text("\nmodel:\n  context_length: 64\n")
        _, origins = resolve_config("tiny", path, ["model.random_seed=3"])
        assert origins["model", "context_length"] == f"{path}:3"
        assert origins["model", "random_seed"] == "--set model.random_seed"
        assert origins["model", "name"].startswith("profile tiny:")


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("server:\n  grpc_prt: 1\n", "unknown key server.grpc_prt; did you mean server.grpc_port? (mine.yaml:2)"),
            ("grpc_port: 1\n", "unknown key grpc_port; did you mean server.grpc_port? (mine.yaml:1)"),
            ("modle: {}\n", "unknown key modle; did you mean model? (mine.yaml:1)"),
            ("model:\n  engine:\n    block_size: 8\n", "unknown key model.engine; did you mean engine? (mine.yaml:2)"),
            (
                "model:\n  weight_format: fp8\n",
                "model.weight_format is 'fp8'; allowed: one of float32, bf16, int8, int4, mixed (mine.yaml:2)",
            ),
            (
                "server:\n  http_port: 70000\n",
                "server.http_port is 70000; allowed: an integer from 0 to 65535 (mine.yaml:2)",
            ),
            (
                "engine:\n  block_size: much\n",
                "engine.block_size is 'much'; allowed: an integer from 1 to 256 (mine.yaml:2)",
            ),
            ("engine:\n  prefix_cache: 7\n", "engine.prefix_cache is 7; allowed: true or false (mine.yaml:2)"),
            (
                "server:\n  drain_timeout_s: .inf\n",
                "server.drain_timeout_s is inf; allowed: a number, at least 0 (mine.yaml:2)",
            ),
            (
                "model:\n  preset_overrides: {num_layers: x}\n",
                "model.preset_overrides.num_layers is 'x'; allowed: an integer (mine.yaml:2)",
            ),
            (
                "draft: 3\n",
                "draft is 3; allowed: a section with the keys model, weight_format, num_replicas, num_cpus, "
                "num_threads, kv_cache_mib, head_tokens (mine.yaml:1)",
            ),
        ],
    )
    def test_one_line_says_what_where_and_what_is_allowed(self, tmp_path: Path, text: str, line: str) -> None:
        assert fails(tmp_path, text) == [line]

    def test_all_are_reported_at_once(self, tmp_path: Path) -> None:
        lines = fails(tmp_path, "modle: 1\nserver: {grpc_port: x}\n", "engine.block_size=0")
        assert len(lines) == 3
        assert any("(--set engine.block_size)" in line for line in lines)

    def test_a_key_given_twice(self, tmp_path: Path) -> None:
        assert fails(tmp_path, "engine:\n  block_size: 8\n  block_size: 16\n") == [
            "mine.yaml:3: engine.block_size is given twice; first on line 2"
        ]

    def test_text_that_is_no_yaml_names_line_and_column(self, tmp_path: Path) -> None:
        (line,) = fails(tmp_path, "model:\n  name: [a\nengine: {}\n")
        assert line.startswith("mine.yaml:3:")

    def test_a_list_is_no_configuration(self, tmp_path: Path) -> None:
        (line,) = fails(tmp_path, "- a\n- b\n")
        assert line.startswith("mine.yaml:1: expected sections")

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            load_config("tiny", tmp_path / "gone.yaml")
        (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="not UTF-8"):
            load_config("tiny", tmp_path / "binary.yaml")

    @pytest.mark.parametrize("override", ["a", "=1", ".a=1", "server.=1"])
    def test_a_set_without_key_and_value(self, override: str) -> None:
        with pytest.raises(ConfigError, match="expected KEY=VALUE"):
            load_config("tiny", None, [override])

    def test_printed_it_can_be_read_back(self, tmp_path: Path) -> None:
        config = load_config("local")
        path = tmp_path / "whole.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        assert load_config("tiny", path) == config


class TestSpeculation:
    @pytest.mark.parametrize("value", ["auto", "0", "64"])
    def test_gamma_is_a_number_or_left_to_the_policy(self, value: str) -> None:
        assert str(load_config("tiny", None, [f"speculation.gamma={value}"]).speculation.gamma) == value

    @pytest.mark.parametrize("value", ["65", "-1", "true", "fast", "1.5"])
    def test_any_other_gamma_is_one_clear_error(self, tmp_path: Path, value: str) -> None:
        (line,) = fails(tmp_path, f"speculation: {{gamma: {value}}}")
        assert "speculation.gamma is" in line
        assert "allowed: auto or an integer from 0 to 64" in line

    def test_an_unknown_drafter_names_the_known_ones(self, tmp_path: Path) -> None:
        (line,) = fails(tmp_path, "speculation: {drafters: [suffix, oracle]}")
        assert "draft_model, draft_pool, suffix, recycling" in line

    def test_a_model_drafter_needs_a_model(self, tmp_path: Path) -> None:
        (line,) = fails(tmp_path, "speculation: {drafters: [draft_pool]}\ndraft: {model: null}")
        assert "draft_pool, which needs draft.model" in line
