#!/usr/bin/env python
"""Which model and prompt budget make a useful completion on this machine's cores?

    python benchmarks/choose_local.py [--models NAME:FORMAT ...] [--budgets 512,1024,2048] [--gaps 60]

Takes lines out of the standard library's files, asks each candidate for the missing line (the way the
served platform would: same context assembly, same engine) and reports how often the line comes back
exactly, how long a cold request takes, and how long the next keystroke's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from zenray.bench.prompts import SOURCE_FILES
from zenray.build import build_engine
from zenray.config import ContextSettings, EngineSettings, ModelSettings, ZenrayConfig
from zenray.context.assemble import assemble
from zenray.context.budget import PromptLimits
from zenray.context.request import CompletionRequest, EditorState
from zenray.engine.engine import Engine
from zenray.engine.request import Delta, Final, Limits

MIN_LINE_CHARACTERS = 12
MAX_TOKENS = 32


@dataclass(frozen=True)
class Gap:
    """A file with the rest of one line missing at the cursor."""

    path: str
    text: str
    cursor: int
    missing: str


def gaps(count: int, seed: int = 0) -> Iterator[Gap]:
    """Lines of code cut somewhere in their first half, the same ones every time."""
    chance = random.Random(seed)
    library = Path(sysconfig.get_paths()["stdlib"])
    for number in range(count):
        name = SOURCE_FILES[number % len(SOURCE_FILES)]
        text = (library / name).read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        candidates = [
            at
            for at in range(len(lines) // 4, len(lines))
            if len(lines[at].strip()) >= MIN_LINE_CHARACTERS and not lines[at].lstrip().startswith(("#", '"', "'"))
        ]
        at = chance.choice(candidates)
        code = lines[at].rstrip("\n")
        indent = len(code) - len(code.lstrip())
        cut = indent + chance.randint(0, (len(code) - indent) // 2)
        cursor = sum(map(len, lines[:at])) + cut
        missing = code[cut:]
        yield Gap(name, text[:cursor] + text[cursor + len(missing) :], cursor, missing)


def complete(engine: Engine, limits: PromptLimits, gap: Gap, typed: int) -> tuple[str, float, float]:
    """One line at the cursor after `typed` more characters: its text, milliseconds to the first text and in all."""
    text = gap.text[: gap.cursor] + gap.missing[:typed] + gap.text[gap.cursor :]
    state = EditorState(gap.path, "python", text, gap.cursor + typed)
    request = CompletionRequest("gap", state, limits=Limits(max_tokens=MAX_TOKENS, max_lines=1))
    started = time.perf_counter()
    prompt = assemble(request, engine.model.tokenizer, limits)
    engine.add(prompt.generate_request(request))
    first_ms = 0.0
    answer = ""
    while engine.has_work:
        for _, event in engine.step():
            if isinstance(event, Delta) and not first_ms:
                first_ms = (time.perf_counter() - started) * 1000
            elif isinstance(event, Final):
                answer = event.text
    return answer, first_ms, (time.perf_counter() - started) * 1000


def quantiles(values: list[float]) -> str:
    cuts = statistics.quantiles(values, n=20)
    return f"{statistics.median(values):.0f} / {cuts[18]:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ["qwen2.5-coder-0.5b:mixed", "qwen2.5-coder-1.5b:mixed", "qwen2.5-coder-1.5b:int4"]
    parser.add_argument("--models", nargs="+", default=default, metavar="NAME:FORMAT")
    parser.add_argument("--budgets", default="512,1024,2048", help="tokens of prompt")
    parser.add_argument("--suffix-share", type=float, default=ContextSettings().suffix_share)
    parser.add_argument("--gaps", type=int, default=60)
    options = parser.parse_args()

    console = Console()
    table = Table(title=f"{options.gaps} missing line ends of the standard library; milliseconds p50 / p95")
    for column in ("model", "format", "prompt budget", "exact", "cold first text", "cold line", "next keystroke, line"):
        table.add_column(column, justify="left" if column in ("model", "format") else "right")
    for candidate in options.models:
        name, weight_format = candidate.rsplit(":", 1)
        config = ZenrayConfig(
            model=ModelSettings(name=name, weight_format=weight_format), engine=EngineSettings(max_step_tokens=512)
        )
        engine = build_engine(config)
        for budget in map(int, options.budgets.split(",")):
            limits = PromptLimits(engine.max_sequence_tokens, budget, options.suffix_share)
            exact, first_ms, line_ms, next_ms = 0, [], [], []
            for gap in track(list(gaps(options.gaps)), description=f"{candidate}, {budget} tokens", console=console):
                engine.pool.clear_cache()
                answer, first, whole = complete(engine, limits, gap, typed=0)
                exact += answer.strip() == gap.missing.strip()
                first_ms.append(first)
                line_ms.append(whole)
                next_ms.append(complete(engine, limits, gap, typed=1)[2])
            share = f"{exact / options.gaps:.0%}"
            row = (quantiles(first_ms), quantiles(line_ms), quantiles(next_ms))
            table.add_row(name, weight_format, str(budget), share, *row)
        del engine
    console.print(table)


if __name__ == "__main__":
    main()
