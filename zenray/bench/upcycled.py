"""An upcycled model against the dense one it was made of: the same answers, and a router that shares them out.

    python -m zenray.bench.upcycled [NAME …] [--tokens 512] [--document docs/experts.md]

Both run over the same held-out code in float32, one layer in memory at a time, so a model larger than the memory
can be compared too. `--document` writes the table into its block `upcycled`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from zenray.bench.document import replace_block
from zenray.model.catalog import Catalog
from zenray.model.convert import open_source
from zenray.model.evaluate import code_texts, token_windows
from zenray.model.formats import pack_matrix, read_vector
from zenray.model.layerwise import LayerwisePass
from zenray.model.moe import group_by_expert
from zenray.model.source import ModelSource, checked
from zenray.model.upcycle import RECORD_NAME
from zenray.ops.reference import ReferenceBackend

_NAMES = ("qwen2.5-coder-0.5b-moe", "qwen2.5-coder-1.5b-moe")
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Comparison:
    """An upcycled model beside its source.

    expert_loads[layer][expert]: share of the layer's pairs of a token and an expert.
    calibration_imbalance: busiest expert over the mean on the text the router was balanced on, in the worst layer.
    """

    name: str
    num_parameters: int
    size_bytes: int
    num_positions: int
    top1_agreement: float
    mean_kl: float
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
    assert recipe is not None, name
    dense, upcycled = open_source(catalog.resolve(recipe.model)), open_source(found.path)
    windows = token_windows(dense.tokenizer(), code_texts(), tokens_each)
    passes = LayerwisePass(dense, windows), LayerwisePass(upcycled, windows)
    loads = []
    for layer in range(dense.config.num_layers):
        progress(f"{name}: layer {layer + 1} of {dense.config.num_layers}")
        passes[0].add(_dense_layer(dense, layer, passes[0].feed_forward_input(layer)))
        y_TD, counts = _moe_layer(upcycled, layer, passes[1].feed_forward_input(layer))
        passes[1].add(y_TD)
        loads.append([count / sum(counts) for count in counts])
    progress(f"{name}: logits")
    agreement, mean_kl = _compare_logits(dense, upcycled, *(each.final_hidden() for each in passes))
    record = json.loads((found.path / RECORD_NAME).read_text(encoding="utf-8"))
    calibrated = [layer["copy_loads"] for layer in record["layers"]]
    return Comparison(
        name=name,
        num_parameters=upcycled.config.num_parameters,
        size_bytes=found.size_bytes,
        num_positions=sum(map(len, windows)),
        top1_agreement=agreement,
        mean_kl=mean_kl,
        expert_loads=loads,
        calibration_imbalance=max(max(each) * len(each) for each in calibrated),
    )


@torch.inference_mode()
def _dense_layer(source: ModelSource, layer: int, x_TD: torch.Tensor) -> torch.Tensor:
    gate, up, down = (checked(source, f"layers.{layer}.{leaf}") for leaf in ("gate", "up", "down"))
    hidden_TF = F.silu(x_TD @ gate.read(0, gate.shape[0]).T) * (x_TD @ up.read(0, up.shape[0]).T)
    return hidden_TF @ down.read(0, down.shape[0]).T


@torch.inference_mode()
def _moe_layer(source: ModelSource, layer: int, x_TD: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The output of a layer's experts, and the tokens of each."""
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
    counts = [0] * config.num_experts
    for expert, count in zip(grouped.expert_ids, grouped.counts, strict=True):
        counts[expert] = count
    return ops.combine(torch.cat(outputs), grouped.pairs_TK, weights_TK), counts


@torch.inference_mode()
def _compare_logits(
    dense: ModelSource, upcycled: ModelSource, expected_TD: torch.Tensor, got_TD: torch.Tensor
) -> tuple[float, float]:
    """(share of positions with the same most likely token, mean KL in nats)."""
    heads = [pack_matrix(source, "head", "float32") for source in (dense, upcycled)]
    ops, agreed, divergence = ReferenceBackend(torch.float32), 0, 0.0
    for start in range(0, len(expected_TD), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        expected, got = (ops.linear(x[rows], head) for x, head in zip((expected_TD, got_TD), heads, strict=True))
        agreed += int((expected.argmax(-1) == got.argmax(-1)).sum())
        p, q = expected.log_softmax(-1), got.log_softmax(-1)
        divergence += float((p.exp() * (p - q)).sum())
    return agreed / len(expected_TD), divergence / len(expected_TD)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """One row a model."""
    columns = (
        "model",
        "parameters",
        "file",
        "positions",
        "top-1 as the dense model",
        "mean KL, nats",
        "busiest expert, worst layer",
        "median layer",
        "worst layer on the calibration text",
    )
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for each in comparisons:
        worst, median = max(each.imbalances), sorted(each.imbalances)[len(each.imbalances) // 2]
        cells = (
            each.name,
            f"{each.num_parameters / 1e9:.2f} B",
            f"{each.size_bytes / 1e9:.1f} GB",
            f"{each.num_positions:,}",
            f"{each.top1_agreement:.2%}",
            f"{each.mean_kl:.1e}",
            f"{worst:.2f} × mean",
            f"{median:.2f} ×",
            f"{each.calibration_imbalance:.2f} ×",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
        comparisons = [compare(name, options.tokens, status.update) for name in options.names]
    table = markdown(comparisons)
    print(table)
    if options.document is not None:
        text = options.document.read_text(encoding="utf-8")
        options.document.write_text(replace_block(text, "upcycled", table), encoding="utf-8")


if __name__ == "__main__":
    main()
