"""What record formats are worth: bytes, fidelity and bias over the exact distributions of a real teacher.

    python -m zenray.bench.record_fidelity [--tokens N] [--json REPORT] [--plot PNG] [--doc docs/teacher-logits.md]

The teacher reads code in five languages, arranged as the job arranges it. Every format is measured over the same
distributions: what it takes on disk, how far a student's targets are from the teacher's at each position (KL), and how
far their mean is, which is the bias of a student's mean gradient: with respect to its logits, and with respect to its
output layer. The first of it takes the teacher some minutes, and is kept in a folder, part by part, so that a run that
was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from zenray.batch.teacher_logits.code import code_digest
from zenray.batch.teacher_logits.planning.settings import PlanSettings
from zenray.batch.teacher_logits.records.formats import parse_format
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.bench.document import replace_block, write_blocks
from zenray.bench.machine import CpuClock
from zenray.bench.record_comparison import Parts, bytes_per_token, compare
from zenray.bench.record_formats import (
    DistillKitFormat,
    MeasuredFormat,
    OurFormat,
    Priors,
    SampledFormat,
    TopFormat,
    published,
)
from zenray.bench.record_pass import NUM_DRAWS, ExactRows, Reference
from zenray.bench.record_redraws import Positions, redraw
from zenray.bench.record_report import plot_records, records_markdown
from zenray.bench.record_texts import PACKAGES, Texts, fetch_packages, parts_of, plan_texts
from zenray.bench.report import make_report, write_report
from zenray.config import home
from zenray.model.catalog import pull
from zenray.model.load import LoadedModel, load_model

OURS = ("compact-255", "compact-48", "compact-24")
"""The first is the one that others get as many bytes as."""
NUM_PARTS = 16
NUM_DIRECTIONS = 16
_NUM_REDRAWS = 1000
_DRAWS = (12, 25, 50)
_TOPS = (32, 50)


def other_formats(parts: Parts, priors: Priors, budget: float) -> list[MeasuredFormat]:
    """Competitors as published, and of each kind the one that takes about `budget` bytes a token."""

    def bytes_of(measured: MeasuredFormat) -> float:
        return bytes_per_token(parts, measured, priors.vocabulary)[0]

    tops: list[MeasuredFormat] = [TopFormat(k, priors) for k in range(4, 65)]
    kits: list[MeasuredFormat] = [
        DistillKitFormat(f"DistillKit budget, k = {k}", k, 1, 16, (0.0, 1.0, 0.5), False, priors) for k in range(5, 51)
    ]
    samples: list[MeasuredFormat] = [SampledFormat(num, priors) for num in range(64, NUM_DRAWS + 1, 64)]
    equal = [largest_within(each, bytes_of, budget) for each in (tops, kits, samples)]
    chosen: list[MeasuredFormat] = [*(TopFormat(k, priors) for k in _TOPS), *published(priors)]
    chosen += [SampledFormat(num, priors) for num in _DRAWS]
    return [*chosen, *(each for each in equal if each.name not in {one.name for one in chosen})]


def largest_within(
    candidates: Sequence[MeasuredFormat], bytes_of: Callable[[MeasuredFormat], float], budget: float
) -> MeasuredFormat:
    """Of candidates that grow, the last one within the budget; the first where none is."""
    low, high = 0, len(candidates)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bytes_of(candidates[middle]) <= budget else (low, middle)
    return candidates[low]


def make_parts(folder: Path, texts: Texts, teacher: LoadedModel, student: LoadedModel, say: Console) -> Parts:
    """Computes what the folder does not have yet; what is returned reads one part after another."""
    size = teacher.config.vocab_size
    own, other = (Vocabulary(_padded(counts, size)) for counts in (texts.counts_V, texts.other_counts_V))
    reference = Reference(
        teacher.decoder,
        student.decoder,
        own,
        [parse_format(name) for name in OURS],
        np.column_stack([other.prior_V, np.full(size, 1 / size)]),
        NUM_DIRECTIONS,
    )
    parts = parts_of(texts.sequences, NUM_PARTS)
    paths = [folder / f"part-{index:02d}.npz" for index in range(len(parts))]
    folder.mkdir(parents=True, exist_ok=True)
    with Progress(console=say) as progress:
        task = progress.add_task("exact distributions", total=sum(s.num_scored for part in parts for s in part))
        for index, (path, part) in enumerate(zip(paths, parts, strict=True)):
            if path.exists():
                progress.advance(task, sum(sequence.num_scored for sequence in part))
            else:
                reference.part(part, index, lambda rows: progress.advance(task, rows)).save(path)

    def read() -> Iterator[ExactRows]:
        return map(ExactRows.load, paths)

    return read


def measure(parts: Parts, texts: Texts, size: int, ops: Any, say: Console, num_redraws: int) -> list[dict[str, Any]]:
    """The rows of a report."""
    own, other = (Vocabulary(_padded(counts, size)) for counts in (texts.counts_V, texts.other_counts_V))
    priors = Priors(own, {"own": 0, "other": 1, "uniform": 2})
    ours = [OurFormat(parse_format(name), index, priors, other) for index, name in enumerate(OURS)]
    rows = []
    for measured in ours:
        say.print(measured.name)
        rows.append(compare(parts, measured, own))
    for rival in other_formats(parts, priors, rows[0]["bytes_per_token"]):
        say.print(rival.name)
        rows.append(compare(parts, rival, own))
    whole = [(part.whole_logits_XV, part.whole_student_XV) for part in parts()]
    positions = Positions(*(np.concatenate(each) for each in zip(*whole, strict=True)))
    for measured in ours[:2]:
        say.print(f"{num_redraws} redraws of {measured.name}")
        rows.append(redraw(positions, measured.record_format, own, ops, num_redraws))
    return rows


def teacher_row(parts: Parts) -> dict[str, Any]:
    """What the teacher is like on these texts, whatever the format; by language."""
    entropies_R = np.concatenate([part.entropies_R for part in parts()])
    losses_R = -np.concatenate([part.gold_logprobs_R for part in parts()]).astype(np.float64)
    languages_R = np.concatenate([part.languages_R for part in parts()])
    names = ["", *np.unique(languages_R)]
    masks = [languages_R == name if name else np.ones(len(languages_R), bool) for name in names]
    return {
        "measure": "teacher",
        "languages": [
            {
                "language": str(name),
                "tokens": int(mask.sum()),
                "entropy": float(entropies_R[mask].mean()),
                "loss": float(losses_R[mask].mean()),
            }
            for name, mask in zip(names, masks, strict=True)
        ],
    }


def _padded(counts_V: np.ndarray, size: int) -> np.ndarray:
    """Models have rows for ids that their tokenizers do not know."""
    return np.pad(counts_V, (0, size - len(counts_V)))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m zenray.bench.record_fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--teacher", default="qwen2.5-coder-1.5b")
    parser.add_argument("--student", default="qwen2.5-coder-0.5b", help="of the same vocabulary")
    parser.add_argument("--folder", type=Path, default=home() / "record_fidelity", help="what is kept between runs")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--redraws", type=int, default=_NUM_REDRAWS)
    parser.add_argument("--json", type=Path, metavar="REPORT")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--doc", type=Path, help="whose block of records to write again")
    options = parser.parse_args()
    say, clock, began_s = Console(stderr=True, highlight=False), CpuClock.read(), time.monotonic()
    if options.doc is not None:
        replace_block(options.doc.read_text(encoding="utf-8"), "records", "")  # Before the work, not after it.
    archives = fetch_packages(options.folder / "packages")
    teacher, student = (
        load_model(pull(name), num_threads=options.threads) for name in (options.teacher, options.student)
    )
    texts = plan_texts(archives, teacher.tokenizer, options.tokens)
    made_of = f"{texts.sha256} {teacher.info.sha256} {student.info.sha256} {OURS} {code_digest()}"
    folder = options.folder / sha256(made_of.encode()).hexdigest()[:16]
    parts = make_parts(folder, texts, teacher, student, say)
    rows = [teacher_row(parts)]
    rows += measure(parts, texts, teacher.config.vocab_size, teacher.decoder.ops, say, options.redraws)
    report = make_report(
        "records",
        rows,
        prompts={"sha256": texts.sha256, "tokens": texts.scored_by_language, "packages": PACKAGES},
        settings={
            "teacher": options.teacher,
            "weight_format": teacher.info.weight_format,
            "student": options.student,
            "window_tokens": PlanSettings().window_tokens,
            "fim_rate": PlanSettings().fim_rate,
        },
        bandwidth=None,
        foreign_cpu_share=clock.foreign_share(CpuClock.read(), time.monotonic() - began_s),
    )
    print(records_markdown(report))
    if options.json is not None:
        write_report(report, options.json)
    if options.plot is not None:
        plot_records(report, options.plot)
    if options.doc is not None:
        write_blocks(options.doc, report)


if __name__ == "__main__":
    main()
