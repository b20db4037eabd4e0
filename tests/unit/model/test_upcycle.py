"""A dense model upcycled to a mixture of experts: the same answers, in a layout that others read too."""

from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from zenray.errors import InvalidRequest, ModelFileError
from zenray.model import upcycle as upcycling
from zenray.model.checkpoint_writer import TensorSpec, write_checkpoint
from zenray.model.convert import open_source
from zenray.model.evaluate import sequence_logits
from zenray.model.load import load_unconverted
from zenray.model.upcycle import upcycle
from zenray.model.upcycle_router import balanced_router, copy_loads, kept_neurons, neuron_importance
from zenray.model.upcycle_settings import Upcycling

CONTROL = {"<|endoftext|>": 257, "<|fim_prefix|>": 258, "<|fim_suffix|>": 259, "<|fim_middle|>": 260, "<tool>": 261}
DENSE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", "Qwen2Moe", {}),
    "qwen2-tied-yarn": (
        "Qwen2",
        "Qwen2Moe",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "qwen3": ("Qwen3", "Qwen3Moe", {"head_dim": 32}),
    "mistral": ("Mistral", "Mixtral", {"sliding_window": None}),
}


def logits(path: Path) -> torch.Tensor:
    tokens = torch.randint(0, 256, (80,), generator=torch.Generator().manual_seed(5)).tolist()
    return sequence_logits(load_unconverted(path, "float32").decoder, tokens)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.fixture
def dense_hf(tmp_path: Path, write_tokenizer: Callable[..., None]) -> Callable[..., Any]:
    """`dense_hf(layout, **fields)`: a tiny dense checkpoint saved by transformers, and its folder."""
    transformers = pytest.importorskip("transformers")

    def make(layout: str, **fields: Any) -> tuple[Any, Path]:
        family, _, changes = DENSE[layout]
        config = getattr(transformers, f"{family}Config")(
            **{
                "vocab_size": 300,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "eos_token_id": 257,
                **changes,
                **fields,
            }
        )
        model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data = values * 1.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 1 + 0.2 * values
        folder = tmp_path / f"dense-{layout}"
        model.save_pretrained(folder)
        write_tokenizer(folder, CONTROL, [("a", "b"), ("ab", "c")])
        return model, folder

    return make


class TestExactness:
    counter = itertools.count()

    @given(
        top_k=st.sampled_from([1, 2, 3, 4, 6]),
        copies=st.integers(1, 5),
        hidden=st.sampled_from([48, 96]),
        seed=st.integers(0, 2**32),
    )
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_experts_that_hold_all_neurons_answer_as_the_dense_model(
        self, tmp_path: Path, write_model: Callable[..., Path], top_k: int, copies: int, hidden: int, seed: int
    ) -> None:
        folder = tmp_path / str(next(self.counter))
        folder.mkdir()
        dense = write_model(folder / "dense.gguf", hidden=hidden, seed=seed % 1000)
        upcycle(open_source(dense), folder / "moe", Upcycling(num_experts=top_k * copies, top_k=top_k, seed=seed))
        assert float((logits(folder / "moe") - logits(dense)).abs().max()) <= 1e-4

    @pytest.mark.parametrize("layout", DENSE)
    def test_transformers_reads_it_and_answers_the_same(
        self, layout: str, tmp_path: Path, dense_hf: Callable[..., Any]
    ) -> None:
        transformers = pytest.importorskip("transformers")
        dense, folder = dense_hf(layout)
        upcycle(open_source(folder), tmp_path / "moe", Upcycling(num_experts=8, top_k=2))
        moe, report = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "moe", dtype=torch.float64, experts_implementation="eager", output_loading_info=True
        )
        assert type(moe).__name__ == f"{DENSE[layout][1]}ForCausalLM"
        assert not any(report[problem] for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        tokens = torch.randint(0, 256, (80,), generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            expected = dense.double()(tokens[None]).logits[0]
            theirs = moe(tokens[None]).logits[0]
        assert float((theirs - expected).abs().max()) <= 1e-9
        assert float((logits(tmp_path / "moe") - theirs).abs().max()) <= 1e-4

        moe.float().save_pretrained(tmp_path / "again")
        (tmp_path / "again" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
        assert float((logits(tmp_path / "again") - theirs).abs().max()) <= 1e-4

    def test_a_narrow_dtype_is_the_only_rounding(self, tmp_path: Path, model_path: Path) -> None:
        for dtype, tolerance in (("float16", 0.02), ("bfloat16", 0.2)):
            upcycle(open_source(model_path), tmp_path / dtype, Upcycling(num_experts=4, dtype=dtype))
            assert float((logits(tmp_path / dtype) - logits(model_path)).abs().max()) <= tolerance
            stored = tensors(tmp_path / dtype)
            assert stored["model.layers.0.mlp.experts.0.up_proj.weight"].dtype == getattr(torch, dtype)
            assert stored["model.layers.0.mlp.gate.weight"].dtype == torch.float32

    def test_the_same_settings_give_the_same_bytes(self, tmp_path: Path, model_path: Path) -> None:
        recipe = Upcycling(num_experts=4, seed=3, noise=0.1)
        first, again, other = (
            upcycle(open_source(model_path), tmp_path / name, settings)
            for name, settings in (("a", recipe), ("b", recipe), ("c", recipe.model_copy(update={"seed": 4})))
        )
        assert first == again != other


class TestRouter:
    def test_group_members_of_a_copy_tie_and_copies_do_not(self, tmp_path: Path, model_path: Path) -> None:
        upcycle(open_source(model_path), tmp_path / "moe", Upcycling(num_experts=12, top_k=4))
        router = tensors(tmp_path / "moe")["model.layers.1.mlp.gate.weight"]
        assert torch.equal(router, router[::4].repeat_interleave(4, dim=0))
        assert len(router.unique(dim=0)) == 3

    @given(seed=st.integers(0, 2**32), copies=st.sampled_from([2, 4, 8]))
    @settings(max_examples=20, deadline=None)
    def test_inputs_that_look_alike_are_shared_out_all_the_same(self, seed: int, copies: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        # A common mean and a few directions that dwarf the rest, as the activations of real models have.
        scales_D = 10 ** torch.linspace(1.0, -1.5, 48)
        x_TD = 5 + torch.randn((2048, 48), generator=generator) * scales_D
        loads = copy_loads(x_TD, balanced_router(x_TD, copies, generator))
        assert sum(loads) == pytest.approx(1)
        assert max(loads) * copies <= 1.5
        assert min(loads) * copies >= 0.6

    def test_scores_are_decided(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x_TD = 1 + torch.randn((1024, 32), generator=generator)
        scores_TM = x_TD @ balanced_router(x_TD, 4, generator).T
        assert scores_TM.std(0).tolist() == pytest.approx([2.0] * 4, rel=1e-3)
        assert scores_TM.mean(0).tolist() == pytest.approx([0.0] * 4, abs=1e-3)


class TestDropping:
    def test_the_least_important_go_and_the_others_keep_their_order(self) -> None:
        hidden_TF = torch.tensor([[1.0, -4.0, 2.0, 0.1], [-1.0, 4.0, 2.0, 0.1]])
        down_DF = torch.tensor([[1.0, 0.1, 3.0, 5.0], [0.0, 0.0, 4.0, 0.0]])
        importance_F = neuron_importance(hidden_TF, down_DF)
        assert importance_F.tolist() == pytest.approx([1.0, 0.4, 10.0, 0.5])
        assert kept_neurons(importance_F, 3).tolist() == [0, 2, 3]

    def test_it_costs_less_than_dropping_at_random(
        self, tmp_path: Path, dense_hf: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, folder = dense_hf("qwen2")
        generator = torch.Generator().manual_seed(1)
        for layer in model.model.layers:  # neurons of unequal weight, as trained ones are
            layer.mlp.down_proj.weight.data *= torch.randn(96, generator=generator).exp()
        model.save_pretrained(folder)
        recipe, expected = Upcycling(num_experts=4, top_k=2, expert_dim=32), logits(folder)
        upcycle(open_source(folder), tmp_path / "chosen", recipe)

        def random_ones(importance_F: torch.Tensor, count: int) -> torch.Tensor:
            return torch.randperm(len(importance_F), generator=generator)[:count].sort().values

        monkeypatch.setattr(upcycling, "kept_neurons", random_ones)
        upcycle(open_source(folder), tmp_path / "random", recipe)
        errors = [float((logits(tmp_path / name) - expected).square().mean()) for name in ("chosen", "random")]
        assert errors[0] < 0.5 * errors[1]
        shares = [
            json.loads((tmp_path / name / "upcycling.json").read_text())["layers"][0]["dropped_importance"]
            for name in ("chosen", "random")
        ]
        assert 0 < shares[0] < shares[1]


class TestNoise:
    def test_the_first_copy_stays_exact_and_others_part_by_the_noise(self, tmp_path: Path, model_path: Path) -> None:
        upcycle(open_source(model_path), tmp_path / "plain", Upcycling(num_experts=6))
        upcycle(open_source(model_path), tmp_path / "noisy", Upcycling(num_experts=6, noise=0.05))
        plain, noisy = tensors(tmp_path / "plain"), tensors(tmp_path / "noisy")
        for expert, leaf in itertools.product(range(6), ("gate", "up", "down")):
            name = f"model.layers.1.mlp.experts.{expert}.{leaf}_proj.weight"
            assert torch.equal(plain[name], plain[name.replace(f"experts.{expert}", f"experts.{expert % 2}")])
            share = float((noisy[name] - plain[name]).square().mean().sqrt() / plain[name].square().mean().sqrt())
            assert share == pytest.approx(0.0 if expert < 2 else 0.05, rel=0.1)
        name = "model.layers.1.mlp.experts.{}.up_proj.weight"
        assert not torch.equal(noisy[name.format(2)], noisy[name.format(4)])


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"num_experts": 9, "top_k": 2}, "experts is 9; allowed: multiples of top_k, which is 2"),
            ({"num_experts": 4, "top_k": 2, "expert_dim": 65}, "expert_dim is 65; allowed: 1 to 64, the 128 neurons"),
            ({"num_experts": 300, "top_k": 150}, "expert_dim is 0; allowed: 1 to 0"),
        ],
    )
    def test_settings_that_do_not_fit(
        self, tmp_path: Path, model_path: Path, fields: dict[str, int], message: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=message):
            upcycle(open_source(model_path), tmp_path / "moe", Upcycling(**fields))
        assert not (tmp_path / "moe").exists()

    def test_a_mixture_of_experts_is_no_source(self, tmp_path: Path, model_path: Path) -> None:
        upcycle(open_source(model_path), tmp_path / "moe", Upcycling(num_experts=4))
        with pytest.raises(ModelFileError, match="mixture of experts already"):
            upcycle(open_source(tmp_path / "moe"), tmp_path / "again", Upcycling(num_experts=4))

    @pytest.mark.parametrize(
        ("value", "message"),
        [(7e4, r"o_proj.weight holds 7e\+04, but float16 ends at 65504"), (float("nan"), "layer 0 .* not finite")],
    )
    def test_a_value_that_the_dtype_cannot_hold(
        self, tmp_path: Path, dense_hf: Callable[..., Any], value: float, message: str
    ) -> None:
        model, folder = dense_hf("qwen2")
        model.model.layers[0].self_attn.o_proj.weight.data[3, 5] = value
        model.save_pretrained(folder)
        with pytest.raises(ModelFileError, match=message):
            upcycle(open_source(folder), tmp_path / "moe", Upcycling(num_experts=4, dtype="float16"))

    def test_too_little_disk_is_told_beforehand(
        self, tmp_path: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        with pytest.raises(ModelFileError, match=r"upcycling needs .* GB .* are free"):
            upcycle(open_source(model_path), tmp_path / "moe", Upcycling(num_experts=4))
        assert not (tmp_path / "moe").exists()

    def test_shared_experts_of_others_are_not_read_wrongly(self, tmp_path: Path, model_path: Path) -> None:
        upcycle(open_source(model_path), tmp_path / "moe", Upcycling(num_experts=4))
        path = tmp_path / "moe" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "shared_expert_intermediate_size": 128}))
        with pytest.raises(ModelFileError, match="shared_expert_intermediate_size is 128; supported: 0"):
            open_source(tmp_path / "moe")
        del config["shared_expert_intermediate_size"]
        path.write_text(json.dumps(config))
        with pytest.raises(ModelFileError, match="shared_expert_intermediate_size is 'missing'"):
            open_source(tmp_path / "moe")


class TestFiles:
    def test_the_tokenizer_reads_back_as_it_was(self, tmp_path: Path, dense_hf: Callable[..., Any]) -> None:
        transformers = pytest.importorskip("transformers")
        _, folder = dense_hf("qwen2")
        upcycle(open_source(folder), tmp_path / "moe", Upcycling(num_experts=4))
        before, after = open_source(folder).tokenizer(), open_source(tmp_path / "moe").tokenizer()
        assert after.to_json() == before.to_json()
        assert after.fim is not None and after.fim.middle == 260
        text = "abc <|fim_middle|> é\n\tdef f(): return 1"
        assert after.encode(text) == before.encode(text)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "moe")
        assert theirs("abc<|fim_middle|>abc").input_ids == [*before.encode("abc"), 260, *before.encode("abc")]

    def test_shards_are_bounded_and_their_hashes_those_of_the_files(self, tmp_path: Path) -> None:
        import hashlib

        specs = [TensorSpec(f"t{i}", torch.float32, (8, 4) if i != 2 else (0, 4)) for i in range(6)]
        values = {spec.name: torch.randn(spec.shape) for spec in specs}
        pieces = ((spec.name, rows) for spec in specs if spec.num_bytes for rows in values[spec.name].split(3))
        hashes = write_checkpoint(tmp_path, specs, pieces, max_shard_bytes=300)
        assert len(hashes) == 3
        assert {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in hashes} == hashes
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        read = {name: load_file(tmp_path / file)[name] for name, file in index["weight_map"].items()}
        assert read.keys() == values.keys()
        assert all(torch.equal(read[name], values[name]) for name in read)

    def test_one_layer_is_in_memory_at_a_time(
        self, tmp_path: Path, write_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_model(tmp_path / "deep.gguf", hidden=64, layers=8)
        alive: dict[int, int] = {}
        most = total = 0

        def watched(folder: Path, specs: Any, pieces: Any) -> dict[str, str]:
            nonlocal most, total
            for _, rows in pieces:
                storage = rows.untyped_storage()
                if storage.data_ptr() not in alive:
                    alive[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(rows, alive.pop, storage.data_ptr(), None)
                most = max(most, sum(alive.values()))
                total += rows.numel() * rows.element_size()
            return {}

        monkeypatch.setattr(upcycling, "write_checkpoint", watched)
        upcycle(open_source(path), tmp_path / "moe", Upcycling(num_experts=4))
        assert total > 8 * 4 * 3 * 64 * 64 * 4
        assert most < total / 6
