"""`zenray jobs acceptance`: a draft model beside a dump, with a bar while it runs and a table of what it would do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich import progress as rich_progress
from rich.console import Group, RenderableType
from rich.text import Text

from zenray.batch.output.layout import RUNS
from zenray.batch.teacher_logits.acceptance.measure import Accepted, measure_acceptance
from zenray.batch.teacher_logits.acceptance.report import AcceptanceReport, draw
from zenray.batch.teacher_logits.acceptance.texts import teacher_texts
from zenray.batch.teacher_logits.reading.reader import RecordReader
from zenray.cli.console import facts, printable, stderr, table
from zenray.errors import ConfigError
from zenray.model.catalog import source_of
from zenray.model.load import load_model, load_tokenizer
from zenray.model.tokenizer import Tokenizer
from zenray.model.tokenizer_json import tokenizer_digest

FOLDER = f"{RUNS}/acceptance"
_PLACES_SHOWN = (1, 2, 4, 8, 16, 32)


def acceptance(reader: RecordReader, draft: str, gamma: int, max_tokens: int | None, threads: int) -> AcceptanceReport:
    """Runs the draft model over the dump. Raises ConfigError for one with another tokenizer than the teacher's."""
    path = source_of(draft)
    _check_tokenizer(reader, draft, load_tokenizer(path))
    model = load_model(path, num_threads=threads)
    total = min(reader.num_scored, max_tokens or reader.num_scored)
    with _bar(draft, total) as on_positions:
        measured = measure_acceptance(model.decoder, teacher_texts(reader, total), gamma, on_positions)
    return AcceptanceReport.of(draft, str(reader.footer.teacher["name"]), gamma, measured)


def save(report: AcceptanceReport, output: Path) -> Path:
    """JSON and a picture, beside what else depends on when a job ran. Returns the picture."""
    folder = output / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(report.draft).name.replace(":", "-")
    (folder / f"{name}.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    picture = folder / f"{name}.png"
    picture.write_bytes(draw(report))
    return picture


def render(report: AcceptanceReport, picture: Path) -> RenderableType:
    about = facts()
    about.add_row("draft model", printable(report.draft))
    about.add_row("teacher", printable(report.teacher))
    about.add_row("gamma", str(report.gamma))
    places = [place for place in _PLACES_SHOWN if place <= report.gamma]
    columns = [f"token {place}" for place in places]
    shown = table("", "positions", *columns, "tokens a round", right=("positions", *columns, "tokens a round"))
    for name, accepted in report.by_language.items():
        shown.add_row(Text(printable(name), "name"), f"{accepted.num_positions:,}", *_greedy(accepted, places))
        shown.add_row(Text("  temperature 1", "quiet", no_wrap=True), "", *_sampled(accepted, places))
    note = (
        "token n: how often the n-th token of a draft is accepted if all before it were; what speculation that always "
        f"drafts {report.gamma} would see on these texts"
    )
    return Group(about, Text(), shown, Text(), Text(note, "quiet"), Text(f"drawn in {printable(str(picture))}", "hint"))


def _greedy(accepted: Accepted, places: list[int]) -> list[str]:
    rates = accepted.greedy.rates
    return [*(_percent(rates[place - 1]) for place in places), f"{accepted.greedy.tokens_per_round:.2f}"]


def _sampled(accepted: Accepted, places: list[int]) -> list[str]:
    low, high = accepted.sampled_lower, accepted.sampled_upper
    rates = [(low.rates[place - 1] + high.rates[place - 1]) / 2 for place in places]
    return [*map(_percent, rates), f"{(low.tokens_per_round + high.tokens_per_round) / 2:.2f}"]


def _percent(rate: float) -> str:
    return "" if np.isnan(rate) else f"{rate:.1%}"


def _check_tokenizer(reader: RecordReader, draft: str, tokenizer: Tokenizer) -> None:
    if tokenizer_digest(tokenizer) != reader.footer.tokenizer_sha256:
        raise ConfigError(
            f"{draft} has another tokenizer than the teacher of these records, {reader.footer.teacher['name']}: "
            "it cannot draft for it"
        )


@contextmanager
def _bar(draft: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of positions; nothing where there is no terminal."""
    bar = rich_progress.Progress(
        rich_progress.TextColumn(f"{printable(draft)} reads"),
        rich_progress.BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
        rich_progress.TextColumn("{task.completed:,.0f} of {task.total:,.0f} positions"),
        rich_progress.TimeRemainingColumn(compact=True),
        console=stderr(),
        transient=True,
        disable=not stderr().is_terminal,
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
