#!/usr/bin/env python
"""Write a GGUF file out as a Hugging Face folder with bf16 safetensors, so that peers can load the same weights.

    python benchmarks/export_hf.py MODEL.gguf FOLDER

Run it with the Python of an environment that has transformers, gguf and accelerate; it needs nothing
of zenray. There is no unquantised original of these models without a hub, so "bf16" means the
dequantised file, here and in zenray's own bf16 format.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def export(source: Path, folder: Path) -> None:
    """Dequantises `source` into `folder`: config, tokenizer and one safetensors file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="100GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a GGUF file")
    parser.add_argument("folder", type=Path, help="where the Hugging Face folder goes; made when missing")
    parser.add_argument("--force", action="store_true", help="export again over an existing folder")
    args = parser.parse_args()
    done = args.folder / "model.safetensors"
    if done.exists() and not args.force:
        print(f"{done} exists; --force exports again")
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    export(args.source, args.folder)
    print(f"wrote {args.folder} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
