"""What a weight format costs: logits against bf16 on held-out code, and each tensor against its source.

    python -m zenray.model.quality --model PATH [--formats int8 int4 mixed] [--override head=int8] [--text FILE …]

KL is KL(bf16 || format) in nats per position, teacher-forced; agreement is the share of positions whose
most likely token is the same; perplexities are of the text itself.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from zenray.config import WeightFormat
from zenray.model.convert import Progress, open_source
from zenray.model.evaluate import chunked_logits, code_texts, token_windows
from zenray.model.formats import pack_matrix
from zenray.model.load import LoadedModel, load_model, load_unconverted
from zenray.model.weights import matrix_names
from zenray.ops import quantisation_error, unpack

REFERENCE: WeightFormat = "bf16"


@dataclass(frozen=True, slots=True)
class TensorError:
    """One packed matrix against the file: root-mean-square error over root-mean-square of the weights."""

    name: str
    format: str
    num_bytes: int
    relative_rms: float


@dataclass(frozen=True, slots=True)
class QualityReport:
    """A weight format against bf16. `tensors` is empty unless asked for."""

    model: str
    weight_format: str
    num_positions: int
    mean_kl: float
    top1_agreement: float
    perplexity: float
    reference_perplexity: float
    weight_bytes: int
    bytes_per_token: int
    tensors: tuple[TensorError, ...] = ()

    @property
    def perplexity_ratio(self) -> float:
        return self.perplexity / self.reference_perplexity


def compare(
    path: Path,
    weight_format: WeightFormat,
    texts: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    *,
    tokens_each: int = 512,
    with_tensors: bool = True,
    overrides: Mapping[str, WeightFormat] | None = None,
) -> QualityReport:
    """Measures `weight_format` against bf16 on the first `tokens_each` tokens of each text.

    texts: by name; None takes fixed files of the Python standard library.
    overrides: another format for some matrices, as `zenray.model.formats.SourceProvider` takes it.

    Raises:
        ModelFileError: as `load_model`.
    """
    reference = load_model(path, weight_format=REFERENCE, progress=progress)
    if overrides:
        model = load_unconverted(path, weight_format, overrides)
    else:
        model = load_model(path, weight_format=weight_format, progress=progress)
    windows = token_windows(model.tokenizer, code_texts() if texts is None else texts, tokens_each)
    tensors = tensor_errors(path, weight_format, progress) if with_tensors else ()
    return _compare_logits(reference, model, windows, tensors, progress)


def _compare_logits(
    reference: LoadedModel,
    model: LoadedModel,
    windows: Sequence[Sequence[int]],
    tensors: tuple[TensorError, ...],
    progress: Progress | None,
) -> QualityReport:
    total = sum(len(window) for window in windows)
    done = agreed = predicted = 0
    divergence = loss = reference_loss = 0.0
    for window in windows:
        targets = torch.tensor([*window[1:], 0])
        at = 0
        for expected, got in zip(
            chunked_logits(reference.decoder, window), chunked_logits(model.decoder, window), strict=True
        ):
            p, q = expected.log_softmax(-1), got.log_softmax(-1)
            divergence += float((p.exp() * (p - q)).sum())
            agreed += int((expected.argmax(-1) == got.argmax(-1)).sum())
            # The last position of a window predicts a token that is not there.
            rows = torch.arange(min(len(p), len(window) - 1 - at))
            chosen = targets[at : at + len(rows)]
            reference_loss -= float(p[rows, chosen].sum())
            loss -= float(q[rows, chosen].sum())
            predicted += len(rows)
            at += len(p)
            done += len(p)
            if progress is not None:
                progress(done, total, f"comparing {model.info.weight_format} with {REFERENCE}")
    return QualityReport(
        model=model.info.name,
        weight_format=model.info.weight_format,
        num_positions=total,
        mean_kl=divergence / total,
        top1_agreement=agreed / total,
        perplexity=math.exp(loss / predicted),
        reference_perplexity=math.exp(reference_loss / predicted),
        weight_bytes=model.info.weight_bytes,
        bytes_per_token=model.decoder.weight_bytes_per_token,
        tensors=tensors,
    )


def tensor_errors(path: Path, weight_format: WeightFormat, progress: Progress | None = None) -> tuple[TensorError, ...]:
    """Every matrix packed again and read back, against the numbers of the file; worst first."""
    source = open_source(path)
    names = list(matrix_names(source.config))
    errors = []
    for index, name in enumerate(names):
        if progress is not None:
            progress(index, len(names), f"packing tensors to {weight_format}")
        packed = pack_matrix(source, name, weight_format)
        exact = unpack(pack_matrix(source, name, "float32"))
        error = quantisation_error(exact, packed)
        errors.append(TensorError(name, packed.format, packed.num_bytes, error.relative_rms))
    return tuple(sorted(errors, key=lambda error: -error.relative_rms))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m zenray.model.quality", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file or a safetensors folder")
    parser.add_argument("--formats", nargs="+", default=["int8", "mixed", "int4"], choices=get_args(WeightFormat))
    parser.add_argument("--text", nargs="+", type=Path, default=[], help="held-out files; default: standard library")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of each text")
    parser.add_argument("--override", nargs="+", default=[], metavar="MATRIX=FORMAT", help="such as head=int8")
    parser.add_argument("--tensors", type=int, default=0, help="also list this many of the worst tensors")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args(arguments)
    overrides = dict(override.split("=", 1) for override in options.override)

    reports = []
    with Bar(transient=True, disable=options.markdown) as bar:
        task = bar.add_task("")

        def show(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        for weight_format in options.formats:
            texts = code_texts(options.text)
            reports.append(
                compare(
                    options.model,
                    weight_format,
                    texts,
                    show,
                    tokens_each=options.tokens,
                    with_tensors=options.tensors > 0,
                    overrides=overrides,
                )
            )
    columns = ("format", "weights", "read per token", "positions", "mean KL", "top-1", "perplexity", "ratio")
    rows = [
        (
            report.weight_format,
            f"{report.weight_bytes / 1e6:.0f} MB",
            f"{report.bytes_per_token / 1e6:.0f} MB",
            str(report.num_positions),
            f"{report.mean_kl:.5f}",
            f"{report.top1_agreement:.2%}",
            f"{report.perplexity:.4f}",
            f"{report.perplexity_ratio:.4f}",
        )
        for report in reports
    ]
    if options.markdown:
        print("\n".join("| " + " | ".join(row) + " |" for row in (columns, ("---",) * len(columns), *rows)))
    else:
        table = Table(*columns, title=f"{options.model.name} against {REFERENCE}")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    for report in reports:
        for error in report.tensors[: options.tensors]:
            print(f"{report.weight_format}  {error.format}  {error.relative_rms:.4f}  {error.name}")


if __name__ == "__main__":
    main()
