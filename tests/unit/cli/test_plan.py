"""`zenray plan`: what it shows, and what it says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zenray.cli.main import app
from zenray.experts.model_bytes import model_bytes
from zenray.experts.scale_plan import ScalePlan, Wanted
from zenray.model.presets import PRESETS


def run(*args: str, columns: int = 80) -> str:
    result = CliRunner().invoke(app, ["plan", *args], env={"COLUMNS": str(columns), "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    return result.stdout


class TestCommand:
    def test_shows_memory_reads_and_the_verdict_within_eighty_columns(self) -> None:
        text = run("moe-70b", "-n", "4", "-l", "32768", "-f", "int4", "--bandwidth", "3350")
        for words in (
            "70.56 B parameters, 27.23 B active",
            "the leader",
            "each of 3 others",
            "KV cache",
            "short",
            "no number of shards helps",
            "memory of the leader: KV cache",
            "per committed token",
        ):
            assert words in " ".join(text.split())
        assert max(map(len, text.splitlines())) <= 80

    def test_json_is_the_plan(self) -> None:
        found = json.loads(run("preset:moe-358b", "-n", "8", "-f", "fp8", "--bandwidth", "3350", "--json"))
        config = PRESETS["moe-358b"]
        made = ScalePlan(config, model_bytes(config, "fp8"), Wanted("fp8", 8, 80e9, 8192, 8))
        assert found["fits"] is made.fits
        assert [shard["total_bytes"] for shard in found["shards"]] == [shard.total_bytes for shard in made.shards]
        assert found["step_reads"][0]["tokens_per_s_bound"] == pytest.approx(made.reads(1).tokens_per_s(3350e9))

    def test_reads_a_published_config(self, tmp_path: Path) -> None:
        described = {
            "model_type": "qwen3_moe", "vocab_size": 264, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 128,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 8192, "tie_word_embeddings": True,
            "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True,
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(described))
        for path in (tmp_path, tmp_path / "config.json"):
            found = json.loads(run(str(path), "-f", "mixed", "--json"))
            assert found["weights"]["total"] == model_bytes(PRESETS["tiny-moe"], "int8").total

    def test_names_what_it_knows_when_asked_for_something_else(self) -> None:
        result = CliRunner().invoke(app, ["plan", "moe-7b"], env={"COLUMNS": "200"})
        assert result.exit_code == 1
        assert "did you mean 'moe-70b'?" in result.stderr
        lost = CliRunner().invoke(app, ["plan", "no/config.json"], env={"COLUMNS": "200"})
        assert "no/config.json: no such file or folder" in lost.stderr
        wrong = CliRunner().invoke(app, ["plan", "moe-70b", "-f", "int3"], env={"COLUMNS": "200"})
        assert wrong.exit_code == 2
        assert "allowed: float32, bf16, fp8, int8, int4, mixed" in wrong.stderr

    def test_says_that_a_dense_model_has_nothing_to_share(self) -> None:
        assert "no experts to share" in run("dense-4b", "-n", "2")
