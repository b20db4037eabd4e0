"""How long the context aggregator takes for a prompt, and how much of it the next keystroke finds again.

    python -m zenray.bench.aggregation [--json REPORT] [--doc docs/completion.md] [--keystrokes 600]

Someone types through a file of 5,000 lines while twenty other library files are open, with the real tokenizer. Cold is
a first request, which reads every open file; warm is every keystroke after it. What is reused is counted as the prefix
cache does: whole blocks of 16 leading tokens equal to those of the prompt before.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, write_report
from zenray.bench.statistics import Distribution
from zenray.context.assemble import AssembledPrompt, assemble
from zenray.context.budget import PromptLimits
from zenray.context.prompt.memory import PromptMemory
from zenray.context.request import FOR_EDITORS, CompletionRequest, EditorState
from zenray.context.surroundings import Document, RecentEdit, Surroundings
from zenray.context.tokens import PromptTokenizer
from zenray.engine.request import Limits

NUM_LINES, NUM_OPEN_FILES = 5_000, 20
GOAL_P95_MS = 15.0
BLOCK_SIZE = 16
MAX_FOREIGN_SHARE = 0.2
"""Of the cores; where other processes used more, times of waiting tell more of them than of us."""
_BUDGETS = (1024, 2048, 8192)
_COLD_ROUNDS = 5
_TYPED_FROM = 0.3  # Of the file, where typing begins.

# Modules of the standard library in order of size, so that every machine with this Python measures the same text.
_CURRENT = ("argparse", "inspect")
_OPEN = (
    *("typing", "turtle", "doctest", "tarfile", "zipfile", "threading", "subprocess", "socket", "pydoc", "mailbox"),
    *("datetime", "difflib", "enum", "pickle", "shutil", "optparse", "tempfile", "statistics", "smtplib", "ssl"),
)


@dataclass(frozen=True, slots=True)
class Keystrokes:
    """What typing at one budget gave. `warm_cpu_ms` is the time the process computed, whatever else ran meanwhile."""

    budget: int
    prompt_tokens: Distribution
    cold_ms: Distribution
    warm_ms: Distribution
    warm_cpu_ms: Distribution
    reused_share: float


def type_through(
    document: Document,
    start: int,
    num_keystrokes: int,
    surroundings: Surroundings,
    limits: PromptLimits,
    tokenizer: PromptTokenizer,
    memory: PromptMemory,
) -> Iterator[AssembledPrompt]:
    """The prompt after each character, as the text from `start` on is typed where it stood."""
    text, end = document.text, start + num_keystrokes
    typed_line = text.count("\n", 0, start)
    for cursor in range(start, end):
        edit = RecentEdit(document.path, typed_line, "", text[start:cursor], cursor / 5)
        editor = EditorState(document.path, document.language, text[:cursor] + text[end:], cursor)
        request = CompletionRequest("bench", editor, "typist", limits=Limits(max_tokens=64), suggestion=FOR_EDITORS)
        now = Surroundings(surroundings.documents, edits=(edit, *surroundings.edits), now_s=cursor / 5)
        yield assemble(request, tokenizer, limits, now, memory)


def reused_tokens(before: Sequence[int], after: Sequence[int]) -> int:
    """Leading tokens of `after` that a prefix cache holding `before` has."""
    shorter = min(len(before), len(after))
    same = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    return same // BLOCK_SIZE * BLOCK_SIZE


def measure(
    tokenizer: PromptTokenizer, budget: int, num_keystrokes: int, document: Document, around: Surroundings
) -> Keystrokes:
    """One typing session, and a few first requests."""
    limits = PromptLimits(32_768, budget, suffix_share=0.25)
    start = document.text.index("\n", int(_TYPED_FROM * len(document.text))) + 1
    cold: list[float] = []
    for _ in range(_COLD_ROUNDS):
        memory = PromptMemory.of(tokenizer)
        began_s = time.perf_counter()
        next(type_through(document, start, num_keystrokes, around, limits, tokenizer, memory))
        cold.append((time.perf_counter() - began_s) * 1000)
    prompts, cpu = [], []
    began_s = time.process_time()
    for prompt in type_through(document, start, num_keystrokes, around, limits, tokenizer, memory):
        cpu.append((time.process_time() - began_s) * 1000)
        prompts.append(prompt)
        began_s = time.process_time()
    reused = sum(reused_tokens(a.token_ids, b.token_ids) for a, b in itertools.pairwise(prompts))
    sizes = [len(prompt.token_ids) for prompt in prompts]
    return Keystrokes(
        budget,
        Distribution.of(map(float, sizes)),
        Distribution.of(cold),
        Distribution.of(prompt.assemble_ms for prompt in prompts[1:]),
        Distribution.of(cpu[1:]),
        reused / sum(sizes[1:]),
    )


def library_documents() -> tuple[Document, Surroundings]:
    """The document that is typed in, and the others that are open."""
    lines = "".join(map(_source, _CURRENT)).splitlines(keepends=True)
    assert len(lines) >= NUM_LINES
    opened = tuple(Document(f"lib/{name}.py", "python", _source(name), 1) for name in _OPEN)
    assert len(opened) == NUM_OPEN_FILES
    edits = (RecentEdit("lib/optparse.py", 100, "parse(args)\n", "parse_args(args)\n", 1.0),)
    return Document("lib/current.py", "python", "".join(lines[:NUM_LINES])), Surroundings(opened, edits)


def aggregation_markdown(report: dict[str, Any]) -> str:
    """The block of docs/completion.md."""
    settings = report["settings"]
    cores = report["machine"]["cores"]
    lines = [
        f"Measured {report['created'][:10]} on {cores} cores: {settings['keystrokes']} keystrokes in a file of "
        f"{settings['lines']:,} lines with {settings['open_files']} library files open "
        f"({settings['open_characters'] / 1e6:.1f} MB), the tokenizer of {settings['tokenizer']}.",
        "",
        "| budget | prompt tokens | p50 | p95 | p99 | p95 of computing | first request | found in the cache |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["results"]:
        warm = [f"{row['warm_ms'][name]:.1f} ms" for name in ("p50", "p95", "p99")]
        warm.append(f"{row['warm_cpu_ms']['p95']:.1f} ms")
        sizes = f"{row['budget']:,} | {row['prompt_tokens']['p50']:,.0f}"
        lines.append(f"| {sizes} | {' | '.join(warm)} | {row['cold_ms']['p50']:.0f} ms | {row['reused_share']:.1%} |")
    foreign = report["foreign_cpu_share"] or 0.0
    disturbed = foreign > MAX_FOREIGN_SHARE
    worst = max(row["warm_cpu_ms" if disturbed else "warm_ms"]["p95"] for row in report["results"])
    verdict = "met" if worst <= settings["goal_p95_ms"] else "missed"
    judged = "of computing, by which a disturbed run is judged" if disturbed else "of waiting"
    lines += [
        "",
        f"Other processes used {foreign:.0%} of the cores meanwhile. Wanted: p95 ≤ {settings['goal_p95_ms']:g} ms on 2 "
        f"cores; the worst is {worst:.1f} ms {judged}: {verdict}.",
    ]
    return "\n".join(lines)


def _source(module: str) -> str:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None
    return Path(found.origin).read_text(encoding="utf-8")


def main() -> None:
    """The command."""
    from zenray.bench.document import write_blocks
    from zenray.model.catalog import Catalog
    from zenray.model.load import load_tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="REPORT")
    parser.add_argument("--doc", type=Path, metavar="PAGE", help="whose block of this bench is written again")
    parser.add_argument("--keystrokes", type=int, default=600)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b", help="whose tokenizer; pulled if need be")
    options = parser.parse_args()
    tokenizer = load_tokenizer(Catalog.load().pull(options.model))
    document, around = library_documents()
    clock, began_s = CpuClock.read(), time.perf_counter()
    measured = [measure(tokenizer, budget, options.keystrokes, document, around) for budget in _BUDGETS]
    foreign = clock.foreign_share(CpuClock.read(), time.perf_counter() - began_s)
    texts = [document.text, *(each.text for each in around.documents)]
    report = make_report(
        "aggregation",
        [asdict(row) for row in measured],
        prompts={"sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest()},
        settings={
            "keystrokes": options.keystrokes,
            "lines": NUM_LINES,
            "open_files": NUM_OPEN_FILES,
            "open_characters": sum(map(len, texts[1:])),
            "tokenizer": options.model,
            "goal_p95_ms": GOAL_P95_MS,
        },
        bandwidth=None,
        foreign_cpu_share=foreign,
    )
    if options.json is not None:
        write_report(report, options.json)
    if options.doc is not None:
        write_blocks(options.doc, report)
    print(aggregation_markdown(report))


if __name__ == "__main__":
    main()
