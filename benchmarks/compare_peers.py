#!/usr/bin/env python
"""Ours and the peers over the same prompts, on one machine in one sitting, with the ratios.

    python benchmarks/compare_peers.py --gguf-05b FILE --gguf-15b FILE --hf-05b FOLDER \
        --llama-python PY --vllm-python PY --transformers-python PY [--json OUT] [--doc docs/benchmarks.md]

Run it with zenray's own Python. Every contestant is a process of its own (benchmarks/peer_driver.py)
that stays loaded through the rounds of its group and is stopped by signal while another one is timed;
the order turns with every round. A piece of work is timed when the machine is quiet, and left out of
the medians when other processes took part of the cores meanwhile. Peers whose Python is not given are
left out. benchmarks/export_hf.py makes the folder for vLLM and transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comparisons import UNITS, compare
from contestant import Contestant
from line_up import make_contestants

from zenray.bench.bandwidth import measure_bandwidth
from zenray.bench.document import PEERS_SCHEMA, merge_peer_reports, peer_tables, write_blocks
from zenray.bench.machine import CpuClock, describe_machine
from zenray.bench.prompts import PromptSet, PromptSizes, build_prompts, longest_prefix
from zenray.bench.speculative_prompts import SPECULATIVE_KINDS, SpeculativePrompt, speculative_prompts
from zenray.bench.speculative_report import MIN_TOKENS
from zenray.bench.statistics import Distribution, steady_decode_rate
from zenray.model.tokenizer import Tokenizer

QUIET_SHARE = 0.05
BATCH = 8


@dataclass(frozen=True)
class Work:
    """The texts of one round, the same for every contestant and new to every cache."""

    short: list[str]
    batch: list[str]
    prefill: str
    long: str
    appended: str
    speculative: dict[str, SpeculativePrompt]
    """One prompt of each kind on which drafting differs, as token ids."""


def make_work(prompts: PromptSet, tokenizer: Tokenizer, rounds: int) -> list[Work]:
    """Prompts of each round, under first lines of their own; prefills cut to 512 tokens again behind that."""

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text))

    speculative = {kind: speculative_prompts(tokenizer, kind, rounds) for kind in SPECULATIVE_KINDS}
    short, prefill, pairs = prompts.of("short"), prompts.of("prefill"), list(prompts.pairs())
    work = []
    for number in range(rounds):
        first = number * 100
        long, appended = pairs[number % len(pairs)]
        work.append(
            Work(
                short=[short[(2 * number + i) % len(short)].variant(first + i).text for i in range(2)],
                batch=[short[i % len(short)].variant(first + 10 + i).text for i in range(BATCH)],
                prefill=longest_prefix(
                    prefill[number % len(prefill)].variant(first + 30).text, PromptSizes().prefill, count_tokens
                ),
                long=long.variant(first + 40).text,
                appended=appended.variant(first + 40).text,
                speculative={kind: found[number] for kind, found in speculative.items()},
            )
        )
    return work


def measure(contestant: Contestant, name: str, work: Work, max_tokens: int) -> dict[str, float]:
    """Runs one measure of one round; sample values by name."""
    if name == "decode":
        records = [contestant.ask([prompt], max_tokens)[0] for prompt in work.short]
        rates = [rate for record in records if (rate := steady_decode_rate([record]))]
        firsts = [record.ttft_ms for record in records if record.ttft_ms is not None]
        return {"decode": sum(rates) / len(rates), "ttft": sum(firsts) / len(firsts)} if rates else {}
    if name == "batch":
        rate = steady_decode_rate(contestant.ask(work.batch, max_tokens))
        return {"batch": rate} if rate else {}
    if name == "prefill":
        record = contestant.ask([work.prefill], 1)[0]
        assert record.ttft_ms and record.prompt_tokens
        return {"prefill": record.prompt_tokens * 1e3 / record.ttft_ms}
    if name in SPECULATIVE_KINDS:
        chosen = work.speculative[name]
        (record,) = contestant.ask([list(chosen.token_ids)], chosen.max_tokens, ignore_eos=False)
        rate = steady_decode_rate([record]) if record.num_tokens > MIN_TOKENS else None
        return {name: rate} if rate else {}
    assert name == "repeat", name
    cold = contestant.ask([work.long], 1)[0].ttft_ms
    warm = contestant.ask([work.appended], 1, cold=False)[0].ttft_ms
    return {"repeat_cold": cold, "repeat_warm": warm} if cold and warm else {}


def run_group(contestants: list[Contestant], work: list[Work], options: argparse.Namespace, patience: Patience) -> None:
    """Loads the contestants of one group, warms them up and runs every round in turning order."""
    with ExitStack() as stack:
        for contestant in contestants:
            contestant.start(stack)
            for name in contestant.measures:
                measure(contestant, name, work[-1], 16)
            contestant.texts.clear()
        for number, item in enumerate(work[:-1]):
            order = contestants[number % len(contestants) :] + contestants[: number % len(contestants)]
            for contestant in order:
                for name in contestant.measures:
                    timed(contestant, name, item, number, options, patience)
            done = [
                f"{c.label} {c.samples[name][number]:.1f}"
                for c in contestants
                for name in c.measures
                if UNITS.get(name) == "tok/s" and name != "prefill" and number in c.samples.get(name, {})
            ]
            print(f"  round {number + 1} of {len(work) - 1}, tok/s: {', '.join(done)}", flush=True)


def timed(
    contestant: Contestant, name: str, work: Work, number: int, options: argparse.Namespace, patience: Patience
) -> None:
    """One measure in a quiet moment; a disturbed one is tried once more, then left out."""
    for _ in range(2):
        patience.wait_until_quiet()
        before, start_s = CpuClock.read([contestant.pid]), time.monotonic()
        values = measure(contestant, name, work, options.max_tokens)
        share = before.foreign_share(CpuClock.read([contestant.pid]), time.monotonic() - start_s)
        if share <= options.max_foreign_share:
            for key, value in values.items():
                contestant.samples.setdefault(key, {})[number] = value
            return
        contestant.disturbed += 1


class Patience:
    """Seconds left to wait for a quiet machine, over the whole run."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def wait_until_quiet(self) -> None:
        """Returns when other processes leave the cores alone, or at once when the patience is used up."""
        while True:
            before, start_s = CpuClock.read(), time.monotonic()
            time.sleep(0.25)
            waited_s = time.monotonic() - start_s
            if before.foreign_share(CpuClock.read(), waited_s) <= QUIET_SHARE or self.seconds <= 0:
                return
            self.seconds -= waited_s


def common_start(left: str, right: str) -> int:
    """Characters two texts share before they part."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))


def agreement(group: list[Contestant]) -> list[dict[str, Any]]:
    """How far the greedy texts of ours and each peer agree: proof that both run the same model."""
    rows = []
    for ours in (c for c in group if c.key.startswith("zenray")):
        for peer in (c for c in group if not c.key.startswith("zenray")):
            shared = [key for key in ours.texts if key in peer.texts and len(ours.texts[key]) > 8]
            pairs = [(ours.texts[key], peer.texts[key]) for key in shared]
            common = [common_start(*pair) for pair in pairs]
            rows.append(
                {
                    "ours": ours.label,
                    "peer": peer.label,
                    "common_characters": asdict(Distribution.of(common)),
                    "characters": asdict(Distribution.of(len(text) for text, _ in pairs)),
                    "same_start": sum(left[:8] == right[:8] for left, right in pairs) / max(1, len(pairs)),
                }
            )
    return rows


def make_report(
    groups: list[list[Contestant]], bandwidths: list[float], prompts: PromptSet, options: argparse.Namespace
) -> dict[str, Any]:
    """Everything measured so far as one JSON document."""
    everyone = {contestant.key: contestant for group in groups for contestant in group}
    return {
        "schema": PEERS_SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**describe_machine(options.threads), "read_gb_per_s": max(bandwidths)},
        "prompts": {"sha256": prompts.sha256, "python": prompts.python_version},
        "rounds": options.rounds,
        "max_tokens": options.max_tokens,
        "max_foreign_share": options.max_foreign_share,
        "samples": sum(len(s) for c in everyone.values() for s in c.samples.values()),
        "disturbed_samples": sum(c.disturbed for c in everyone.values()),
        "versions": sorted({c.versions for c in everyone.values()}),
        "comparisons": compare(everyone),
        "measurements": [
            {
                "label": c.label,
                "measure": name,
                "unit": UNITS[name],
                "value": asdict(Distribution.of(values.values())),
                "samples": values,
            }
            for c in everyone.values()
            for name, values in c.samples.items()
        ],
        "agreement": [row for group in groups for row in agreement(group)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf-05b", type=Path, help="Qwen2.5-Coder-0.5B-Instruct, q4_k_m GGUF")
    parser.add_argument("--gguf-15b", type=Path, help="Qwen2.5-Coder-1.5B-Instruct, q4_k_m GGUF")
    parser.add_argument("--hf-05b", type=Path, help="the 0.5B as a Hugging Face folder")
    parser.add_argument("--llama-python")
    parser.add_argument("--vllm-python")
    parser.add_argument("--transformers-python")
    parser.add_argument("--formats", default="mixed,int4", help="ours against llama.cpp on the 0.5B")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--groups", default="bf16,0.5b,1.5b", help="of those that have what they need; speculation is another one"
    )
    # Its authors advise 2 where there is no GPU; with 10, their default, it was slower than without.
    parser.add_argument("--llama-lookup", type=int, default=2, help="tokens llama.cpp drafts by prompt lookup")
    parser.add_argument("--llama-draft", type=int, default=4, help="tokens llama.cpp drafts with the 0.5B model")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds of waiting for a quiet machine, in all")
    parser.add_argument("--max-foreign-share", type=float, default=0.1, help="of the cores, while timing")
    parser.add_argument("--json", type=Path, default=Path("peers.json"))
    parser.add_argument("--keep", action="store_true", help="keep the rows in --json that are not measured again")
    parser.add_argument("--doc", type=Path, help="a document with a `peers` block to write the tables into")
    options = parser.parse_args()

    groups = list(make_contestants(options))
    if not groups:
        parser.error("nothing to compare: give a model and the Python of at least one peer")
    from zenray.model.load import load_tokenizer

    tokenizer = load_tokenizer(options.gguf_05b or options.gguf_15b)

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text))

    prompts = build_prompts(count_tokens)
    work = make_work(prompts, tokenizer, options.rounds + 1)
    bandwidths = [measure_bandwidth(options.threads).gb_per_s]
    patience = Patience(options.patience)
    measured: list[list[Contestant]] = []
    report: dict[str, Any] = {}
    for group in groups:
        print(", ".join(contestant.label for contestant in group), flush=True)
        run_group(group, work, options, patience)
        measured.append(group)
        bandwidths.append(measure_bandwidth(options.threads).gb_per_s)
        # After every group, so that what is measured is not lost with what comes.
        report = make_report(measured, bandwidths, prompts, options)
        if options.keep and options.json.exists():
            report = merge_peer_reports(json.loads(options.json.read_text(encoding="utf-8")), report)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tables = peer_tables(report)
    print(f"\n{tables}\n\nwrote {options.json}")
    if options.doc:
        write_blocks(options.doc, report)


if __name__ == "__main__":
    main()
