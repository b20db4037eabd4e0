"""What scoring costs beside reading: tokens per second through the engine, with records and without.

    python -m zenray.bench.scoring [--profile local] [--rounds 3] [--json REPORT] [--doc docs/teacher-logits.md]

The same windows of real code at batch priority, sides in turn within one run: raw prefill (nothing is asked of the
tokens), scoring of every position, and scoring with an overlap of an eighth that is only read. Tokens are those that
pass through the model. There is no prefix cache, so every token does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from zenray.batch.teacher_logits.records.compact import CompactFormat
from zenray.bench.machine import CpuClock
from zenray.bench.report import make_report, write_report
from zenray.bench.scoring_report import DEFAULT_WINDOW, Side, Speed, scoring_rows
from zenray.engine.request import Final, GenerateRequest, Limits, Priority, Scored
from zenray.engine.scoring import Scoring

if TYPE_CHECKING:
    from zenray.engine.engine import Engine
    from zenray.model.tokenizer import Tokenizer

WINDOWS = (512, 1024, 2048, DEFAULT_WINDOW)
FORMAT = CompactFormat(255).score_format
"""The default of the teacher-logits job."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Windows by length, each length's as many as make `tokens`, done `rounds` times."""

    windows: tuple[int, ...] = WINDOWS
    tokens: int = DEFAULT_WINDOW
    rounds: int = 3


def code_tokens(tokenizer: Tokenizer, count: int) -> tuple[int, ...]:
    """The first tokens of the interpreter's standard library, file after file."""
    token_ids: list[int] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*.py")):
        if len(token_ids) >= count:
            break
        token_ids += tokenizer.encode(path.read_text(encoding="utf-8", errors="replace"))
    return tuple(token_ids[:count])


def requests(token_ids: Sequence[int], window: int, side: Side) -> Iterator[GenerateRequest]:
    """Windows of one length, as one side asks for them."""
    scoring = None if side.first_scored is None else Scoring(FORMAT, side.first_scored)
    for start in range(0, len(token_ids) - window + 1, window):
        yield GenerateRequest(
            f"window-{start}",
            tuple(token_ids[start : start + window]),
            limits=Limits(max_tokens=0),
            priority=Priority.BATCH,
            scoring=scoring,
        )


def timed(engine: Engine, asked: Sequence[GenerateRequest]) -> Speed:
    """Requests queued together on an idle engine, until all have ended."""
    num_records = num_ended = 0
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    for request in asked:
        engine.add(request)
    while engine.has_work:
        for _, event in engine.step():
            num_records += event.rows.num_rows if isinstance(event, Scored) else 0
            num_ended += isinstance(event, Final)
    took_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    wanted = sum(len(r.prompt_token_ids) - r.scoring.first_scored for r in asked if r.scoring is not None)
    assert (num_ended, num_records) == (len(asked), wanted), "every window ends with all of its records"
    num_tokens = sum(len(request.prompt_token_ids) for request in asked)
    return Speed(num_tokens / took_s, cpu_s * 1e3 / num_tokens)


def measure(engine: Engine, plan: Plan, say: Console) -> tuple[list[dict[str, Any]], str]:
    """The rows of a report, and the digest of the tokens. Sides take turns, the order turns round every round."""
    token_ids = code_tokens(engine.model.tokenizer, plan.tokens)
    speeds: dict[Side, list[Speed]] = {side: [] for window in plan.windows for side in Side.of_window(window)}
    peak_mib: dict[bool, float] = {}
    for scores in (False, True):  # a warm-up, and what each way needs at most; the peak of a process only grows
        window = min(plan.windows)
        side = Side.of_window(window)[1 if scores else 0]
        timed(engine, list(requests(token_ids[:window], window, side)))
        peak_mib[scores] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for number in range(plan.rounds):
        for window in plan.windows:
            sides = Side.of_window(window)
            for side in sides if number % 2 == 0 else reversed(sides):
                speeds[side].append(timed(engine, list(requests(token_ids, window, side))))
                say.print(f"round {number + 1}, {side.label}: {speeds[side][-1].tokens_per_s:.1f} tokens/s")
    digest = hashlib.sha256(json.dumps(token_ids).encode()).hexdigest()
    return scoring_rows(speeds, peak_mib[False], peak_mib[True]), digest


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.bench.scoring", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", default="local")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="laid over the profile")
    parser.add_argument("--windows", type=int, nargs="+", default=WINDOWS, help="tokens (default: 512 to 4096)")
    parser.add_argument("--tokens", type=int, default=DEFAULT_WINDOW, help="of each side in a round (default: 4096)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--doc", type=Path, help="write the table into its block of this document")
    arguments = parser.parse_args()
    if not 1 <= max(arguments.windows) <= arguments.tokens:
        parser.error(f"--tokens is {arguments.tokens}; allowed: at least the longest window, {max(arguments.windows)}")

    from zenray.bench.runs import plainly, shown_config
    from zenray.build import build_engine
    from zenray.config_load import load_config

    say = Console(stderr=True, highlight=False)
    plan = Plan(tuple(arguments.windows), arguments.tokens, arguments.rounds)
    config = plainly(load_config(arguments.profile, None, ["engine.prefix_cache=false", *arguments.set]))
    engine = build_engine(config)
    clock, begun_s = CpuClock.read(), time.monotonic()
    rows, digest = measure(engine, plan, say)
    foreign = clock.foreign_share(CpuClock.read(), time.monotonic() - begun_s)
    engine.shutdown()
    report = make_report(
        "scoring",
        rows,
        prompts={"sha256": digest},
        settings={"config": shown_config(config), "plan": asdict(plan), "format": asdict(FORMAT)},
        bandwidth=None,
        foreign_cpu_share=foreign,
    )
    if arguments.json is not None:
        write_report(report, arguments.json)
    if arguments.doc is not None:
        from zenray.bench.document import write_blocks

        write_blocks(arguments.doc, report)
    print(json.dumps(report["results"], indent=2))


if __name__ == "__main__":
    main()
