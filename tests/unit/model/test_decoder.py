"""The decoder's own promises, in float64 where equal means equal: cached, chunked and batched runs agree."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zenray.errors import ConfigError
from zenray.model.decoder import Decoder
from zenray.model.evaluate import BLOCK_SIZE, sequence_logits, step_batch
from zenray.model.load import LoadedModel, load_model, load_preset
from zenray.model.moe import LocalExperts
from zenray.model.weights import MoeWeights
from zenray.ops.reference import ReferenceBackend

EXACT = 1e-10
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "dense": ("tiny", {}),
    "moe": ("tiny-moe", {}),
    "full-qk-norm": ("tiny", {"qk_norm": "full", "tie_word_embeddings": True}),
    "all-biases": ("tiny", {"attention_out_bias": True, "mlp_bias": True}),
    "moe-some-dense": ("tiny-moe", {"num_layers": 3, "dense_layers": (1,), "intermediate_size": 96}),
    "moe-raw-weights": ("tiny-moe", {"norm_topk_prob": False, "num_experts_per_token": 3}),
}


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    preset, overrides = VARIANTS[request.param]
    return load_preset(preset, overrides, seed=3, dtype=torch.float64)


def random_ids(count: int, seed: int = 0) -> list[int]:
    ids: list[int] = torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return ids


def test_decoding_token_by_token_equals_the_full_forward(model: LoadedModel) -> None:
    decoder, ids = model.decoder, random_ids(70)
    caches = decoder.new_caches(-(-len(ids) // BLOCK_SIZE), BLOCK_SIZE)
    steps = [decoder.forward(step_batch([([i], at)], max_tokens=len(ids)), caches) for at, i in enumerate(ids)]
    assert float((torch.cat(steps) - sequence_logits(decoder, ids)).abs().max()) < EXACT


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(1, 69), unique=True, max_size=6))
def test_any_chunking_equals_the_whole(cuts: list[int]) -> None:
    for preset in ("tiny", "tiny-moe"):
        decoder, ids = load_preset(preset, dtype=torch.float64).decoder, random_ids(70)
        caches = decoder.new_caches(5, BLOCK_SIZE)
        edges = [0, *sorted(cuts), len(ids)]
        parts = [
            decoder.forward(step_batch([(ids[a:b], a)], max_tokens=70), caches) for a, b in itertools.pairwise(edges)
        ]
        assert float((torch.cat(parts) - sequence_logits(decoder, ids)).abs().max()) < EXACT


def test_sequences_of_one_batch_do_not_see_each_other(model: LoadedModel) -> None:
    decoder = model.decoder
    texts = [random_ids(length, seed=length) for length in (33, 1, 17)]
    caches = decoder.new_caches(3 * 3, BLOCK_SIZE)
    together = decoder.forward(step_batch([(text, 0) for text in texts], max_tokens=48), caches)
    alone = torch.cat([sequence_logits(decoder, text) for text in texts])
    assert float((together - alone).abs().max()) < EXACT


def test_only_the_rows_asked_for_are_computed(model: LoadedModel) -> None:
    decoder, ids = model.decoder, random_ids(20)
    whole = sequence_logits(decoder, ids)
    for rows in ([], [19], [0, 7, 19]):
        caches = decoder.new_caches(2, BLOCK_SIZE)
        got = decoder.forward(step_batch([(ids, 0)], max_tokens=32, rows=rows), caches)
        assert got.shape == (len(rows), decoder.config.vocab_size)
        assert got.dtype == torch.float64
        assert torch.allclose(got, whole[rows], rtol=0, atol=EXACT)
        follow_up = decoder.forward(step_batch([([5], 20)], max_tokens=32), caches)
        assert float((follow_up - sequence_logits(decoder, [*ids, 5])[-1]).abs().max()) < EXACT


def test_the_rope_table_grows_with_the_context() -> None:
    decoder = load_preset("tiny", {"max_position_embeddings": 32_768}, dtype=torch.float64).decoder
    caches = decoder.new_caches(1, BLOCK_SIZE)
    far = step_batch([([1], 0)], max_tokens=16)
    shifted = [10_000]
    moved = type(far)(
        **{name: getattr(far, name) for name in far.__slots__}
        | {"positions_T": torch.tensor(shifted), "context_lens_list": [1]}
    )
    decoder._grow_rope(10_001)
    # Attention sees only differences of positions: alone in its context a token is the same anywhere.
    near = decoder.forward(far, caches)
    assert float((decoder.forward(moved, caches) - near).abs().max()) < EXACT


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), num_tokens=st.integers(1, 9), chosen=st.integers(1, 8), normalise=st.booleans())
def test_moe_equals_the_dense_sum_over_experts(seed: int, num_tokens: int, chosen: int, normalise: bool) -> None:
    """Every expert on every token, weighted by the router's softmax where chosen and zero elsewhere."""
    overrides = {"num_experts_per_token": chosen, "norm_topk_prob": normalise}
    decoder = load_preset("tiny-moe", overrides, seed=1, dtype=torch.float64).decoder
    moe = decoder.weights.layers[0].feed_forward
    assert isinstance(moe, MoeWeights)
    x_TD = torch.randn((num_tokens, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ids_TK, weights_TK = ReferenceBackend(x_TD.dtype).route(x_TD, moe.router_ED, chosen, normalise)
    if normalise:
        assert torch.allclose(weights_TK.sum(dim=1), torch.ones(num_tokens, dtype=torch.float64))
    dense_TE = torch.zeros((num_tokens, 8), dtype=torch.float64).scatter(1, ids_TK, weights_TK)
    expected = torch.zeros_like(x_TD)
    for index, expert in enumerate(moe.experts):
        gate, up = (x_TD @ expert.gate_up.data.t()).chunk(2, dim=1)
        expected += dense_TE[:, index : index + 1] * ((torch.nn.functional.silu(gate) * up) @ expert.down.data.t())
    got = decoder.experts(0, x_TD, ids_TK, weights_TK)
    assert float((got - expected).abs().max()) < EXACT


def test_the_router_decides_in_float32_even_in_a_bf16_model() -> None:
    model = load_preset("tiny-moe", dtype=torch.bfloat16)
    moe = model.decoder.weights.layers[0].feed_forward
    assert isinstance(moe, MoeWeights)
    assert moe.router_ED.dtype == torch.float32


def test_experts_can_live_elsewhere() -> None:
    """A decoder given another expert backend asks it, layer by layer, and changes nothing else."""
    model = load_preset("tiny-moe", dtype=torch.float64)
    asked: list[int] = []

    class Elsewhere(LocalExperts):
        def __call__(self, layer: int, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            asked.append(layer)
            return model.decoder.experts(layer, x, ids, weights)

    remote = Decoder(model.config, model.decoder.weights, model.decoder.ops, experts=Elsewhere([], model.decoder.ops))
    ids = random_ids(9)
    assert torch.equal(sequence_logits(remote, ids), sequence_logits(model.decoder, ids))
    assert asked == [0, 1]


@pytest.mark.parametrize("weight_format", ["float32", "bf16", "int8", "int4", "mixed"])
def test_presets_run_in_every_format(weight_format: str) -> None:
    loaded = load_model("preset:tiny", weight_format=weight_format, preset_overrides={"num_layers": 3})  # type: ignore[arg-type]
    exact = load_preset("tiny", {"num_layers": 3}, dtype=torch.float64)
    ids = random_ids(24)
    logits, expected = sequence_logits(loaded.decoder, ids), sequence_logits(exact.decoder, ids)
    assert logits.dtype == torch.float32
    assert loaded.decoder.dtype == (torch.float32 if weight_format == "float32" else torch.bfloat16)
    allowed = {"float32": 1e-4, "bf16": 0.2, "int8": 0.3, "mixed": 0.3, "int4": 1.0}[weight_format]
    assert float((logits.double() - expected).abs().mean()) < allowed


def test_seeds_and_sizes_of_presets() -> None:
    first, again, other = (load_preset("tiny", seed=seed, dtype=torch.float32) for seed in (1, 1, 2))
    assert torch.equal(first.decoder.weights.head.data, again.decoder.weights.head.data)
    assert not torch.equal(first.decoder.weights.head.data, other.decoder.weights.head.data)
    deeper = load_preset("tiny", {"num_layers": 4}, seed=1, dtype=torch.float32)
    assert torch.equal(first.decoder.weights.layers[1].qkv.data, deeper.decoder.weights.layers[1].qkv.data), (
        "one tensor's values depend on its name and the seed alone"
    )
    with pytest.raises(ConfigError, match="num_layer'"):
        load_preset("tiny", {"num_layer": 2})
    with pytest.raises(ConfigError, match="vocab_size is 100"):
        load_preset("tiny", {"vocab_size": 100})


def test_weight_bytes_of_a_token_count_what_is_read() -> None:
    dense = load_preset("tiny", dtype=torch.float32)
    config = dense.config
    embedding = config.vocab_size * config.hidden_size * 4
    expected = 4 * (config.num_parameters - (2 * config.num_layers + 1) * 64 - config.num_layers * 128) - embedding
    assert dense.decoder.weight_bytes_per_token == expected + config.hidden_size * 4
    moe = load_preset("tiny-moe", dtype=torch.float32)
    assert moe.decoder.weight_bytes_per_token < moe.decoder.weights.num_bytes / 2


def test_weights_move_between_devices_with_their_sharing() -> None:
    weights = load_preset("tiny-moe", dtype=torch.float32).decoder.weights
    moved = weights.to(torch.device("meta"))
    assert moved.head is moved.embed
    assert moved.layers[1].qkv.data.is_meta
    assert moved.layers[1].qkv.data.shape == weights.layers[1].qkv.data.shape
    assert moved.dtype == torch.float32
