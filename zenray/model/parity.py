"""Our logits of a real model against those of transformers, in float32.

    python -m zenray.model.parity --model PATH [--text FILE …] [--tokens 512]

Exits with 1 when the most likely token agrees on fewer than 99.5% of positions. transformers takes a
minute to read a GGUF file; safetensors folders load at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from zenray.config import WeightFormat
from zenray.model.evaluate import chunked_logits, code_texts, token_windows
from zenray.model.load import load_unconverted

REQUIRED_AGREEMENT = 0.995


def transformers_model(path: Path) -> Any:
    """The same file through transformers, dequantised to float32."""
    import transformers

    if path.is_dir():
        return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    quantised = transformers.GgufConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=quantised, dtype=torch.float32
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    from rich.console import Console
    from rich.table import Table

    parser = argparse.ArgumentParser(prog="python -m zenray.model.parity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file or a safetensors folder")
    parser.add_argument("--text", nargs="+", type=Path, default=[], help="held-out files; default: standard library")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of each text")
    parser.add_argument("--format", default="float32", choices=get_args(WeightFormat), help="of our weights")
    options = parser.parse_args(arguments)

    console = Console()
    model = load_unconverted(options.model, options.format)
    with console.status("reading the model with transformers"):
        reference = transformers_model(options.model)
        reference.eval()
    texts = code_texts(options.text)
    table = Table("text", "positions", "top-1 equal", "largest difference", "largest logit", title=options.model.name)
    total = agreed = 0
    for name, window in zip(texts, token_windows(model.tokenizer, texts, options.tokens), strict=True):
        with torch.inference_mode():
            expected = reference(torch.tensor([window])).logits[0].float()
        got = torch.cat(list(chunked_logits(model.decoder, window)))
        equal = int((expected.argmax(-1) == got.argmax(-1)).sum())
        difference = float((expected - got).abs().max())
        table.add_row(
            name, str(len(window)), f"{equal / len(window):.2%}", f"{difference:.2g}", f"{expected.max():.1f}"
        )
        total += len(window)
        agreed += equal
    console.print(table)
    console.print(f"{agreed} of {total} positions agree: {agreed / total:.3%} (required: {REQUIRED_AGREEMENT:.1%})")
    return 0 if agreed / total >= REQUIRED_AGREEMENT else 1


if __name__ == "__main__":
    sys.exit(main())
