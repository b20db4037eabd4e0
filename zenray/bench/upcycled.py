"""An upcycled model against the dense one it was made of: the same answers, and a router that shares them out.

    python -m zenray.bench.upcycled [NAME …] [--tokens 512] [--document docs/models.md]

Both run over the same held-out code in float32. The upcycled one has one layer in memory at a time, for whole it may
be larger than the memory. `--document` writes each table into the block of the model's name.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from zenray.bench.document import replace_block
from zenray.bench.prompts import build_prompts
from zenray.errors import ModelFileError
from zenray.model.catalog import Catalog
from zenray.model.convert import open_source
from zenray.model.decoder import Decoder
from zenray.model.evaluate import BLOCK_SIZE, code_texts, step_batch, token_windows
from zenray.model.formats import pack_matrix, read_vector
from zenray.model.layerwise import LayerwisePass
from zenray.model.load import load_unconverted
from zenray.model.moe import group_by_expert
from zenray.model.source import ModelSource, checked
from zenray.model.upcycle import RECORD_NAME
from zenray.ops.reference import ReferenceBackend

_NAMES = ("qwen2.5-coder-0.5b-moe", "qwen2.5-coder-1.5b-moe")
_ROWS_AT_ONCE = 256
_NUM_PROMPTS = 12
_GREEDY_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Comparison:
    """An upcycled model beside its source.

    num_equal_answers: of the prompts answered greedily, how many the upcycled model answers token for token alike.
    expert_loads[layer][expert]: share of the layer's pairs of a token and an expert.
    calibration_imbalance: busiest expert over the mean on the text the router was balanced on, in the worst layer.
    """

    name: str
    num_parameters: int
    size_bytes: int
    num_positions: int
    top1_agreement: float
    mean_kl: float
    num_prompts: int
    num_equal_answers: int
    expert_loads: list[list[float]]
    calibration_imbalance: float

    @property
    def imbalances(self) -> list[float]:
        """Busiest expert over the mean, per layer."""
        return [max(loads) * len(loads) for loads in self.expert_loads]


def compare(name: str, tokens_each: int = 512, progress: Callable[[str], None] = lambda what: None) -> Comparison:
    """Measures one model of a recipe of the catalog on the standard library's code.

    Raises:
        NotFound, ModelFileError: as `Catalog.locate`, also for a model that is not upcycled.
    """
    catalog = Catalog.load()
    found, recipe = catalog.locate(name), catalog.entry(name).recipe
    if recipe is None:
        raise ModelFileError(f"{name} was not upcycled; models that were: zenray models upcycle, zenray models list")
    dense, upcycled = open_source(catalog.resolve(recipe.model)), open_source(found.path)
    progress(f"{name}: greedy answers of {recipe.model}")
    texts = [prompt.text for prompt in build_prompts(per_kind=_NUM_PROMPTS).of("short")]
    prompts = [dense.tokenizer().encode(text) for text in texts]
    answers = _greedy(load_unconverted(dense.path, "float32").decoder, prompts)
    windows = token_windows(dense.tokenizer(), code_texts(), tokens_each)
    num_positions = sum(map(len, windows))
    windows += [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    passes = LayerwisePass(dense, windows), LayerwisePass(upcycled, windows)
    loads = []
    for layer in range(dense.config.num_layers):
        progress(f"{name}: layer {layer + 1} of {dense.config.num_layers}")
        passes[0].add(_dense_layer(dense, layer, passes[0].feed_forward_input(layer)))
        y_TD, experts_TK = _moe_layer(upcycled, layer, passes[1].feed_forward_input(layer))
        passes[1].add(y_TD)
        counts = torch.bincount(experts_TK[:num_positions].reshape(-1), minlength=upcycled.config.num_experts)
        loads.append((counts / counts.sum()).tolist())
    progress(f"{name}: logits")
    expected_TD, got_TD = (each.final_hidden() for each in passes)
    same_T, mean_kl = _compare_logits(dense, upcycled, expected_TD, got_TD, num_positions)
    starts = itertools.accumulate(map(len, windows[:-1]), initial=0)
    # The row of a token chooses the next one; an answer's last token chooses nothing.
    answered = [
        bool(same_T[start + len(window) - _GREEDY_TOKENS - 1 : start + len(window) - 1].all())
        for start, window in zip(starts, windows, strict=True)
    ][-len(prompts) :]
    record = json.loads((found.path / RECORD_NAME).read_text(encoding="utf-8"))
    calibrated = [layer["copy_loads"] for layer in record["layers"]]
    return Comparison(
        name=name,
        num_parameters=upcycled.config.num_parameters,
        size_bytes=found.size_bytes,
        num_positions=num_positions,
        top1_agreement=float(same_T[:num_positions].float().mean()),
        mean_kl=mean_kl,
        num_prompts=len(prompts),
        num_equal_answers=sum(answered),
        expert_loads=loads,
        calibration_imbalance=max(max(each) * len(each) for each in calibrated),
    )


def _greedy(decoder: Decoder, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The most likely continuation of each prompt, `_GREEDY_TOKENS` long, all of them at once."""
    longest = max(map(len, prompts)) + _GREEDY_TOKENS
    caches = decoder.new_caches(len(prompts) * -(-longest // BLOCK_SIZE), BLOCK_SIZE)
    pending, done = [list(prompt) for prompt in prompts], [0] * len(prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    for _ in range(_GREEDY_TOKENS):
        last_rows = [end - 1 for end in itertools.accumulate(map(len, pending))]
        step = step_batch(list(zip(pending, done, strict=True)), max_tokens=longest, rows=last_rows)
        chosen = decoder.forward(step, caches).argmax(-1).tolist()
        done = [cached + len(new) for cached, new in zip(done, pending, strict=True)]
        pending = [[token] for token in chosen]
        answers = [[*answer, token] for answer, token in zip(answers, chosen, strict=True)]
    return answers


@torch.inference_mode()
def _dense_layer(source: ModelSource, layer: int, x_TD: torch.Tensor) -> torch.Tensor:
    gate, up, down = (checked(source, f"layers.{layer}.{leaf}") for leaf in ("gate", "up", "down"))
    hidden_TF = F.silu(x_TD @ gate.read(0, gate.shape[0]).T) * (x_TD @ up.read(0, up.shape[0]).T)
    return hidden_TF @ down.read(0, down.shape[0]).T


@torch.inference_mode()
def _moe_layer(source: ModelSource, layer: int, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a layer's experts, and which ones each token chose [T, K]."""
    config, ops = source.config, ReferenceBackend(torch.float32)
    router_ED = read_vector(source, f"layers.{layer}.router", torch.float32)
    ids_TK, weights_TK = ops.route(x_TD, router_ED, config.num_experts_per_token, config.norm_topk_prob)
    grouped = group_by_expert(ids_TK)
    outputs, at = [], 0
    for expert, count in zip(grouped.expert_ids, grouped.counts, strict=True):
        prefix = f"layers.{layer}.experts.{expert}."
        weights = pack_matrix(source, prefix + "gate_up", "float32"), pack_matrix(source, prefix + "down", "float32")
        outputs.append(ops.swiglu_rows(x_TD, [weights], [count], grouped.rows_P[at : at + count]))
        at += count
    return ops.combine(torch.cat(outputs), grouped.pairs_TK, weights_TK), ids_TK


@torch.inference_mode()
def _compare_logits(
    dense: ModelSource, upcycled: ModelSource, expected_TD: torch.Tensor, got_TD: torch.Tensor, num_positions: int
) -> tuple[torch.Tensor, float]:
    """(whether the most likely token is the same [T], mean KL in nats of the first `num_positions`)."""
    heads = [pack_matrix(source, "head", "float32") for source in (dense, upcycled)]
    ops, same, divergence = ReferenceBackend(torch.float32), [], []
    for start in range(0, len(expected_TD), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        expected, got = (ops.linear(x[rows], head) for x, head in zip((expected_TD, got_TD), heads, strict=True))
        same.append(expected.argmax(-1) == got.argmax(-1))
        p, q = expected.log_softmax(-1), got.log_softmax(-1)
        divergence.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(same), float(torch.cat(divergence)[:num_positions].double().mean())


def markdown(found: Comparison) -> str:
    """A comparison as a table of two columns."""
    worst, median = max(found.imbalances), sorted(found.imbalances)[len(found.imbalances) // 2]
    rows = {
        found.name: "",
        "parameters": f"{found.num_parameters / 1e9:.2f} B",
        "file": f"{found.size_bytes / 1e9:.1f} GB",
        "most likely token as the dense model's": f"{found.top1_agreement:.2%} of {found.num_positions:,} positions",
        "mean KL": f"{found.mean_kl:.1e} nats",
        "greedy answers equal": f"{found.num_equal_answers} of {found.num_prompts}",
        "busiest expert, held-out text": f"{median:.2f} × mean in the median layer, {worst:.2f} × in the worst",
        "busiest copy, calibration text": f"{found.calibration_imbalance:.2f} × mean in the worst layer",
    }
    lines = [f"| {what} | {value} |" for what, value in rows.items()]
    return "\n".join([lines[0], "|---|---|", *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    from rich.console import Console

    parser = argparse.ArgumentParser(
        prog="python -m zenray.bench.upcycled", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", default=_NAMES, help="upcycled models of the catalog")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of each of the eight texts")
    parser.add_argument("--document", type=Path, help="write the table into this document")
    options = parser.parse_args(arguments)
    with Console(stderr=True).status("") as status:
        for name in options.names:
            table = markdown(compare(name, options.tokens, status.update))
            print(f"{table}\n", flush=True)
            if options.document is not None:
                text = options.document.read_text(encoding="utf-8")
                options.document.write_text(replace_block(text, name, table), encoding="utf-8")


if __name__ == "__main__":
    main()
